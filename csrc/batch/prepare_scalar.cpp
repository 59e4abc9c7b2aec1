// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "batch/variants.h"

namespace fkdx {
namespace {

constexpr int kVectorBytes = 16;
#ifdef __aarch64__
[[maybe_unused]] constexpr bool kHasFma = true;
#else
[[maybe_unused]] constexpr bool kHasFma = false;
#endif

#include "base/lanes.h"
#include "batch/prepare_rows.h"

}  // namespace

PrepareRange prepare_scalar() { return prepare_any_type; }

}  // namespace fkdx
