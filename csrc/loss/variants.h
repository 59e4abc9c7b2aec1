// SPDX-License-Identifier: Apache-2.0
// The row code, compiled once for each CPU variant.
#pragma once

#include <cstdint>

#include "loss/loss.h"

namespace fkdx {

struct LossVariant {
  void (*rows)(const LossCall& call, int64_t begin, int64_t end);
  float (*exp2)(float);  // the vector exponential, for tests
};

extern const LossVariant kLossScalar, kLossAvx2, kLossAvx512;

const LossVariant& selected_loss();

}  // namespace fkdx
