// SPDX-License-Identifier: Apache-2.0
// Crops of one image in files of top-K probabilities, read by the vector: what training asks for most.
#pragma once

#include <cstddef>
#include <cstdint>

#include "labels/crop_check.h"

namespace fkdx {

// How the vector brings the items of a field into its eight lanes: from the 16 bytes after the byte in which
// the field begins, for each bit of it at which it may.
struct FieldLanes {
  alignas(32) uint8_t bytes[8][32] = {};
  alignas(32) uint32_t shifts[8][8] = {};
  uint32_t mask = 0;

  // Whether the items of the field can be read this way. at_byte: it begins at a whole byte in every record.
  static bool fit(const Field& field, bool at_byte);
  explicit FieldLanes(const Field& field);
};

class TopkRecords {
 public:
  TopkRecords(const Layout& layout, const RecordFields& fields);

  // Reads crops [count] of a block as decode_crop does. False: these crops have to be read by decode_crop,
  // because the file has other records, the CPU has no vectors, or a crop may be out of range. Reads up to 16
  // bytes behind a record.
  bool read(const RecordFields& fields, const CropBounds& bounds, const uint8_t* block, uint64_t flips,
            const int64_t* crops, size_t count, const CropArrays& out) const;

 private:
  struct Call;
  static bool read_none(const TopkRecords& records, const Call& call);
  static bool read_avx2(const TopkRecords& records, const Call& call);

  const bool fits_, log8_;
  const uint32_t kept_, classes_;
  const FieldLanes ids_, values_;
};

}  // namespace fkdx
