// SPDX-License-Identifier: Apache-2.0
// Normalising and mixing on the GPU. Each thread turns kChunks pieces of one 16-byte store each; neighbouring
// threads have neighbouring pieces.
#pragma once

#include "base/device.h"
#include "batch/prepare.h"

namespace fkdx {

constexpr int kPrepareThreads = 256;
constexpr int kChunks = 4;

// What a thread needs to know of its row's mixture. All of it is loaded at once: nothing waits for the
// partner.
struct Box {
  const uint8_t* partner;
  int top, bottom, left, right;
  float blend;

  Box() = default;
  __device__ __forceinline__ Box(const PrepareCall& call, int64_t row, int64_t size) {
    const int32_t* box = call.boxes + row * 4;
    const int64_t other = call.partners[row];
    const float share = call.blend[row];
    top = box[0], left = box[1], bottom = top + box[2], right = left + box[3];
    const bool exists = static_cast<uint64_t>(other) < static_cast<uint64_t>(call.other_rows);
    partner = exists ? call.others + other * size : call.images + row * size;
    blend = exists ? share : NAN;  // NaN is mixed into the whole image
    top = exists ? top : 0, left = exists ? left : 0;
    bottom = exists ? bottom : call.height, right = exists ? right : call.width;
  }

  // Whether the bytes first ... last of an image, whose lines have `line` bytes, reach into the box's lines.
  __device__ __forceinline__ bool reached(int first, int last, int line) const {
    return (last >= top * line) & (first < bottom * line);
  }
};

// kPer neighbouring bytes as they lie in memory. They become floats late, because a conversion beside its
// load waits for memory, and so would the loads behind it.
template <int kPer>
struct RawBytes {
  uint32_t words[kPer == 8 ? 2 : 1];

  __device__ __forceinline__ float operator[](int j) const {
    return float(words[j / 4] >> (j % 4 * 8) & 255);
  }
};

// `from` is aligned to kPer.
template <int kPer>
__device__ __forceinline__ RawBytes<kPer> load_bytes(const uint8_t* from) {
  if constexpr (kPer == 8) {
    const Pair pair = load8(from);
    return {{pair.word[0], pair.word[1]}};
  } else if constexpr (kPer == 4) {
    return {{*reinterpret_cast<const uint32_t*>(from)}};
  } else {
    return {{*from}};
  }
}

// Mixes kPer pixels x, which begin at byte `first` of an image, with the partner's.
template <int kPer>
__device__ __forceinline__ void mix(const Box& box, int first, int line, const RawBytes<kPer>& other,
                                    float* x) {
  int y = first / line, e = first - y * line;
#pragma unroll
  for (int j = 0; j < kPer; ++j) {
    const bool inside = y >= box.top && y < box.bottom && e >= box.left * 3 && e < box.right * 3;
    x[j] = fmaf(inside ? box.blend : 0.f, other[j] - x[j], x[j]);
    if (++e == line) e = 0, ++y;
  }
}

// Normalises kPer pixels x, which begin at byte `first` of an image.
template <int kPer>
__device__ __forceinline__ void normalise(const PrepareCall& call, int first, float* x) {
  float scale[3], bias[3];  // beginning with the channel of the first pixel
#pragma unroll
  for (int c = 0; c < 3; ++c) {
    const int channel = (first + c) % 3;
    scale[c] = channel == 0 ? call.scale[0] : channel == 1 ? call.scale[1] : call.scale[2];
    bias[c] = channel == 0 ? call.bias[0] : channel == 1 ? call.bias[1] : call.bias[2];
  }
#pragma unroll
  for (int j = 0; j < kPer; ++j) x[j] = fmaf(x[j], scale[j % 3], bias[j % 3]);
}

// T: type of the output. kPer: elements of a piece; 1 where images do not begin at multiples of 16 bytes.
// Block x is the row, block y the part of its image.
//
// A thread waits for memory once, and where rows are mixed twice: for the row's box, then for the partner's
// pixels (bench/kernel_report.py counts it).
template <typename T, int kPer, bool kMixed>
__global__ void __launch_bounds__(kPrepareThreads) prepare_kernel(const __grid_constant__ PrepareCall call) {
  using Stored = typename T::Stored;
  const int64_t row = blockIdx.x;
  const int line = call.width * 3, size = call.height * line;
  const uint8_t* images = call.images + row * size;
  Stored* out = static_cast<Stored*>(call.out) + row * size;
  const int start = (blockIdx.y * kChunks * kPrepareThreads + threadIdx.x) * kPer;
  const auto piece = [&](int i) { return start + i * kPrepareThreads * kPer; };

  RawBytes<kPer> own[kChunks], other[kChunks];
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    if (piece(i) < size) own[i] = load_bytes<kPer>(images + piece(i));
  }
  bool mixed[kChunks] = {};
  Box box;
  if constexpr (kMixed) {
    box = Box(call, row, size);
#pragma unroll
    for (int i = 0; i < kChunks; ++i) {
      mixed[i] = piece(i) < size && box.reached(piece(i), piece(i) + kPer - 1, line);
      if (mixed[i]) other[i] = load_bytes<kPer>(box.partner + piece(i));
    }
  }
#pragma unroll
  for (int i = 0; i < kChunks; ++i) {
    if (piece(i) >= size) continue;
    float x[kPer];
#pragma unroll
    for (int j = 0; j < kPer; ++j) x[j] = own[i][j];
    if (mixed[i]) mix<kPer>(box, piece(i), line, other[i], x);
    normalise<kPer>(call, piece(i), x);
    if constexpr (kPer == T::kPerQuad) {
      store16(out + piece(i), T::pack(x));
    } else {
      out[piece(i)] = T::narrow(x[0]);
    }
  }
}

}  // namespace fkdx
