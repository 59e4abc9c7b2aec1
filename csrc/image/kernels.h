// SPDX-License-Identifier: Apache-2.0
// The inner loops of a resize, one set a CPU variant, all equal bit for bit.
//
// Rows travel in strips: a few neighbouring rows interleaved column by column, so that one 32-bit word holds
// what the vertical pass multiplies in one instruction. A column is one colour of one pixel.
#pragma once

#include <cstdint>
#include <type_traits>

#include "image/buffer.h"
#include "image/taps.h"

namespace fkdx {

// The weights of the horizontal pass in the order in which a kernel reads them; each kernel set has its own
// layout.
struct RowTable {
  const Taps* taps;
  bool clamp;  // weights may be negative, so sums may leave 0..255
  int groups;
  int steps;  // loads of source pixels a group
  bool wide;  // these loads span two vectors
  Buffer<int32_t> offsets;
  Buffer<uint32_t> shuffles;
  Buffer<int32_t> weights;
  Buffer<uint32_t> by_column;  // what is spread over columns while the table is filled
};

struct Kernels {
  int strip_rows;    // rows a strip
  int weight_words;  // 32-bit words that hold the weights of one strip's rows

  const Kernels* fallback;  // takes what fill_table refuses

  // Pillow's antialiasing weights of an axis that changes its length: the filter is widened where it shrinks,
  // cut off at the ends of the source, normalised in double precision and rounded to 22 bits.
  void (*filter_taps)(const Axis& axis, Interpolation interpolation, Taps* taps);

  // Weights of the strip_rows rows of a strip -> weight_words words.
  void (*pack_weights)(const int32_t* weights, int32_t* words);

  // Lays out taps for row_pass. False: these taps are not for this kernel set.
  bool (*fill_table)(const Taps& taps, RowTable* table);

  // Horizontal pass over strip_rows rows of RGB pixels -> a strip of 3 columns an output pixel.
  void (*row_pass)(const uint8_t* const* rows, const RowTable& table, uint32_t* strip);

  // strip_rows rows of bytes -> a strip.
  void (*interleave)(const uint8_t* const* rows, int columns, uint32_t* strip);

  // A strip -> strip_rows rows of bytes.
  void (*separate)(const uint32_t* strip, int columns, uint8_t* const* rows);

  // Vertical pass: weighted sum of `count` strips -> a row of bytes.
  void (*column_pass)(const uint32_t* const* strips, int count, const int32_t* words, bool clamp, int columns,
                      uint8_t* out);
};

// Columns that a strip has room for, so that vector code may write whole vectors.
constexpr int padded_columns(int columns) { return (columns + 63) / 64 * 64 + 64; }

constexpr int kMaxStripRows = Taps::kZeros;

// Calls run(number, clamp) with compile-time constants, so that loops unroll: `number` up to kMost, else 0
// for any.
template <int kMost, typename Run>
void with_constants(int number, bool clamp, Run run) {
  if constexpr (kMost > 0) {
    if (number != kMost) return with_constants<kMost - 1>(number, clamp, run);
  }
  using Number = std::integral_constant<int, kMost>;
  clamp ? run(Number(), std::true_type()) : run(Number(), std::false_type());
}

extern const Kernels kScalarKernels, kAvx2Kernels, kAvx512Kernels, kNeonKernels;

// The AVX-512 kernels, or null: they need VNNI and VBMI, which not every AVX-512 CPU has.
const Kernels* avx512_kernels();

}  // namespace fkdx
