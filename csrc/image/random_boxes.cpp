// SPDX-License-Identifier: Apache-2.0
#include "image/random_boxes.h"

#include <cmath>

#include "base/check.h"

namespace fkdx {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
constexpr int kAttempts = 10;        // torchvision gives up after ten and takes the centre
constexpr int kDrawsPerCrop = 16;    // ten attempts, one position, one flip; the rest is free
constexpr double kToUnit = 0x1p-32;  // 32 random bits to [0, 1)

// Steele, Lea, Flood: Fast splittable pseudorandom number generators (OOPSLA 2014): SplitMix64.
uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

uint64_t draw_word(uint64_t stream, uint64_t counter) { return mix(stream + (counter + 1) * kGolden); }

uint32_t high(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
uint32_t low(uint64_t word) { return static_cast<uint32_t>(word); }

// An integer in [0, bound); the bias is below bound / 2^32.
int below(uint32_t bits, int bound) {
  return static_cast<int>((static_cast<uint64_t>(bits) * static_cast<uint64_t>(bound)) >> 32);
}

int rounded(double x) { return static_cast<int>(std::nearbyint(x)); }

}  // namespace

uint64_t mix_words(const uint64_t* words, int count) {
  uint64_t state = 0;
  for (int i = 0; i < count; ++i) state = mix((state ^ words[i]) + kGolden);
  return state;
}

RandomCrops::RandomCrops(const RandomCropRule& rule) : rule_(rule) {
  check<std::invalid_argument>(
      0 < rule.scale_low && rule.scale_low <= rule.scale_high && rule.scale_high <= 1,
      "random_boxes: scale, got (", rule.scale_low, ", ", rule.scale_high,
      "), expected 0 < low <= high <= 1");
  check<std::invalid_argument>(
      0 < rule.ratio_low && rule.ratio_low <= rule.ratio_high && rule.ratio_high < 1e6,
      "random_boxes: ratio, got (", rule.ratio_low, ", ", rule.ratio_high, "), expected 0 < low <= high");
  check<std::invalid_argument>(0 <= rule.flip_chance && rule.flip_chance <= 1, "random_boxes: flip, got ",
                               rule.flip_chance, ", expected a probability");
  double root = rule.ratio_high / rule.ratio_low;
  for (double& kept : roots_) kept = root = std::sqrt(root);
}

void RandomCrops::draw(uint64_t stream, ImageSize image, int64_t first, int count, Box* boxes,
                       uint8_t* flips) const {
  for (int i = 0; i < count; ++i) {
    const uint64_t counter = static_cast<uint64_t>(first + i) * kDrawsPerCrop;
    boxes[i] = draw_box(stream, counter, image);
    flips[i] = high(draw_word(stream, counter + kAttempts + 1)) * kToUnit < rule_.flip_chance;
  }
}

// ratio_low * (ratio_high / ratio_low) ^ u for u = bits / 2^32, by one square root a bit.
double RandomCrops::ratio(uint32_t bits) const {
  double product = rule_.ratio_low;
  for (int k = 0; k < kRatioBits; ++k) {
    if (bits & (0x80000000u >> k)) product *= roots_[k];
  }
  return product;
}

Box RandomCrops::draw_box(uint64_t stream, uint64_t counter, ImageSize image) const {
  const double area = static_cast<double>(image.height) * image.width;
  for (int attempt = 0; attempt < kAttempts; ++attempt) {
    const uint64_t word = draw_word(stream, counter + attempt);
    const double share = rule_.scale_low + (rule_.scale_high - rule_.scale_low) * (high(word) * kToUnit);
    const double aspect = ratio(low(word));
    const int width = rounded(std::sqrt(area * share * aspect));
    const int height = rounded(std::sqrt(area * share / aspect));
    if (0 < width && width <= image.width && 0 < height && height <= image.height) {
      const uint64_t place = draw_word(stream, counter + kAttempts);
      return {below(high(place), image.height - height + 1), below(low(place), image.width - width + 1),
              height, width};
    }
  }
  return centre_box(image);
}

// The largest centred box whose aspect ratio is allowed.
Box RandomCrops::centre_box(ImageSize image) const {
  int width = image.width, height = image.height;
  const double aspect = static_cast<double>(width) / height;
  if (aspect < rule_.ratio_low) height = std::max(1, rounded(width / rule_.ratio_low));
  if (aspect > rule_.ratio_high) width = std::max(1, rounded(height * rule_.ratio_high));
  return {(image.height - height) / 2, (image.width - width) / 2, height, width};
}

}  // namespace fkdx
