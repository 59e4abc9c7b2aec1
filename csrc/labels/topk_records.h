// SPDX-License-Identifier: Apache-2.0
// Crops of one image in files of top-K probabilities, read by the vector: what training asks for most.
#pragma once

#include <cstddef>
#include <cstdint>

#include "labels/crop_check.h"

namespace fkdx {

// How the vector brings the items of a field into its eight lanes: from the 16 bytes after the byte in which
// the field begins, for each bit of it at which it may.
struct Lanes {
  alignas(32) uint8_t bytes[8][32] = {};
  alignas(32) uint32_t shifts[8][8] = {};
  uint32_t mask = 0;

  // Whether the items of the field, which begins at a byte or anywhere, can be read so.
  static bool fit(const Field& field, bool at_byte);
  explicit Lanes(const Field& field);
};

class TopkRecords {
 public:
  TopkRecords(const Layout& layout, const RecordFields& fields);

  // Reads crops [count] of a block as decode_crop does. False where nothing is said: the file has other
  // records, the CPU no vectors, or a crop may be out of range; then decode_crop has to be asked. Reads up to
  // 16 bytes behind a record.
  bool read(const RecordFields& fields, const CropBounds& bounds, const uint8_t* block, uint64_t flips,
            const int64_t* crops, size_t count, const CropArrays& out) const;

 private:
  struct Call;
  static bool read_none(const TopkRecords& records, const Call& call);
  static bool read_avx2(const TopkRecords& records, const Call& call);

  const bool fits_, log8_;
  const uint32_t kept_, classes_;
  const Lanes ids_, values_;
};

}  // namespace fkdx
