// SPDX-License-Identifier: Apache-2.0
// Sparse soft cross-entropy of rows of any length and alignment. One block a row.
#pragma once

#include "loss/entries_device.h"
#include "loss/pieces.h"

namespace fkdx {

constexpr int kLoopThreads = 512;

template <typename T>
__global__ void __launch_bounds__(kLoopThreads, 2) loop_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kLoopThreads>;
  constexpr int kPer = T::kPerQuad, kAhead = 2;
  __shared__ Entries target;
  __shared__ typename Row::Scratch scratch;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Stored* z = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  const Pieces<T, NoDense> pieces{z, nullptr, args.classes};
  if (rank < 32) target.read(args, row, rank);

  float max = -INFINITY;
  pieces.template each<kLoopThreads, kAhead>(true, [&](int, int n, const float* x, const float*) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (j < n) max = fmaxf(max, x[j]);
    }
  });
  max = Row::max(max, rank, scratch);

  const float per_z = args.inv_temperature * kLog2E;
  Sums sums{0, 0, 0};
  pieces.template each<kLoopThreads, kAhead>(true, [&](int, int n, const float* x, const float*) {
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
  const float slope = target.scale * target.mass / (sums.ties + sums.others);
  const float floor = target.scale * target.base;
  pieces.template each<kLoopThreads, kAhead>(args.same_phase, [&](int c, int n, float* x, const float*) {
#pragma unroll
    for (int j = 0; j < kPer; ++j) {
      if (j < n) x[j] = fmaf(exp2_fast((x[j] - max) * per_z), slope, -floor);
    }
    store_piece<T>(grad + c, n, x);
  });
  __syncthreads();
  if (rank < target.count) put_entry<T>(target, sums, rank, entry_t, grad);
}

}  // namespace fkdx
