// SPDX-License-Identifier: Apache-2.0
// How every kernel is started.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

#include "base/cuda.h"

namespace fkdx {

// Starts kernel(args) on `stream` of `device` and returns. Throws std::runtime_error, beginning with `what`.
template <typename Args>
void launch(void (*kernel)(Args), dim3 blocks, int threads, const Args& args, int device, uintptr_t stream,
            const char* what) {
  const DeviceGuard guard(device);
  cudaLaunchConfig_t config{};
  config.gridDim = blocks;
  config.blockDim = threads;
  config.stream = reinterpret_cast<cudaStream_t>(stream);
  cuda_check(cudaLaunchKernelEx(&config, kernel, args), what);
}

}  // namespace fkdx
