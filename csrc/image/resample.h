// SPDX-License-Identifier: Apache-2.0
// Pillow's 8-bit resize of RGB pixels: two passes, rounded to bytes in between.
#pragma once

#include <cstdint>
#include <vector>

#include "image/crops.h"
#include "image/kernels.h"
#include "image/taps.h"

namespace fkdx {

// One a thread: it keeps its buffers.
class Resampler {
 public:
  // Prepares a resize and returns the source pixels that it reads.
  Box plan(const Axis& vertical, const Axis& horizontal, bool flip, Interpolation interpolation,
           ResampleRule rule);

  // `source` starts at the first pixel of the box that plan returned and may be read kOverread bytes behind
  // its last one. out is [vertical.count, horizontal.count, 3], rows `out_stride` bytes apart.
  void run(const uint8_t* source, ptrdiff_t stride, uint8_t* out, ptrdiff_t out_stride);

 private:
  struct Rows {
    const uint8_t* data;
    ptrdiff_t stride;
    int count;
  };

  template <typename MakeStrip>
  void column_pass(int columns, MakeStrip make_strip, uint8_t* out, ptrdiff_t stride);
  void pick_rows(const Rows& source, int index, const uint8_t** rows) const;
  void rows_first(const Rows& source, uint8_t* out, ptrdiff_t stride);
  Rows columns_alone(const Rows& source);
  void rows_alone(const Rows& source, uint8_t* out, ptrdiff_t stride);

  const Kernels* kernels_ = nullptr;
  bool clamp_ = false;
  bool columns_first_ = false;
  Box region_{};
  Taps horizontal_;
  Taps vertical_;
  RowTable table_{};
  Buffer<uint32_t> strips_;
  Buffer<uint8_t> between_;
  std::vector<const uint32_t*> strip_list_;
  std::vector<int32_t> words_;
};

}  // namespace fkdx
