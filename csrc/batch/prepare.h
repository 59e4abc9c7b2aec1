// SPDX-License-Identifier: Apache-2.0
// uint8 NHWC images -> normalised (and mixed) float32, bfloat16 or float16 in the same order, which is
// channels-last.
#pragma once

#include <cstdint>

namespace fkdx {

enum class PixelType : int { kF32 = 0, kBf16 = 1, kF16 = 2 };

// With own pixel x and the partner's pixel x', both 0 ... 255:
//   v = x + blend * (x' - x) inside the row's box, x outside;  y = v * scale[channel] + bias[channel]
// each line one fused multiply-add in float32; y is rounded once to the output's type. So the CPU and the GPU
// agree in every bit.
struct PrepareCall {
  const uint8_t* images;    // (rows, height, width, 3)
  const uint8_t* others;    // (other_rows, height, width, 3), what partners are taken from; may be `images`
  void* out;                // as many elements; on a GPU it begins at a multiple of 16 bytes
  const int64_t* partners;  // (rows,), or null: nothing is mixed
  const int32_t* boxes;     // (rows, 4) top, left, height, width
  const float* blend;       // (rows,)
  int64_t rows, other_rows;
  int height, width;
  float scale[3], bias[3];
  PixelType type;
};

// Throws std::out_of_range for a partner outside `others`.
void prepare_cpu(const PrepareCall& call, int threads);

// Launches one kernel on `stream` of `device` and returns. A row whose partner is outside `others`
// becomes NaN.
void prepare_cuda(const PrepareCall& call, int device, uintptr_t stream);

}  // namespace fkdx
