// SPDX-License-Identifier: Apache-2.0
// One row a strip, plain 32-bit arithmetic.
#include <algorithm>
#include <cstring>

#include "image/kernels.h"

namespace fkdx {
namespace {

constexpr uint32_t kHalf = 1u << (kWeightBits - 1);

// Sums wrap modulo 2^32 like those of the vector kernels; the result fits.
uint8_t rounded(uint32_t sum) {
  return static_cast<uint8_t>(std::clamp(static_cast<int32_t>(sum) >> kWeightBits, 0, 255));
}

typedef double Reals __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(8)));
Ints to_ints(Reals x) { return Ints{static_cast<int32_t>(x[0]), static_cast<int32_t>(x[1])}; }
Reals to_reals(Ints x) { return Reals{static_cast<double>(x[0]), static_cast<double>(x[1])}; }

#include "image/filter_taps.h"

void pack_weights(const int32_t* weights, int32_t* words) { words[0] = weights[0]; }

bool fill_table(const Taps& taps, RowTable* table) {
  table->taps = &taps;
  return true;
}

void row_pass(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  const Taps& taps = *table.taps;
  for (int x = 0; x < taps.outputs(); ++x) {
    const uint8_t* source = rows[0] + 3 * taps.first[x];
    const int32_t* weights = taps.of(x);
    for (int c = 0; c < 3; ++c) {
      uint32_t sum = kHalf;
      for (int t = 0; t < taps.width; ++t) sum += static_cast<uint32_t>(weights[t]) * source[3 * t + c];
      strip[3 * x + c] = rounded(sum);
    }
  }
}

void interleave(const uint8_t* const* rows, int columns, uint32_t* strip) {
  std::copy_n(rows[0], columns, strip);
}

void separate(const uint32_t* strip, int columns, uint8_t* const* rows) {
  std::copy_n(strip, columns, rows[0]);
}

void column_pass(const uint32_t* const* strips, int count, const int32_t* words, bool, int columns,
                 uint8_t* out) {
  for (int x = 0; x < columns; ++x) {
    uint32_t sum = kHalf;
    for (int t = 0; t < count; ++t) sum += static_cast<uint32_t>(words[t]) * strips[t][x];
    out[x] = rounded(sum);
  }
}

}  // namespace

const Kernels kScalarKernels = {1,          1,        nullptr,    filter_taps, pack_weights,
                                fill_table, row_pass, interleave, separate,    column_pass};

}  // namespace fkdx
