// SPDX-License-Identifier: Apache-2.0
// Soft cross-entropy and binary cross-entropy of a batch of rows against sparse or dense targets, with
// gradient.
#pragma once

#include "loss/target.h"

namespace fkdx {

enum class Link : int { kSoftmax = 0, kSigmoid = 1 };

// A dense target: (B, C) probabilities, or logits of a teacher that are divided by its temperature.
struct DenseTarget {
  const void* values;  // null: the target is sparse
  int64_t stride;
  float inv_temperature;  // 0: the values are probabilities
  Float type;
};

// One call. Row b's loss is, with t = (z - max z) / temperature and y its target,
//   softmax: sum(y) * log(sum(exp(t))) - sum(y * t)
//   sigmoid: mean(softplus(z / temperature) - y * z / temperature)
// and its gradient is scale * scales[b] * d loss / d z. Loss is float32 (float64 for float64 logits).
struct LossCall {
  const void* logits;
  void* loss;          // (B,), or null
  void* grad;          // (B, C) of the logits' type, or null
  const void* scales;  // of the loss's type, scale_stride elements apart; null: 1
  const Source* sources;
  DenseTarget dense;
  int64_t rows, classes;
  int64_t logits_stride, grad_stride, scale_stride;
  double inv_temperature;
  double scale;
  int num_sources;
  Float type;
  Link link;
};

// Throws std::out_of_range naming the first row with an id outside [0, classes). Any number of threads gives
// the same bits.
void loss_cpu(const LossCall& call, int threads);

}  // namespace fkdx
