// SPDX-License-Identifier: Apache-2.0
#include "base/cuda.h"

#include <cuda_runtime.h>

#include "base/check.h"

namespace fkdx {

void cuda_check(int error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(message(what, ": ", cudaGetErrorString(static_cast<cudaError_t>(error))));
}

int cuda_device_count() {
  int count = 0;
  cuda_check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  return count;
}

DeviceGuard::DeviceGuard(int device) {
  cuda_check(cudaGetDevice(&former_), "cudaGetDevice");
  changed_ = former_ != device;
  if (changed_) cuda_check(cudaSetDevice(device), "cudaSetDevice");
}

DeviceGuard::~DeviceGuard() {
  if (changed_) cudaSetDevice(former_);
}

}  // namespace fkdx
