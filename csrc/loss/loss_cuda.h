// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "loss/loss.h"

namespace fkdx {

// Which kernel computes a sparse softmax. kAuto asks the shape; the others are for tests and measurements,
// and give way where the row does not fit.
enum class LossKernel : int { kAuto = 0, kWarp = 1, kBlock = 2, kLoop = 3 };

// Launches one kernel on `stream` of `device` and returns; all pointers are the device's. At most 8 sources
// with 64 classes a row together. A class outside [0, classes) makes its row NaN.
void loss_cuda(const LossCall& call, int device, uintptr_t stream, LossKernel wish = LossKernel::kAuto);

}  // namespace fkdx
