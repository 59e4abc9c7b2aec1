// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "loss/entries.h"
#include "loss/variants.h"

namespace fkdx {
namespace {

constexpr int kVectorBytes = 16;
#ifdef __aarch64__
[[maybe_unused]] constexpr bool kHasFma = true;
#else
[[maybe_unused]] constexpr bool kHasFma = false;
#endif

#include "base/lanes.h"
#include "loss/rows.h"

}  // namespace

LossVariant loss_scalar() { return {loss_any_type, exp_of}; }

}  // namespace fkdx
