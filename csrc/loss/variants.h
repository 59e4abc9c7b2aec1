// SPDX-License-Identifier: Apache-2.0
// The row code, compiled once for each CPU variant.
#pragma once

#include <cstdint>

#include "loss/loss.h"

namespace fkdx {

using LossRange = void (*)(const LossCall& call, int64_t begin, int64_t end);

struct LossVariant {
  LossRange rows;
  float (*exp2)(float);  // the vector exponential, for tests
};

LossVariant selected_loss();  // as base/cpu.h says
LossVariant loss_scalar();
LossVariant loss_avx2();
LossVariant loss_avx512();

}  // namespace fkdx
