// SPDX-License-Identifier: Apache-2.0
// CUDA's return codes as exceptions. Without the CUDA part these functions do not exist.
#pragma once

namespace fkdx {

// Throws std::runtime_error with CUDA's own text, and what to do where the build does not suit the machine,
// unless error is cudaSuccess.
void cuda_check(int error, const char* what);

// Devices that this build's CUDA can use. Throws std::runtime_error with CUDA's own text where there is no
// driver or it is too old.
int cuda_device_count();

// Makes `device` the current one, and the former one again at the end.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int former_ = -1;
  bool changed_ = false;
};

}  // namespace fkdx
