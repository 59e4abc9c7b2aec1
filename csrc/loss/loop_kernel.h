// SPDX-License-Identifier: Apache-2.0
// Soft cross-entropy for what the registers do not hold: rows of any length and alignment, dense targets; and
// binary cross-entropy. One block a row, which it reads once for each pass (from the cache after the first).
#pragma once

#include "loss/entries_device.h"

namespace fkdx {

constexpr int kLoopThreads = 512;

// Calls visit(index of the first element, values, how many) for this thread's share of a row.
template <typename T, typename Visit>
__device__ __forceinline__ void for_quads(const typename T::Stored* z, int classes, bool whole, Visit visit) {
  RowSplit<T> split(z, classes);
  float x[T::kPerQuad];
  if (!whole) split.head = classes, split.quads = split.tail = 0;
  for (int i = threadIdx.x; i < split.quads; i += kLoopThreads) {
    T::unpack(load16(z + split.quad(i)), x);
    visit(split.quad(i), x, T::kPerQuad);
  }
  for (int c = threadIdx.x; c < split.head; c += kLoopThreads) {
    x[0] = T::widen(z[c]);
    visit(c, x, 1);
  }
  for (int c = split.quad(split.quads) + threadIdx.x; c < classes; c += kLoopThreads) {
    x[0] = T::widen(z[c]);
    visit(c, x, 1);
  }
}

template <typename T>
__global__ void __launch_bounds__(kLoopThreads, 2) loop_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kLoopThreads>;
  constexpr int kPer = T::kPerQuad;
  __shared__ Entries target;
  __shared__ typename Row::Scratch scratch;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Stored* z = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  if (rank < 32) target.read(args, row, rank);

  float max = -INFINITY;
  for_quads<T>(z, args.classes, true, [&](int, const float* x, int n) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (j < n) max = larger(max, x[j]);
    }
  });
  max = Row::max(max, rank, scratch);

  const float per_z = args.inv_temperature * kLog2E;
  Sums sums{0, 0, 0};
  for_quads<T>(z, args.classes, true, [&](int, const float* x, int n) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (j >= n) continue;
      const float t = (x[j] - max) * per_z;
      sums.ties += t == 0.f ? 1.f : 0.f;
      sums.others += t == 0.f ? 0.f : exp2_fast(t);
      sums.linear += t;
    }
  });
  sums.linear = product(target.base, sums.linear);
  float entry_t = 0;
  if (rank < target.count) {
    entry_t = (T::widen(z[target.ids[rank]]) - max) * per_z;
    sums.linear += product(target.deltas[rank], entry_t);
  }
  sums = Row::sum(sums, rank, scratch);
  if (args.loss && rank == 0) args.loss[row] = softmax_loss(target, sums);
  if (!args.grad) return;

  Stored* grad = static_cast<Stored*>(args.grad) + row * args.grad_stride;
  const float scale = gradient_scale(args, row);
  const float slope = scale * target.mass / (sums.ties + sums.others), floor = scale * target.base;
  for_quads<T>(z, args.classes, args.same_phase, [&](int c, float* x, int n) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (j < n) x[j] = fmaf(exp2_fast((x[j] - max) * per_z), slope, -floor);
    }
    if (n == kPer) {
      store16(grad + c, T::pack(x));
    } else {
      grad[c] = T::narrow(x[0]);
    }
  });
  __syncthreads();
  if (rank < target.count) put_entry<T>(target, sums, rank, entry_t, scale, grad);
}

}  // namespace fkdx
