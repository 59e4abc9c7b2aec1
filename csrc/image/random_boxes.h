// SPDX-License-Identifier: Apache-2.0
// Random crops with torchvision's RandomResizedCrop distribution, from counters instead of a stateful
// generator: a box depends on (stream, crop index, image size) alone. Only operations that IEEE 754 rounds
// exactly are used (+ - * / sqrt, no exp or log), so every machine draws the same integers.
#pragma once

#include <array>
#include <cstdint>

#include "image/crops.h"

namespace fkdx {

struct RandomCropRule {
  double scale_low, scale_high;  // share of the image's area
  double ratio_low, ratio_high;  // width / height, log-uniform
  double flip_chance;
};

// One 64-bit word from many; the order of the words matters.
uint64_t mix_words(const uint64_t* words, int count);

class RandomCrops {
 public:
  // Throws std::invalid_argument unless 0 < scale_low <= scale_high, 0 < ratio_low <= ratio_high and the
  // chance is in [0, 1].
  explicit RandomCrops(const RandomCropRule& rule);

  // Crops first, first + 1, ... first + count - 1 of the stream. Every box lies within the image.
  void draw(uint64_t stream, ImageSize image, int64_t first, int count, Box* boxes, uint8_t* flips) const;

 private:
  static constexpr int kRatioBits = 32;

  double ratio(uint32_t bits) const;
  Box draw_box(uint64_t stream, uint64_t counter, ImageSize image) const;
  Box centre_box(ImageSize image) const;

  RandomCropRule rule_;
  std::array<double, kRatioBits> roots_;  // roots_[k] = (ratio_high / ratio_low) ^ (2 ^ -(k + 1))
};

}  // namespace fkdx
