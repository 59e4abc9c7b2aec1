// SPDX-License-Identifier: Apache-2.0
// One image's crops between arrays and the records of a block.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "labels/layout.h"

namespace fkdx {

// Operation bits of a crop of two views.
enum Operation : uint8_t { kMixup = 1, kCutmix = 2, kPartnerFlip = 4, kKnownOperations = 7 };

// Arrays of n crops, owned by the caller. A null pointer: the file has no such field, or nobody wants it.
struct CropArrays {
  int32_t* boxes = nullptr;  // [n, 4] top, left, height, width in pixels
  float* ratios = nullptr;   // [n, 4] instead of boxes in files with ratio boxes
  uint8_t* flips = nullptr;  // [n]
  int32_t* ids = nullptr;    // [n, id_count]
  float* values = nullptr;   // [n, kept]; 1 for hard labels
  float* tails = nullptr;    // [n]

  uint32_t* partners = nullptr;      // [n] the other image's number
  int32_t* partner_boxes = nullptr;  // [n, 4]
  float* partner_ratios = nullptr;   // [n, 4]
  uint8_t* operations = nullptr;     // [n]
  float* lambdas = nullptr;          // [n]
  int32_t* mix_boxes = nullptr;      // [n, 4] pixels of the mixed image

  // The arrays from crop `n` on.
  CropArrays from(size_t n, const Layout& layout) const;
};

// Writes `crops` records and their flip bits into `block`, zeroed by the caller, with 8 spare bytes behind
// it. The arrays must have passed check_crops.
void encode_crops(const Layout& layout, const RecordFields& fields, const CropArrays& arrays, uint32_t crops,
                  uint8_t* block);

// Reads record `crop` into the first crop of `out`. Reads up to 8 bytes behind the record. The caller checks
// that the block holds the record.
void decode_crop(const Layout& layout, const RecordFields& fields, const uint8_t* block, uint64_t flips,
                 uint32_t crop, const CropArrays& out);

// The probability of each of the 256 codes of log8.
const float* log8_levels();

// The first probability of a row with rest = 1: what the others, and the code in its own place, leave.
inline float first_left(double others) { return static_cast<float>(others < 1 ? 1 - others : 0); }

// Replaces the first of a row's probabilities if rest is 1; without a branch, which nobody could predict.
inline void put_first(float* values, uint32_t kept, uint32_t rest) {
  double others = 0;
  for (uint32_t k = 0; k < kept; ++k) others += values[k];
  const float choices[] = {values[0], first_left(others)};
  values[0] = choices[rest];
}

// Whether a probability is that of a log8 code, in the precision of float16.
bool is_log8_level(float value);

}  // namespace fkdx
