// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/launch.h"
#include "batch/topk.h"
#include "batch/topk_kernel.h"

namespace fkdx {
namespace {

struct Launch {
  void (*kernel)(TopkCall);
  int threads, rows_per_block;
};

template <typename T>
Launch choose(int classes) {
  constexpr int kQuads = 32 / T::kPerQuad;  // so many a thread, or fewer
  constexpr int kMostQuads = (kMaxTopkClasses + 512 * T::kPerQuad - 1) / (512 * T::kPerQuad);
  const int quads = classes / T::kPerQuad;
  if (quads <= 32 * kQuads) return {topk_kernel<T, 32, kQuads, 4>, 128, 4};
  if (quads <= 256 * kQuads) return {topk_kernel<T, 256, kQuads, 2>, 256, 1};
  return {topk_kernel<T, 512, kMostQuads, 1>, 512, 1};
}

Launch choose(const TopkCall& call) {
  switch (call.type) {
    case LogitType::kBf16:
      return choose<DeviceBf16>(call.classes);
    case LogitType::kF16:
      return choose<DeviceF16>(call.classes);
    default:
      return choose<DeviceF32>(call.classes);
  }
}

}  // namespace

void topk_cuda(const TopkCall& call, int device, uintptr_t stream) {
  check<std::invalid_argument>(
      call.k <= kMaxTopk && call.k <= call.classes && call.classes <= kMaxTopkClasses,
      "topk: k and classes, got ", call.k, " of ", call.classes, ", expected at most ", kMaxTopk, " of ",
      kMaxTopkClasses);
  check<std::invalid_argument>(call.rows <= INT32_MAX, "topk: rows, got ", call.rows,
                               ", expected fewer than 2^31");
  if (call.rows == 0) return;
  const Launch chosen = choose(call);
  const auto blocks = static_cast<unsigned>((call.rows + chosen.rows_per_block - 1) / chosen.rows_per_block);
  launch(chosen.kernel, blocks, chosen.threads, call, device, stream, "topk");
}

}  // namespace fkdx
