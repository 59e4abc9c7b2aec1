// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/cpu.h"
#include "base/parallel.h"
#include "batch/variants.h"

namespace fkdx {
namespace {

PrepareRange selected() {
#if defined(__x86_64__)
  if (selected_cpu() == Cpu::kAvx512) return prepare_avx512();
  if (selected_cpu() == Cpu::kAvx2) return prepare_avx2();
#endif
  return prepare_scalar();
}

}  // namespace

void prepare_cpu(const PrepareCall& call, int threads) {
  for (int64_t row = 0; call.partners && row < call.rows; ++row) {
    check<std::out_of_range>(call.partners[row] >= 0 && call.partners[row] < call.other_rows,
                             "prepare: permutation of row ", row, ", got ", call.partners[row],
                             ", expected 0 <= entry < ", call.other_rows);
  }
  parallel(call.rows, threads,
           [&, range = selected()](int64_t begin, int64_t end) { range(call, begin, end); });
}

}  // namespace fkdx
