// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "batch/variants.h"

#define FKDX_AVX2
#pragma GCC target("avx2,fma,f16c")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 32;

#include "base/lanes.h"
#include "batch/prepare_rows.h"

}  // namespace

const PrepareVariant kPrepareAvx2 = {prepare_any_type};

}  // namespace fkdx

#endif
