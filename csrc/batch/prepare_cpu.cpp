// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/cpu.h"
#include "base/huge_pages.h"
#include "base/parallel.h"
#include "batch/variants.h"

namespace fkdx {

void prepare_cpu(const PrepareCall& call, int threads) {
  for (int64_t row = 0; call.partners && row < call.rows; ++row) {
    check<std::out_of_range>(call.partners[row] >= 0 && call.partners[row] < call.other_rows,
                             "prepare: partner of row ", row, ", got ", call.partners[row],
                             ", expected 0 <= entry < ", call.other_rows);
  }
  const PrepareVariant& variant =
      *choose(&kPrepareScalar, FKDX_ON_X86(&kPrepareAvx2), FKDX_ON_X86(&kPrepareAvx512));
  const int64_t pixels = call.rows * call.height * call.width * 3;
  // Half of the time was the kernel's, for new pages: the output is often as large as a hundred megabytes.
  prefer_huge_pages(call.out, static_cast<size_t>(pixels * (call.type == PixelType::kF32 ? 4 : 2)));
  parallel(call.rows, threads, [&](int64_t begin, int64_t end) { variant.rows(call, begin, end); });
}

}  // namespace fkdx
