// SPDX-License-Identifier: Apache-2.0
// Where a decoder may enter the Huffman stream of a baseline JPEG: its state before the first unit (MCU) of
// every row and every step-th one behind it, a few bytes each. docs/format.md has them byte by byte.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "image/crops.h"

namespace fkdx {

struct EntryPoint {
  static constexpr int kComponents = 4;

  uint32_t byte;            // of the file: where the next bit lies
  uint32_t bit;             // of that byte, 0 is the highest
  int16_t dc[kComponents];  // predictors

  uint64_t position() const { return uint64_t{8} * byte + bit; }
};

// What a file's headers say of its only scan.
struct ScanFacts {
  uint32_t begin;  // first byte of the entropy-coded data
  uint32_t size;   // bytes of the file
  uint32_t units;
  uint32_t columns;  // units a row
  int components;
};

class EntryPoints {
 public:
  // Whether `coded` was made from exactly these bytes.
  static bool fit(CodedEntryPoints coded, const uint8_t* image, size_t size);

  // False unless all are whole, in order and inside the file.
  bool read(CodedEntryPoints coded, const ScanFacts& scan);

  // The last unit with a point, or 0, that is not behind `unit`.
  uint32_t last_before(uint32_t unit) const { return unit - unit % columns_ % step_; }

  // The first unit with a point that is not before `unit`; may lie behind the last unit.
  uint32_t first_behind(uint32_t unit) const {
    const uint32_t column = unit % columns_;
    return unit - column + std::min((column + step_ - 1) / step_ * step_, columns_);
  }

  // The state before a unit with a point.
  const EntryPoint& before(uint32_t unit) const {
    return points_[unit / columns_ * per_row_ + unit % columns_ / step_];
  }

 private:
  class BitReader;
  bool append(BitReader* bits, const uint8_t* orders, const ScanFacts& scan);

  uint32_t columns_ = 1, step_ = 1, per_row_ = 1;
  std::vector<EntryPoint> points_;  // the first is the start of the scan
  std::vector<uint8_t> padded_;
};

// Codes entry points out of the states before all units of an image but the first, with the smallest step of
// at least `least_step` that keeps the code within `share` of the image's bytes. Empty where none does.
std::vector<uint8_t> code_entry_points(const uint8_t* image, const ScanFacts& scan,
                                       const std::vector<EntryPoint>& states, double share,
                                       uint32_t least_step);

}  // namespace fkdx
