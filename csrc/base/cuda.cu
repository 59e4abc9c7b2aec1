// SPDX-License-Identifier: Apache-2.0
#include "base/cuda.h"

#include <cuda_runtime.h>

#include "base/check.h"

namespace fkdx {
namespace {

// What to do where this build and the machine do not suit one another.
const char* remedy(int error) {
  switch (error) {
    case cudaErrorInsufficientDriver:
    case cudaErrorUnsupportedPtxVersion:
      return "; the driver is missing or older than the CUDA of this build: update it";
    case cudaErrorNoKernelImageForDevice:
    case cudaErrorInvalidDeviceFunction:
      return "; this build is for the GPU architectures " FKDX_CUDA_TARGETS
             ": build again with FKDX_CUDA_ARCHS=native";
    default:
      return "";
  }
}

}  // namespace

void cuda_check(int error, const char* what) {
  if (error == cudaSuccess) return;
  const char* text = cudaGetErrorString(static_cast<cudaError_t>(error));
  throw std::runtime_error(message(what, ": ", text, remedy(error)));
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
