// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "batch/variants.h"

#pragma GCC target("avx2,fma,f16c")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 32;
[[maybe_unused]] constexpr bool kHasFma = true;

#include "base/lanes.h"
#include "batch/prepare_rows.h"

}  // namespace

PrepareRange prepare_avx2() { return prepare_any_type; }

}  // namespace fkdx

#endif
