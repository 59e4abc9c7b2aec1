// SPDX-License-Identifier: Apache-2.0
// One axis of a resize: which source pixels make an output pixel, and with which weights.
#pragma once

#include <cstdint>
#include <vector>

#include "image/crops.h"

namespace fkdx {

constexpr int kWeightBits = 22;  // fraction bits of a weight

struct Taps {
  static constexpr int kZeros = 4;  // around the weights of a pixel, so that a kernel may read more of them

  int width = 0;                 // weights an output pixel, the last ones may be 0
  std::vector<int32_t> first;    // [outputs] first source pixel
  std::vector<int32_t> weights;  // [outputs, stride]

  int outputs() const { return static_cast<int>(first.size()); }
  size_t stride() const { return size_t(width) + 2 * kZeros; }
  const int32_t* of(int output) const { return &weights[output * stride() + kZeros]; }

  // All weights become 0.
  void resize(int outputs, int width);

  // Keeps the first outputs, and moves taps so that none lies behind the `in` source pixels.
  void trim(int outputs, int in);
};

// A stretch of one axis: `count` of the `out` pixels that `in` source pixels are resized to, from `begin` on.
struct Axis {
  int in;
  int out;
  int begin;
  int count;
};

// The taps of an axis that keeps its length.
void copy_taps(const Axis& axis, Taps* taps);

// Mirrors the outputs.
void reverse(Taps* taps);

// First source pixel and the end of those that the taps read.
struct Span {
  int begin;
  int end;
};
Span source_span(const Taps& taps);

}  // namespace fkdx
