// SPDX-License-Identifier: Apache-2.0
// Softmax and top-k with the row in registers: each logit is read once.
#pragma once

#include "base/device.h"
#include "batch/topk.h"

namespace fkdx {

struct Best {
  float value;
  int id;
};

__device__ __forceinline__ Best better(const Best& a, const Best& b) {
  return b.value > a.value || (b.value == a.value && b.id < a.id) ? b : a;
}

__device__ __forceinline__ Best warp_best(Best best) {
#pragma unroll
  for (int lane = 16; lane; lane >>= 1) {
    const Best other{__shfl_xor_sync(kAllLanes, best.value, lane), __shfl_xor_sync(kAllLanes, best.id, lane)};
    best = better(best, other);
  }
  return best;
}

// Every thread gets the best of its team. Buffers alternate from round to round, so one barrier is enough.
template <int kThreads>
__device__ __forceinline__ Best team_best(Best best, int rank, Best* buffer) {
  best = warp_best(best);
  if constexpr (kThreads > 32) {
    if (rank % 32 == 0) buffer[rank / 32] = best;
    __syncthreads();
    best = buffer[0];
#pragma unroll
    for (int w = 1; w < kThreads / 32; ++w) best = better(best, buffer[w]);
  }
  return best;
}

// A thread's elements of a row. What was taken is NaN, which is better than nothing else.
template <typename T, int kThreads, int kQuads>
struct Share {
  static constexpr int kPer = T::kPerQuad;
  RowSplit<T> split;
  int rank, edge;
  float edge_x, x[kQuads][kPer];

  __device__ __forceinline__ Share(const typename T::Stored* z, int classes, int rank_)
      : split(z, classes), rank(rank_), edge(split.edge(rank)) {
    Quad quads[kQuads];
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (rank + i * kThreads < split.quads) quads[i] = load16(z + split.quad(rank + i * kThreads));
    }
    // Waits for memory, and so comes after the other loads.
    edge_x = edge >= 0 ? T::widen(z[edge]) : -INFINITY;
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (rank + i * kThreads < split.quads) T::unpack(quads[i], x[i]);
    }
  }

  template <typename Visit>
  __device__ __forceinline__ void each(Visit visit) {
#pragma unroll
    for (int i = 0; i < kQuads; ++i) {
      if (rank + i * kThreads >= split.quads) continue;
#pragma unroll
      for (int j = 0; j < kPer; ++j) visit(split.quad(rank + i * kThreads) + j, x[i][j]);
    }
    if (edge >= 0) visit(edge, edge_x);
  }

  __device__ __forceinline__ Best best() {
    Best found{-INFINITY, INT32_MAX};
    each([&](int id, float value) { found = better(found, {value, id}); });
    return found;
  }
};

template <typename T, int kThreads, int kQuads, int kMinBlocks>
__global__ void __launch_bounds__(kThreads == 32 ? 128 : kThreads, kMinBlocks)
    topk_kernel(const __grid_constant__ TopkCall call) {
  using Row = Team<kThreads>;
  constexpr int kTeams = kThreads == 32 ? 4 : 1;
  __shared__ typename Row::Scratch scratches[kTeams];
  __shared__ Best buffers[2][Row::kWarps];
  const int team = kThreads == 32 ? threadIdx.x / 32 : 0;
  const int rank = threadIdx.x % kThreads;
  const int64_t row = int64_t(blockIdx.x) * kTeams + team;
  if (row >= call.rows) return;
  const auto* z = static_cast<const typename T::Stored*>(call.logits) + row * call.stride;
  Share<T, kThreads, kQuads> share(z, call.classes, rank);

  Best mine = share.best();
  const float max = Row::max(mine.value, rank, scratches[team]);
  const float per_z = call.inv_temperature * 1.44269504f;
  float sum = 0;
  share.each([&](int, float value) { sum += exp2_fast((value - max) * per_z); });
  const float total = Row::sum({sum, 0, 0}, rank, scratches[team]).ties;

  for (int k = 0; k < call.k; ++k) {
    const Best best = team_best<kThreads>(mine, rank, buffers[k & 1]);
    if (rank == 0) {
      const float p = exp2_fast((best.value - max) * per_z) / total;
      const int64_t at = row * call.k + k;
      call.ids[at] = best.id < call.classes ? best.id : 0;
      if (call.half_values) {
        static_cast<uint16_t*>(call.values)[at] = to_f16(p);
      } else {
        static_cast<float*>(call.values)[at] = p;
      }
    }
    if (best.id != mine.id) continue;
    share.each([&](int id, float& value) { value = id == best.id ? NAN : value; });
    mine = share.best();
  }
}

}  // namespace fkdx
