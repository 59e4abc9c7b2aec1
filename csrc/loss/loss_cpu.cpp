// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "base/cpu.h"
#include "base/parallel.h"
#include "loss/loss.h"
#include "loss/variants.h"

namespace fkdx {
namespace {

constexpr int64_t kLogitsPerThread = 1 << 16;  // fewer are not worth another thread

}  // namespace

const LossVariant& selected_loss() {
  return *choose(&kLossScalar, FKDX_ON_X86(&kLossAvx2), FKDX_ON_X86(&kLossAvx512));
}

void loss_cpu(const LossCall& call, int threads) {
  const int64_t useful = call.rows * call.classes / kLogitsPerThread;
  parallel(call.rows, std::min<int64_t>(threads, useful),
           [&, rows = selected_loss().rows](int64_t begin, int64_t end) { rows(call, begin, end); });
}

}  // namespace fkdx
