// SPDX-License-Identifier: Apache-2.0
// Binary cross-entropy against sparse or dense targets. One block a row.
#pragma once

#include "loss/entries_device.h"
#include "loss/pieces.h"

namespace fkdx {

constexpr int kSigmoidThreads = 256;

// log(1 + x), 0 <= x <= 1: the series 2 (s + s^3/3 + s^5/5 ...) with s = x / (2 + x).
__device__ __forceinline__ float log1p_unit(float x) {
  const float s = x / (x + 2.f);
  float p = 2.f / 15;
#pragma unroll
  for (int n = 13; n >= 1; n -= 2) p = fmaf(p, s * s, 2.f / n);
  return s * p;
}

// The sigmoid of x, where e = exp(-|x|).
__device__ __forceinline__ float sigmoid(float x, float e) { return divide_fast(x < 0.f ? e : 1.f, 1.f + e); }

// softplus(x) - y x = |x| (x < 0 ? y : 1 - y) + log(1 + exp(-|x|)), a mean over the row's classes. D: type of
// the dense target, or NoDense.
template <typename T, typename D>
__global__ void __launch_bounds__(kSigmoidThreads, 4) sigmoid_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kSigmoidThreads>;
  __shared__ Entries target;
  __shared__ typename Row::Scratch scratch;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Stored* logits = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  const Pieces<T, D, kSigmoidThreads> pieces{
      logits, static_cast<const typename D::Stored*>(args.dense.values) + row * args.dense.stride,
      args.classes};
  Stored* grad = args.grad ? static_cast<Stored*>(args.grad) + row * args.grad_stride : nullptr;
  if (rank < 32) target.read(args, row, rank);
  __syncthreads();
  const float scale = target.scale / args.classes;

  Sums sums{0, 0, 0};
  const bool whole = (!pieces.kDense || args.dense_phase) && (!grad || args.same_phase);
  pieces.write_if(grad != nullptr, whole, grad, [&](float z, float dense) {
    const float y = pieces.kDense ? dense : target.base;
    const float logit = z * args.inv_temperature, e = exp2_fast(-fabsf(logit) * kLog2E);
    sums.others += product(logit < 0.f ? y : 1.f - y, fabsf(logit)) + log1p_unit(e);
    return scale * (sigmoid(logit, e) - y);
  });
  const float logit = rank < target.count ? T::widen(logits[target.ids[rank]]) * args.inv_temperature : 0.f;
  if (rank < target.count) sums.linear = product(target.deltas[rank], logit);
  sums = Row::sum(sums, rank, scratch);  // also a barrier: the named classes are written again
  if (args.loss && rank == 0) args.loss[row] = (sums.others - sums.linear) / args.classes;
  if (!grad || rank >= target.count) return;
  bool leads;
  const float y = target.base + target.merged(rank, &leads);
  if (leads) {
    const float p = sigmoid(logit, exp2_fast(-fabsf(logit) * kLog2E));
    grad[target.ids[rank]] = T::narrow(scale * (p - y));
  }
}

}  // namespace fkdx
