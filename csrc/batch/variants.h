// SPDX-License-Identifier: Apache-2.0
// The pixel code, compiled once for each CPU variant.
#pragma once

#include "batch/prepare.h"

namespace fkdx {

using PrepareRange = void (*)(const PrepareCall& call, int64_t begin, int64_t end);

PrepareRange prepare_scalar();
PrepareRange prepare_avx2();
PrepareRange prepare_avx512();

}  // namespace fkdx
