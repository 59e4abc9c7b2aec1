// SPDX-License-Identifier: Apache-2.0
// What is stored of a teacher's answer: softmax and the k largest probabilities of every row.
#pragma once

#include <cstdint>

namespace fkdx {

enum class LogitType : int { kF32 = 0, kBf16 = 1, kF16 = 2 };

constexpr int kMaxTopk = 16;
constexpr int kMaxTopkClasses = 22528;  // a row stays in registers

struct TopkCall {
  const void* logits;  // (rows, classes), rows `stride` elements apart
  int32_t* ids;        // (rows, k), descending; of equals the smaller class first
  void* values;        // (rows, k) float32, or float16 if half_values
  int64_t rows, stride;
  int classes, k;
  float inv_temperature;
  LogitType type;
  bool half_values;
};

// Launches one kernel on `stream` of `device` and returns. k <= kMaxTopk, classes <= kMaxTopkClasses, k <=
// classes. A row with a NaN has NaN values and classes that mean nothing.
void topk_cuda(const TopkCall& call, int device, uintptr_t stream);

}  // namespace fkdx
