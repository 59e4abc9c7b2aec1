// SPDX-License-Identifier: Apache-2.0
#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <vector>

#include "base/target.h"
#include "loss/entries.h"
#include "loss/variants.h"

#define FKDX_AVX512
FKDX_BEGIN_TARGET("avx512f,avx512bw,avx512vl,avx512dq,fma")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 64;

#include "base/lanes.h"
#include "loss/rows.h"

}  // namespace

FKDX_END_TARGET

const LossVariant kLossAvx512 = {loss_any_type, exp2_of};

}  // namespace fkdx

#endif
