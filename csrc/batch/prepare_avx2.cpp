// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "base/target.h"
#include "batch/variants.h"

#define FKDX_AVX2
FKDX_BEGIN_TARGET("avx2,fma,f16c")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 32;

#include "base/lanes.h"
#include "batch/prepare_rows.h"

}  // namespace

FKDX_END_TARGET

const PrepareVariant kPrepareAvx2 = {prepare_any_type};

}  // namespace fkdx

#endif
