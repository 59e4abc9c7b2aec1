// SPDX-License-Identifier: Apache-2.0
#ifdef __aarch64__
#include <arm_neon.h>
#endif

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

#include "base/lanes.h"
#include "loss/rows.h"

}  // namespace

const LossVariant kLossScalar = {loss_any_type, exp2_of};

}  // namespace fkdx
