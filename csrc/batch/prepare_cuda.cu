// SPDX-License-Identifier: Apache-2.0
#include "base/check.h"
#include "base/launch.h"
#include "batch/prepare.h"
#include "batch/prepare_kernel.h"

namespace fkdx {
namespace {

struct Launch {
  void (*kernel)(PrepareCall);
  int per_thread;
};

template <typename T, int kPer>
Launch choose(const PrepareCall& call) {
  return {call.partners ? prepare_kernel<T, kPer, true> : prepare_kernel<T, kPer, false>, kPer};
}

template <typename T>
Launch choose_width(const PrepareCall& call) {
  const int64_t size = int64_t(call.height) * call.width * 3;
  const uintptr_t places =
      reinterpret_cast<uintptr_t>(call.images) | reinterpret_cast<uintptr_t>(call.others);
  const bool aligned = places % T::kPerQuad == 0 && size % T::kPerQuad == 0;
  return aligned ? choose<T, T::kPerQuad>(call) : choose<T, 1>(call);
}

Launch choose_type(const PrepareCall& call) {
  switch (call.type) {
    case PixelType::kBf16:
      return choose_width<DeviceBf16>(call);
    case PixelType::kF16:
      return choose_width<DeviceF16>(call);
    default:
      return choose_width<DeviceF32>(call);
  }
}

}  // namespace

void prepare_cuda(const PrepareCall& call, int device, uintptr_t stream) {
  const int64_t size = int64_t(call.height) * call.width * 3;
  if (call.rows == 0 || size == 0) return;
  const Launch chosen = choose_type(call);
  const int64_t per_block = int64_t(kPrepareThreads) * kChunks * chosen.per_thread;
  const int64_t parts = (size + per_block - 1) / per_block;
  check<std::invalid_argument>(call.rows <= INT32_MAX && parts <= 65535 && size + per_block <= INT32_MAX,
                               "prepare: images, got ", call.rows, " of ", call.height, " x ", call.width,
                               ", expected fewer or smaller ones");
  const dim3 blocks(static_cast<unsigned>(call.rows), static_cast<unsigned>(parts));
  launch(chosen.kernel, blocks, kPrepareThreads, call, device, stream, "prepare");
}

}  // namespace fkdx
