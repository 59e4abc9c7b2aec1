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
  __shared__ typename Row::Scratch scratch[4];
  __shared__ float scale;
  const int rank = threadIdx.x;
  const int64_t row = blockIdx.x;
  const Pieces<T, D, kDenseThreads> pieces{
      static_cast<const Stored*>(args.logits) + row * args.logits_stride,
      static_cast<const typename D::Stored*>(args.dense.values) + row * args.dense.stride, args.classes};
  const GradientScale gradient_scale(args, row, rank == 0);
  const bool teacher = args.dense.inv_temperature != 0.f;

  float max = -INFINITY, teacher_max = -INFINITY;
  pieces.each(args.dense_phase,
              [&](float z, float y) { max = fmaxf(max, z), teacher_max = fmaxf(teacher_max, y); });
  if (rank == 0) scale = gradient_scale.value(args);
  max = Row::max(max, rank, scratch[0]);
  if (teacher) teacher_max = Row::max(teacher_max, rank, scratch[1]);

  const float per_z = args.inv_temperature * kLog2E, per_teacher = args.dense.inv_temperature * kLog2E;
  const auto weight = [&](float y) { return teacher ? exp2_fast((y - teacher_max) * per_teacher) : y; };
  Sums sums{0, 0, 0};
  float mass = 0;
  pieces.each(args.dense_phase, [&](float z, float y) {
    const float t = (z - max) * per_z, w = weight(y);
    add_exp(t, &sums);
    sums.linear += product(w, t);
    mass += w;
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
  pieces.write(args.dense_phase && args.same_phase, grad, [&](float z, float y) {
    return scale * (slope * exp2_fast((z - max) * per_z) - unit * weight(y));
  });
}

}  // namespace fkdx
