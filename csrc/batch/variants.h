// SPDX-License-Identifier: Apache-2.0
// The pixel code, compiled once for each CPU variant.
#pragma once

#include "batch/prepare.h"

namespace fkdx {

struct PrepareVariant {
  void (*rows)(const PrepareCall& call, int64_t begin, int64_t end);
};

extern const PrepareVariant kPrepareScalar, kPrepareAvx2, kPrepareAvx512;

}  // namespace fkdx
