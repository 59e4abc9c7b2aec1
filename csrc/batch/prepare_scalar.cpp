// SPDX-License-Identifier: Apache-2.0
#ifdef __aarch64__
#include <arm_neon.h>
#endif

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "batch/variants.h"

namespace fkdx {
namespace {

constexpr int kVectorBytes = 16;

#include "base/lanes.h"
#include "batch/prepare_rows.h"

}  // namespace

const PrepareVariant kPrepareScalar = {prepare_any_type};

}  // namespace fkdx
