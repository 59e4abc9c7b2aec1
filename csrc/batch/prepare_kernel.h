// SPDX-License-Identifier: Apache-2.0
// Normalising and mixing on the GPU. Each thread turns kChunks pieces of one 16-byte store each; neighbouring
// threads have neighbouring pieces.
#pragma once

#include "base/device.h"
#include "batch/prepare.h"

namespace fkdx {

constexpr int kPrepareThreads = 256;
constexpr int kChunks = 4;

// What a thread needs to know of its row's mixture.
struct Box {
  const uint8_t* partner;  // null: not mixed
  int top, bottom, left, right;
  float blend;

  __device__ __forceinline__ Box(const PrepareCall& call, int64_t row, int64_t size) : partner(nullptr) {
    if (!call.partners) return;
    const int64_t other = call.partners[row];
    const bool exists = other >= 0 && other < call.other_rows;
    partner = exists ? call.others + other * size : call.images + row * size;
    blend = exists ? call.blend[row] : NAN;
    top = exists ? call.boxes[row * 4] : 0;
    left = exists ? call.boxes[row * 4 + 1] : 0;
    bottom = exists ? top + call.boxes[row * 4 + 2] : call.height;
    right = exists ? left + call.boxes[row * 4 + 3] : call.width;
  }
};

// kPer neighbouring bytes, aligned to kPer.
template <int kPer>
__device__ __forceinline__ void load_bytes(const uint8_t* from, float* x) {
  if constexpr (kPer == 8) {
    const Pair words = load8(from);
#pragma unroll
    for (int j = 0; j < 8; ++j) x[j] = float(words.word[j / 4] >> (j % 4 * 8) & 255);
  } else if constexpr (kPer == 4) {
    const uint32_t word = *reinterpret_cast<const uint32_t*>(from);
#pragma unroll
    for (int j = 0; j < 4; ++j) x[j] = float(word >> (j * 8) & 255);
  } else {
    x[0] = float(from[0]);
  }
}

// Mixes the kPer bytes x that begin at byte `first` of the row's image.
template <int kPer>
__device__ __forceinline__ void mix(const Box& box, int first, int width, float* x) {
  const int line = width * 3;
  int y = first / line, e = first - y * line;
  const int last = (first + kPer - 1) / line;
  if (last < box.top || y >= box.bottom) return;
  float other[kPer];
  load_bytes<kPer>(box.partner + first, other);
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    const bool inside = y >= box.top && y < box.bottom && e >= box.left * 3 && e < box.right * 3;
    x[j] = fmaf(inside ? box.blend : 0.f, other[j] - x[j], x[j]);
    if (++e == line) e = 0, ++y;
  }
}

// T: type of the output. kPer: elements of a piece; 1 where images do not begin at multiples of 16 bytes.
// Block x is the row, block y the part of its image.
template <typename T, int kPer>
__global__ void __launch_bounds__(kPrepareThreads) prepare_kernel(const __grid_constant__ PrepareCall call) {
  using Stored = typename T::Stored;
  const int64_t row = blockIdx.x;
  const int size = call.height * call.width * 3;
  const uint8_t* own = call.images + row * size;
  Stored* out = static_cast<Stored*>(call.out) + row * size;
  const Box box(call, row, size);
  const int start = (blockIdx.y * kChunks * kPrepareThreads + threadIdx.x) * kPer;
  float x[kChunks][kPer];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int first = start + i * kPrepareThreads * kPer;
    if (first < size) load_bytes<kPer>(own + first, x[i]);
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    const int first = start + i * kPrepareThreads * kPer;
    if (first >= size) continue;
    if (box.partner) mix<kPer>(box, first, call.width, x[i]);
    float scale[3], bias[3];  // beginning with the channel of the piece's first element
#pragma unroll
    for (int c = 0; c < 3; ++c) {
      const int channel = (first + c) % 3;
      scale[c] = channel == 0 ? call.scale[0] : channel == 1 ? call.scale[1] : call.scale[2];
      bias[c] = channel == 0 ? call.bias[0] : channel == 1 ? call.bias[1] : call.bias[2];
    }
#pragma unroll
    for (int j = 0; j < kPer; ++j) x[i][j] = fmaf(x[i][j], scale[j % 3], bias[j % 3]);
    if constexpr (kPer == T::kPerQuad) {
      store16(out + first, T::pack(x[i]));
    } else {
      out[first] = T::narrow(x[i][0]);
    }
  }
}

}  // namespace fkdx
