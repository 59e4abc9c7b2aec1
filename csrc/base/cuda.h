// SPDX-License-Identifier: Apache-2.0
// CUDA's return codes as exceptions. Without the CUDA part these functions do not exist.
#pragma once

namespace fkdx {

// Throws std::runtime_error with CUDA's own text unless error is cudaSuccess.
void cuda_check(int error, const char* what);

// 0 without a driver; never throws.
int cuda_device_count();

}  // namespace fkdx
