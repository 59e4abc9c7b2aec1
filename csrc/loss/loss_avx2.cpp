// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "loss/entries.h"
#include "loss/variants.h"

#pragma GCC target("avx2,fma,f16c")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 32;
[[maybe_unused]] constexpr bool kHasFma = true;

#include "base/lanes.h"
#include "loss/rows.h"

}  // namespace

LossVariant loss_avx2() { return {loss_any_type, exp_of}; }

}  // namespace fkdx

#endif
