// SPDX-License-Identifier: Apache-2.0
// What crops must hold to be written, and to be handed out.
#pragma once

#include <cstdint>
#include <string>

#include "labels/codec.h"

namespace fkdx {

// The float that follows kMaxSum: comparing floats takes no conversion.
constexpr float kTooLarge = static_cast<float>(kMaxSum);
static_assert(kTooLarge > kMaxSum && kTooLarge - 0x1p-23f <= kMaxSum);

// Where crops belong: the bounds that the record itself does not know.
struct CropBounds {
  uint32_t height = 0, width = 0;  // of the image; 0 where unknown
  uint32_t mix_size = 0;
  uint64_t images = 0;  // in the file, for partners
};

// How many crops had a fault of each sort.
struct Repairs {
  uint64_t boxes = 0, values = 0, sums = 0, ids = 0, duplicates = 0;

  void add(const Repairs& more) {
    boxes += more.boxes, values += more.values, sums += more.sums;
    ids += more.ids, duplicates += more.duplicates;
  }
};

// Whether the arrays that are there of one decoded crop hold: box inside the image, ids and values in range.
bool in_range(const Layout& layout, const CropBounds& bounds, const CropArrays& crop);
// What is wrong with it, or "".
std::string range_fault(const Layout& layout, const CropBounds& bounds, const CropArrays& crop);

// Checks all crops before they are written, and puts each row into descending order of values. A fault throws
// std::invalid_argument naming the crop; with `repair`, faults of boxes, probabilities and ids are mended and
// counted: boxes are clamped, wrong entries become probability 0 of an unused class, sums above 1 are scaled
// to 1.
Repairs check_crops(const Layout& layout, const CropBounds& bounds, const CropArrays& crops, uint32_t count,
                    bool repair);

}  // namespace fkdx
