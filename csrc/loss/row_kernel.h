// SPDX-License-Identifier: Apache-2.0
// Sparse soft cross-entropy with the row in registers: each logit is read once, each gradient written once.
#pragma once

#include "loss/entries_device.h"

namespace fkdx {

// A team of kThreads (one warp of four in a block, or the block) shares a row of at most
// kThreads * kQuads quads and a few elements on either side.
template <typename T, int kThreads, int kQuads, int kMinBlocks>
__global__ void __launch_bounds__(kThreads == 32 ? 128 : kThreads, kMinBlocks)
    row_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kThreads>;
  constexpr int kTeams = kThreads == 32 ? 4 : 1;
  constexpr int kPer = T::kPerQuad;
  __shared__ Entries targets[kTeams];
  __shared__ typename Row::Scratch scratches[kTeams];
  const int team = kThreads == 32 ? threadIdx.x / 32 : 0;
  const int rank = threadIdx.x % kThreads;
  const int64_t row = int64_t(blockIdx.x) * kTeams + team;
  if (row >= args.rows) return;
  Entries& target = targets[team];
  const Stored* z = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  const RowSplit<T> split(z, args.classes);

  // Calls visit(i, c) for this thread's quads: the i-th of them begins at element c of the row.
  const auto each_quad = [&](auto visit) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (rank + i * kThreads < split.quads) visit(i, split.quad(rank + i * kThreads));
    }
  };

  // All loads are under way before the first is used, or converted.
  Quad quads[kQuads];
  each_quad([&](int i, int c) { quads[i] = load16(z + c); });
  const int edge = split.edge(rank);
  const Stored raw_edge = edge >= 0 ? z[edge] : Stored{};
  const int count =
      rank < 32 ? target.read(args, row, rank) : 0;  // other warps may not read target.count yet
  Stored raw_entries[kHalves] = {};
  each_entry(count, rank, [&](int half, int e) { raw_entries[half] = z[target.ids[e]]; });

  QuadMax<T> quad_max;
  each_quad([&](int i, int) { quad_max.add(quads[i]); });
  float edge_x = edge >= 0 ? T::widen(raw_edge) : -INFINITY;
  const float max = Row::max(fmaxf(edge_x, quad_max.value()), rank, scratches[team]);

  const float per_z = args.inv_temperature * kLog2E;
  Sums sums{0, 0, 0};
  float x[kQuads][kPer];  // z, then exp(t)
  const auto add = [&](float& at) {
    const float t = (at - max) * per_z;
    at = exp2_fast(t);
    sums.ties += t == 0.f ? 1.f : 0.f;
    sums.others += t == 0.f ? 0.f : at;
    sums.linear += t;
  };
  each_quad([&](int i, int) {
    T::unpack(quads[i], x[i]);
#pragma unroll
    for (int j = 0; j < kPer; ++j) add(x[i][j]);
  });
  if (edge >= 0) add(edge_x);
  sums.linear = product(target.base, sums.linear);
  float entry_t[kHalves] = {};
  each_entry(count, rank, [&](int half, int e) {
    entry_t[half] = (T::widen(raw_entries[half]) - max) * per_z;
    sums.linear += product(target.deltas[e], entry_t[half]);
  });
  sums = Row::sum(sums, rank, scratches[team]);
  if (rank == kThreads - 1) scratches[team].total = sums;  // for the loss; until then registers are short

  Stored* grad = static_cast<Stored*>(args.grad) + row * args.grad_stride;
  if (args.grad) {
    const float slope = target.scale * target.mass / (sums.ties + sums.others);
    const float floor = target.scale * target.base;
    each_quad([&](int i, int c) {
#pragma unroll
      for (int j = 0; j < kPer; ++j) x[i][j] = fmaf(x[i][j], slope, -floor);
      store16(grad + c, T::pack(x[i]));
    });
    if (edge >= 0) grad[edge] = T::narrow(fmaf(edge_x, slope, -floor));
  }
  Row::sync();  // the named classes are written again, by other threads
  each_entry(count, rank, [&](int half, int e) {
    if (args.grad) put_entry<T>(target, sums, e, entry_t[half], grad);
  });
  // At the end and beside the threads of the named classes, because logarithms take long.
  if (args.loss && rank == kThreads - 1) args.loss[row] = softmax_loss(target, scratches[team].total);
}

}  // namespace fkdx
