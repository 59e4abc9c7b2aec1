// SPDX-License-Identifier: Apache-2.0
// Soft cross-entropy against dense targets. One block a row.
#pragma once

#include "loss/entries_device.h"
#include "loss/pieces.h"

namespace fkdx {

constexpr int kDenseThreads = 256;

// The target, of type D, is probabilities or a teacher's logits; both maxima, then all sums, then the
// gradient.
template <typename T, typename D>
__global__ void __launch_bounds__(kDenseThreads, 4) dense_kernel(const __grid_constant__ LossArgs args) {
  using Stored = typename T::Stored;
  using Row = Team<kDenseThreads>;
  constexpr int kPer = T::kPerQuad, kAhead = 2;
  __shared__ typename Row::Scratch scratch[4];
  __shared__ float scale;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Pieces<T, D> pieces{
      static_cast<const Stored*>(args.logits) + row * args.logits_stride,
      static_cast<const typename D::Stored*>(args.dense.values) + row * args.dense.stride, args.classes};
  const GradientScale gradient_scale(args, row, rank == 0);
  const bool teacher = args.dense.inv_temperature != 0.f;

  float max = -INFINITY, teacher_max = -INFINITY;
  pieces.template each<kDenseThreads, kAhead>(
      args.dense_phase, [&](int, int n, const float* x, const float* y) {
#pragma unroll
        for (int j = 0; j < kPer; ++j) {
          if (j < n) max = fmaxf(max, x[j]), teacher_max = fmaxf(teacher_max, y[j]);
        }
      });
  if (rank == 0) scale = gradient_scale.value(args);
  max = Row::max(max, rank, scratch[0]);
  if (teacher) teacher_max = Row::max(teacher_max, rank, scratch[1]);

  const float per_z = args.inv_temperature * kLog2E, per_teacher = args.dense.inv_temperature * kLog2E;
  const auto weight = [&](float y) { return teacher ? exp2_fast((y - teacher_max) * per_teacher) : y; };
  Sums sums{0, 0, 0};
  float mass = 0;
  pieces.template each<kDenseThreads, kAhead>(args.dense_phase,
                                              [&](int, int n, const float* x, const float* y) {
#pragma unroll
                                                for (int j = 0; j < kPer; ++j) {
                                                  if (j >= n) continue;
                                                  const float t = (x[j] - max) * per_z, w = weight(y[j]);
                                                  sums.ties += t == 0.f ? 1.f : 0.f;
                                                  sums.others += t == 0.f ? 0.f : exp2_fast(t);
                                                  sums.linear += product(w, t);
                                                  mass += w;
                                                }
                                              });
  sums = Row::sum(sums, rank, scratch[2]);
  mass = Row::sum({mass, 0, 0}, rank, scratch[3]).ties;
  const float unit = teacher ? 1.f / mass : 1.f;
  if (teacher) mass = mass == mass ? 1.f : mass;
  if (args.loss && rank == 0) {
    args.loss[row] = mass * (logf(sums.ties) + log1pf(sums.others / sums.ties)) - kLn2 * unit * sums.linear;
  }
  if (!args.grad) return;

  Stored* grad = static_cast<Stored*>(args.grad) + row * args.grad_stride;
  const float slope = mass / (sums.ties + sums.others);
  pieces.template each<kDenseThreads, kAhead>(
      args.dense_phase && args.same_phase, [&](int c, int n, float* x, const float* y) {
#pragma unroll
        for (int j = 0; j < kPer; ++j) {
          if (j < n) x[j] = scale * (slope * exp2_fast((x[j] - max) * per_z) - unit * weight(y[j]));
        }
        store_piece<T>(grad + c, n, x);
      });
}

}  // namespace fkdx
