// SPDX-License-Identifier: Apache-2.0
// Soft cross-entropy against dense targets, and binary cross-entropy against any. One block a row.
#pragma once

#include "loss/entries_device.h"

namespace fkdx {

constexpr int kDenseThreads = 256;

// log(1 + x), 0 <= x <= 1: the series 2 (s + s^3/3 + s^5/5 ...) with s = x / (2 + x).
__device__ __forceinline__ float log1p_unit(float x) {
  const float s = x / (x + 2.f);
  float p = 2.f / 15;
#pragma unroll
  for (int n = 13; n >= 1; n -= 2) p = fmaf(p, s * s, 2.f / n);
  return s * p;
}

// The target is probabilities, or a teacher's logits; both maxima, then all sums, then the gradient.
template <typename T>
__global__ void __launch_bounds__(kDenseThreads, 4) dense_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kDenseThreads>;
  __shared__ typename Row::Scratch scratch[4];
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Stored* z = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  const int64_t first = row * args.dense.stride;
  const bool teacher = args.dense.inv_temperature != 0.f;
  const auto dense = [&](int c) { return load_value(args.dense.values, args.dense.type, first + c); };

  float max = -INFINITY, teacher_max = -INFINITY;
  for (int c = rank; c < args.classes; c += kDenseThreads) {
    max = larger(max, T::widen(z[c]));
    if (teacher) teacher_max = larger(teacher_max, dense(c));
  }
  max = Row::max(max, rank, scratch[0]);
  if (teacher) teacher_max = Row::max(teacher_max, rank, scratch[1]);

  const float per_z = args.inv_temperature * kLog2E, per_teacher = args.dense.inv_temperature * kLog2E;
  const auto weight = [&](int c) {
    return teacher ? exp2_fast((dense(c) - teacher_max) * per_teacher) : dense(c);
  };
  Sums sums{0, 0, 0};
  float mass = 0;
  for (int c = rank; c < args.classes; c += kDenseThreads) {
    const float t = (T::widen(z[c]) - max) * per_z, y = weight(c);
    sums.ties += t == 0.f ? 1.f : 0.f;
    sums.others += t == 0.f ? 0.f : exp2_fast(t);
    sums.linear += product(y, t);
    mass += y;
  }
  sums = Row::sum(sums, rank, scratch[2]);
  mass = Row::sum({mass, 0, 0}, rank, scratch[3]).ties;
  const float unit = teacher ? 1.f / mass : 1.f;
  if (teacher) mass = mass == mass ? 1.f : mass;
  if (args.loss && rank == 0) {
    args.loss[row] = mass * (logf(sums.ties) + log1pf(sums.others / sums.ties)) - kLn2 * unit * sums.linear;
  }
  if (!args.grad) return;

  Stored* grad = static_cast<Stored*>(args.grad) + row * args.grad_stride;
  const float scale = gradient_scale(args, row), slope = mass / (sums.ties + sums.others);
  for (int c = rank; c < args.classes; c += kDenseThreads) {
    const float p = slope * exp2_fast((T::widen(z[c]) - max) * per_z);
    grad[c] = T::narrow(scale * (p - unit * weight(c)));
  }
}

// softplus(x) - y x = |x| (x < 0 ? y : 1 - y) + log(1 + exp(-|x|)), a mean over the row's classes.
template <typename T>
__global__ void __launch_bounds__(kDenseThreads, 4) sigmoid_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kDenseThreads>;
  __shared__ Entries target;
  __shared__ typename Row::Scratch scratch;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Stored* z = static_cast<const Stored*>(args.logits) + row * args.logits_stride;
  Stored* grad = args.grad ? static_cast<Stored*>(args.grad) + row * args.grad_stride : nullptr;
  if (rank < 32) target.read(args, row, rank);
  __syncthreads();
  const float scale = grad ? gradient_scale(args, row) / args.classes : 0.f;
  const auto sigmoid = [](float x, float e) { return divide_fast(x < 0.f ? e : 1.f, 1.f + e); };
  const auto value = [&](int c) { return T::widen(z[c]) * args.inv_temperature; };

  Sums sums{0, 0, 0};
  for (int c = rank; c < args.classes; c += kDenseThreads) {
    const float x = value(c), e = exp2_fast(-fabsf(x) * kLog2E);
    const float y = args.dense.values
                        ? load_value(args.dense.values, args.dense.type, row * args.dense.stride + c)
                        : target.base;
    sums.others += product(x < 0.f ? y : 1.f - y, fabsf(x)) + log1p_unit(e);
    if (grad) grad[c] = T::narrow(scale * (sigmoid(x, e) - y));
  }
  if (rank < target.count) sums.linear = product(target.deltas[rank], value(target.ids[rank]));
  sums = Row::sum(sums, rank, scratch);
  if (args.loss && rank == 0) args.loss[row] = (sums.others - sums.linear) / args.classes;
  if (!grad || rank >= target.count) return;
  bool leads;
  const float y = target.base + target.merged(rank, &leads);
  const float x = value(target.ids[rank]);
  if (leads) grad[target.ids[rank]] = T::narrow(scale * (sigmoid(x, exp2_fast(-fabsf(x) * kLog2E)) - y));
}

}  // namespace fkdx
