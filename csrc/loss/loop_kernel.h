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
  __shared__ Entries target;
  __shared__ typename Row::Scratch scratch;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Stored* logits = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  const Pieces<T, NoDense, kLoopThreads> pieces{logits, nullptr, args.classes};
  if (rank < 32) target.read(args, row, rank);

  float max = -INFINITY;
  pieces.each(true, [&](float z, float) { max = fmaxf(max, z); });
  max = Row::max(max, rank, scratch);

  const float per_z = args.inv_temperature * kLog2E;
  Sums sums{0, 0, 0};
  pieces.each(true, [&](float z, float) {
    const float t = (z - max) * per_z;
    add_exp(t, &sums);
    sums.linear += t;
  });
  sums.linear = product(target.base, sums.linear);
  float entry_t = 0;
  if (rank < target.count) {
    entry_t = (T::widen(logits[target.ids[rank]]) - max) * per_z;
    sums.linear += product(target.deltas[rank], entry_t);
  }
  sums = Row::sum(sums, rank, scratch);
  if (args.loss && rank == 0) args.loss[row] = softmax_loss(target, sums);
  if (!args.grad) return;

  Stored* grad = static_cast<Stored*>(args.grad) + row * args.grad_stride;
  const float slope = target.scale * target.mass / (sums.ties + sums.others);
  const float floor = target.scale * target.base;
  pieces.write(args.same_phase, grad,
               [&](float z, float) { return fmaf(exp2_fast((z - max) * per_z), slope, -floor); });
  __syncthreads();
  if (rank < target.count) put_entry<T>(target, sums, rank, entry_t, grad);
}

}  // namespace fkdx
