// SPDX-License-Identifier: Apache-2.0
// Two rows a strip: a word holds two 16-bit values, which are multiplied by two digits of base 2^11, the
// higher digit of a weight signed.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/target.h"
#include "image/kernels.h"

FKDX_BEGIN_TARGET("avx2")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 32;
typedef uint32_t Words __attribute__((vector_size(kVectorBytes), may_alias));
constexpr int kRows = 2;
constexpr int kDigitBits = kWeightBits / 2;
constexpr int kDigits = 2;
constexpr int kSignDigits = 0;

__m256i raw(Words words) { return reinterpret_cast<__m256i>(words); }

Words dot(Words sum, Words pixels, Words weights) {
  return sum + reinterpret_cast<Words>(_mm256_madd_epi16(raw(pixels), raw(weights)));
}

Words within(Words sum, int32_t top) {
  return reinterpret_cast<Words>(
      _mm256_min_epi32(_mm256_max_epi32(raw(sum), _mm256_setzero_si256()), _mm256_set1_epi32(top)));
}

Words merged(const Words* sums) {
  return reinterpret_cast<Words>(_mm256_blend_epi16(_mm256_srli_epi32(raw(sums[0]), kWeightBits),
                                                    _mm256_srli_epi32(raw(sums[1]), kWeightBits - 16), 0xAA));
}

void interleave_four(const uint8_t* const* rows, int x, Words* words) {
  for (int half = 0; half < 2; ++half, x += 16, words += 2) {
    const auto row = [&](int r) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + x)); };
    words[0] = reinterpret_cast<Words>(_mm256_cvtepu8_epi16(_mm_unpacklo_epi8(row(0), row(1))));
    words[1] = reinterpret_cast<Words>(_mm256_cvtepu8_epi16(_mm_unpackhi_epi8(row(0), row(1))));
  }
}

__m256i packed(Words low, Words high) {
  return _mm256_packus_epi32(raw(low >> kWeightBits), raw(high >> kWeightBits));
}

// Packing stays inside halves of a vector.
__m256i in_order(__m256i bytes) {
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
}

__m256i narrowed(const Words* sums) {
  return in_order(_mm256_packus_epi16(packed(sums[0], sums[1]), packed(sums[2], sums[3])));
}

void write(uint8_t* out, __m256i bytes, int count) {
  if (count == kVectorBytes) return _mm256_storeu_si256(reinterpret_cast<__m256i*>(out), bytes);
  alignas(kVectorBytes) uint8_t all[kVectorBytes];
  _mm256_store_si256(reinterpret_cast<__m256i*>(all), bytes);
  std::memcpy(out, all, count);
}

void separate_four(const Words* words, uint8_t* const* rows, int x, int count) {
  const __m256i apart =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15));
  const auto eight_of_each = [&](int v) {
    return _mm256_shuffle_epi8(_mm256_packus_epi16(raw(words[v]), raw(words[v + 1])), apart);
  };
  const __m256i left = eight_of_each(0), right = eight_of_each(2);
  write(rows[0] + x, in_order(_mm256_unpacklo_epi64(left, right)), count);
  write(rows[1] + x, in_order(_mm256_unpackhi_epi64(left, right)), count);
}

#include "image/vector_passes.h"

typedef uint32_t Four __attribute__((vector_size(16)));

// Word d holds the d-th highest digits of two weights.
Four packed_digits(const int32_t* weights) {
  const __m128i twice = _mm_loadu_si64(weights);
  const __m128i digits = _mm_and_si128(
      _mm_srav_epi32(_mm_unpacklo_epi64(twice, twice), _mm_setr_epi32(kDigitBits, kDigitBits, 0, 0)),
      _mm_setr_epi32(-1, -1, (1 << kDigitBits) - 1, (1 << kDigitBits) - 1));
  return reinterpret_cast<Four>(_mm_packs_epi32(digits, digits));
}

constexpr int kWindowLanes = 4;
constexpr int kWindow = 16, kWidestWindow = kWindow;
constexpr uint32_t kNextShuffle = 0x00010001, kFirstShuffle = 0x80038000;  // byte 0, none, byte 3, none

#include "image/row_windows.h"

__m128i load16(const uint8_t* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

__m256i load_both(const uint8_t* low, const uint8_t* high) {
  return _mm256_inserti128_si256(_mm256_castsi128_si256(load16(low)), load16(high), 1);
}

// Eight columns, four a window.
class WindowPair {
 public:
  WindowPair(const int32_t* offsets, const uint32_t* shuffles, int g)
      : low_(offsets[2 * g]),
        high_(offsets[2 * g + 1]),
        shuffle_(*reinterpret_cast<const Words*>(shuffles + g * kLanes)) {}

  Words pixels(const uint8_t* row, int step) const {
    row += 6 * step;
    return reinterpret_cast<Words>(_mm256_shuffle_epi8(load_both(row + low_, row + high_), raw(shuffle_)));
  }

  uint32_t* put(uint32_t* strip, Words words) const {
    *reinterpret_cast<Words*>(strip) = words;
    return strip + kLanes;
  }

 private:
  int low_, high_;
  Words shuffle_;
};

// For PixelPair, where columns are too far apart for windows.
bool fill_pixel_pairs(const Taps& taps, RowTable* table) {
  const int outputs = taps.outputs();
  table->groups = (outputs + 1) / 2;
  table->steps = (taps.width + 1) / 2;
  int32_t* offsets = table->offsets.reserve(size_t(table->groups) * 2);
  int32_t* weights = table->weights.reserve(size_t(table->groups) * table->steps * kDigits * kLanes);
  for (int x = 0; x < 2 * table->groups; ++x) {
    const int pixel = std::min(x, outputs - 1);
    offsets[x] = 3 * taps.first[pixel];
    for (int s = 0; s < table->steps; ++s) {
      int32_t words[kDigits];
      pack_weights(taps.of(pixel) + 2 * s, words);
      int32_t* group = weights + (size_t(x / 2) * table->steps + s) * kDigits * kLanes;
      for (int d = 0; d < kDigits; ++d) std::fill_n(group + d * kLanes + x % 2 * 4, 4, words[d]);
    }
  }
  return true;
}

// Two output pixels, each in its half of the vector with a fourth lane that is dropped.
class PixelPair {
 public:
  PixelPair(const int32_t* offsets, const uint32_t*, int g)
      : left_(offsets[2 * g]), right_(offsets[2 * g + 1]) {}

  // Sixteen source bytes hold two steps of two neighbouring pixels each.
  Words pixels(const uint8_t* row, int step) const {
    const __m128i even = _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1);
    const __m128i odd = _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1);
    const uint8_t* source = row + step / 2 * 12;
    return reinterpret_cast<Words>(_mm256_shuffle_epi8(
        load_both(source + left_, source + right_), _mm256_broadcastsi128_si256(step % 2 == 0 ? even : odd)));
  }

  uint32_t* put(uint32_t* strip, Words words) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(strip), _mm256_castsi256_si128(raw(words)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(strip + 3), _mm256_extracti128_si256(raw(words), 1));
    return strip + 6;
  }

 private:
  int left_, right_;
};

typedef double Reals __attribute__((vector_size(kVectorBytes)));
typedef int32_t Ints __attribute__((vector_size(kVectorBytes / 2)));
Ints to_ints(Reals x) { return reinterpret_cast<Ints>(_mm256_cvttpd_epi32(x)); }
Reals to_reals(Ints x) { return _mm256_cvtepi32_pd(reinterpret_cast<__m128i>(x)); }

#include "image/filter_taps.h"

constexpr auto window_pass = row_pass_by<WindowPair>, pixel_pass = row_pass_by<PixelPair>;

const Kernels kPixelPairs = {kRows,      kDigits,    nullptr,  filter_taps, pack_weights, fill_pixel_pairs,
                             pixel_pass, interleave, separate, column_pass};

}  // namespace

FKDX_END_TARGET

const Kernels kAvx2Kernels = {kRows,      kDigits,     &kPixelPairs, filter_taps, pack_weights,
                              fill_table, window_pass, interleave,   separate,    column_pass};

}  // namespace fkdx

#endif
