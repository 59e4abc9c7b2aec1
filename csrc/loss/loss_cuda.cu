// SPDX-License-Identifier: Apache-2.0
#include "loss/loss_cuda.h"

#include "base/check.h"
#include "base/launch.h"
#include "loss/dense_kernel.h"
#include "loss/loop_kernel.h"
#include "loss/row_kernel.h"
#include "loss/sigmoid_kernel.h"

namespace fkdx {
namespace {

using Kernel = void (*)(LossArgs);

struct Launch {
  Kernel kernel;
  int threads;
  int rows_per_block;
};

constexpr int64_t kMostClasses = int64_t{1} << 30;  // an int counts past a row's end by a block's threads
constexpr int64_t kWarpRows = 2048;                 // from so many rows on, warps alone keep the GPU busy

template <typename T, int kThreads, int kQuads, int kMinBlocks>
Launch row_launch() {
  return {row_kernel<T, kThreads, kQuads, kMinBlocks>, kThreads == 32 ? 128 : kThreads,
          kThreads == 32 ? 4 : 1};
}

template <typename T, typename D>
Launch dense_launch(Link link) {
  if (link == Link::kSigmoid) return {sigmoid_kernel<T, D>, kSigmoidThreads, 1};
  return {dense_kernel<T, D>, kDenseThreads, 1};
}

template <typename T>
Launch choose(const LossArgs& args, Link link, LossKernel wish) {
  if (args.dense.values) {
    return args.dense.type == Float::kF32 ? dense_launch<T, DeviceF32>(link) : dense_launch<T, T>(link);
  }
  if (link == Link::kSigmoid) return {sigmoid_kernel<T, NoDense>, kSigmoidThreads, 1};
  const Launch loop{loop_kernel<T>, kLoopThreads, 1};
  if (wish == LossKernel::kLoop || (args.grad && !args.same_phase)) return loop;
  constexpr bool kWide = sizeof(typename T::Stored) == 4;
  const int quads = args.classes / T::kPerQuad;
  const bool warps = wish == LossKernel::kWarp || (wish == LossKernel::kAuto && args.rows >= kWarpRows);
  if (quads <= 32 * (kWide ? 8 : 4) && warps) return row_launch<T, 32, kWide ? 8 : 4, 6>();
  if (quads <= 128 * (kWide ? 2 : 1)) return row_launch<T, 128, kWide ? 2 : 1, 8>();
  if (quads <= 256 * (kWide ? 8 : 4)) return row_launch<T, 256, kWide ? 8 : 4, 3>();
  if (quads <= (kWide ? 512 : 256) * 11) return row_launch<T, kWide ? 512 : 256, 11, kWide ? 1 : 2>();
  return loop;
}

Launch choose(const LossArgs& args, Float type, Link link, LossKernel wish) {
  switch (type) {
    case Float::kF32:
      return choose<DeviceF32>(args, link, wish);
    case Float::kBf16:
      return choose<DeviceBf16>(args, link, wish);
    case Float::kF16:
      return choose<DeviceF16>(args, link, wish);
    default:
      throw std::invalid_argument("loss_cuda: logits, got float64, expected 16 or 32 bits");
  }
}

LossArgs args_of(const LossCall& call) {
  check<std::invalid_argument>(call.num_sources <= kMaxSources, "loss_cuda: sources, got ", call.num_sources,
                               ", expected at most ", kMaxSources);
  LossArgs args{};
  int entries = 0;
  for (int i = 0; i < call.num_sources; ++i) {
    args.sources[i] = call.sources[i];
    entries += call.sources[i].k;
  }
  check<std::invalid_argument>(entries <= kMaxEntries, "loss_cuda: classes a row, got ", entries,
                               ", expected at most ", kMaxEntries);
  check<std::invalid_argument>(call.rows <= INT32_MAX && call.classes <= kMostClasses,
                               "loss_cuda: shape, got (", call.rows, ", ", call.classes,
                               "), expected fewer than 2^31 rows of at most 2^30 classes");
  args.logits = call.logits;
  args.loss = static_cast<float*>(call.loss);
  args.grad = call.grad;
  args.scales = static_cast<const float*>(call.scales);
  args.rows = call.rows;
  args.logits_stride = call.logits_stride;
  args.grad_stride = call.grad_stride;
  args.scale_stride = call.scale_stride;
  args.dense = call.dense;
  args.classes = static_cast<int>(call.classes);
  args.num_sources = call.num_sources;
  args.inv_temperature = static_cast<float>(call.inv_temperature);
  args.scale = static_cast<float>(call.scale);
  const int64_t size = call.type == Float::kF32 ? 4 : 2;
  const auto phase = [&](const void* p) { return reinterpret_cast<uintptr_t>(p) % 16; };
  args.same_phase = phase(call.logits) == phase(call.grad) &&
                    (call.rows == 1 || (call.logits_stride - call.grad_stride) * size % 16 == 0);
  if (!call.dense.values) return args;
  check<std::invalid_argument>(call.dense.type == Float::kF32 || call.dense.type == call.type,
                               "loss_cuda: dense target, expected float32 or the logits' type");
  const int64_t wide = call.dense.type == Float::kF32 ? 4 : 2, per = 16 / wide;
  args.dense_phase = phase(call.logits) / size % per == phase(call.dense.values) / wide &&
                     (call.rows == 1 || (call.logits_stride - call.dense.stride) % per == 0);
  return args;
}

}  // namespace

void loss_cuda(const LossCall& call, int device, uintptr_t stream, LossKernel wish) {
  if (call.rows == 0) return;
  const LossArgs args = args_of(call);
  const Launch chosen = choose(args, call.type, call.link, wish);
  const auto blocks = static_cast<unsigned>((call.rows + chosen.rows_per_block - 1) / chosen.rows_per_block);
  launch(chosen.kernel, blocks, chosen.threads, args, device, stream, "loss_cuda");
}

}  // namespace fkdx
