// SPDX-License-Identifier: Apache-2.0
// Two rows a strip: a word holds two 16-bit values, which are multiplied by two 16-bit weights and added up.
//
// A 22-bit weight is two digits of base 2^11, the higher one signed: ((1024 + sum1) << 11) + sum0 is the
// weighted sum plus the half that rounds, modulo 2^32.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "image/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx2")

namespace fkdx {
namespace {

constexpr int kLanes = 8;  // columns a vector
constexpr int kDigits = 2;
constexpr int kDigitBits = kWeightBits / 2;
constexpr int kRound = 1 << (kWeightBits - 1 - kDigitBits);

void pack_weights(const int32_t* weights, int32_t* words) {
  uint32_t digits[kDigits] = {};
  for (int t = 0; t < 2; ++t) {
    digits[0] |= static_cast<uint32_t>((weights[t] >> kDigitBits) & 0xFFFF) << (16 * t);
    digits[1] |= static_cast<uint32_t>(weights[t] & ((1 << kDigitBits) - 1)) << (16 * t);
  }
  std::memcpy(words, digits, sizeof(digits));
}

// A group is two output pixels, each in its half of the vector with a fourth lane that is dropped.
bool fill_table(const Taps& taps, RowTable* table) {
  const int outputs = taps.outputs();
  table->groups = (outputs + 1) / 2;
  table->steps = (taps.width + 1) / 2;
  int32_t* offsets = table->offsets.reserve(size_t(table->groups) * 2);
  int32_t* weights = table->weights.reserve(size_t(table->groups) * table->steps * kDigits * kLanes);
  std::vector<int32_t> padded(size_t(table->steps) * 2);
  for (int x = 0; x < 2 * table->groups; ++x) {
    const int pixel = std::min(x, outputs - 1);
    offsets[x] = 3 * taps.first[pixel];
    std::copy_n(&taps.weights[size_t(pixel) * taps.width], taps.width, padded.begin());
    for (int s = 0; s < table->steps; ++s) {
      int32_t words[kDigits];
      pack_weights(&padded[2 * s], words);
      int32_t* group = weights + (size_t(x / 2) * table->steps + s) * kDigits * kLanes;
      for (int d = 0; d < kDigits; ++d) std::fill_n(group + d * kLanes + x % 2 * 4, 4, words[d]);
    }
  }
  return true;
}

// Rounded sums, still at bits 22 and up.
template <bool kClamp>
__m256i finished(__m256i high, __m256i low) {
  const __m256i sum = _mm256_add_epi32(_mm256_slli_epi32(high, kDigitBits), low);
  if (!kClamp) return sum;
  const __m256i top = _mm256_set1_epi32((1 << (kWeightBits + 8)) - 1);
  return _mm256_min_epi32(_mm256_max_epi32(sum, _mm256_setzero_si256()), top);
}

__m256i two_pixels(const uint8_t* left, const uint8_t* right) {
  const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(left));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(low),
                                 _mm_loadu_si128(reinterpret_cast<const __m128i*>(right)), 1);
}

// kSteps is table.steps, or 0 for any number.
template <int kSteps, bool kClamp>
void row_pass_of(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  // Sixteen source bytes hold two steps of two neighbouring pixels each.
  const __m256i even =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  const __m256i odd =
      _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  const int steps = kSteps > 0 ? kSteps : table.steps;
  const __m256i* weights = reinterpret_cast<const __m256i*>(table.weights.data());
  const int32_t* offsets = table.offsets.data();
  for (int g = 0; g < table.groups; ++g, weights += steps * kDigits, strip += 6) {
    __m256i sums[2];
    for (int r = 0; r < 2; ++r) {
      const uint8_t* left = rows[r] + offsets[2 * g];
      const uint8_t* right = rows[r] + offsets[2 * g + 1];
      __m256i high = _mm256_set1_epi32(kRound);
      __m256i low = _mm256_setzero_si256();
      __m256i source{};
      for (int s = 0; s < steps; ++s) {
        if (s % 2 == 0) source = two_pixels(left + 6 * s, right + 6 * s);
        const __m256i pair = _mm256_shuffle_epi8(source, s % 2 == 0 ? even : odd);
        high = _mm256_add_epi32(high, _mm256_madd_epi16(pair, _mm256_load_si256(weights + s * kDigits)));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(pair, _mm256_load_si256(weights + s * kDigits + 1)));
      }
      sums[r] = finished<kClamp>(high, low);
    }
    const __m256i words = _mm256_blend_epi16(_mm256_srli_epi32(sums[0], kWeightBits),
                                             _mm256_srli_epi32(sums[1], kWeightBits - 16), 0xAA);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(strip), _mm256_castsi256_si128(words));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(strip + 3), _mm256_extracti128_si256(words, 1));
  }
}

void row_pass(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  with_constants<4>(table.steps, table.clamp,
                    [&](auto kSteps, auto kClamp) { row_pass_of<kSteps, kClamp>(rows, table, strip); });
}

void interleave(const uint8_t* const* rows, int columns, uint32_t* strip) {
  for (int x = 0; x < columns; x += kLanes) {
    const __m256i upper =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows[0] + x)));
    const __m256i lower =
        _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(rows[1] + x)));
    _mm256_store_si256(reinterpret_cast<__m256i*>(strip + x),
                       _mm256_or_si256(upper, _mm256_slli_epi32(lower, 16)));
  }
}

// kCount is the number of strips, or 0 for any.
template <int kCount, bool kClamp>
void column_pass_of(const uint32_t* const* strips, int count, const int32_t* words, int columns,
                    uint8_t* out) {
  if (kCount > 0) count = kCount;
  for (int x = 0; x < columns; x += 4 * kLanes) {
    __m256i values[4];
    for (int v = 0; v < 4; ++v) {
      __m256i high = _mm256_set1_epi32(kRound);
      __m256i low = _mm256_setzero_si256();
      for (int s = 0; s < count; ++s) {
        const __m256i pair = _mm256_load_si256(reinterpret_cast<const __m256i*>(strips[s] + x + v * kLanes));
        high = _mm256_add_epi32(high, _mm256_madd_epi16(pair, _mm256_set1_epi32(words[s * kDigits])));
        low = _mm256_add_epi32(low, _mm256_madd_epi16(pair, _mm256_set1_epi32(words[s * kDigits + 1])));
      }
      values[v] = _mm256_srli_epi32(finished<kClamp>(high, low), kWeightBits);
    }
    const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(values[0], values[1]),
                                              _mm256_packus_epi32(values[2], values[3]));
    const __m256i ordered = _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if (columns - x >= 4 * kLanes) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + x), ordered);
    } else {
      alignas(32) uint8_t tail[4 * kLanes];
      _mm256_store_si256(reinterpret_cast<__m256i*>(tail), ordered);
      std::memcpy(out + x, tail, columns - x);
    }
  }
}

void column_pass(const uint32_t* const* strips, int count, const int32_t* words, bool clamp, int columns,
                 uint8_t* out) {
  with_constants<4>(count, clamp, [&](auto kCount, auto kClamp) {
    column_pass_of<kCount, kClamp>(strips, count, words, columns, out);
  });
}

}  // namespace

#pragma GCC pop_options

const Kernels kAvx2Kernels = {2,          kDigits,  nullptr,    pack_weights,
                              fill_table, row_pass, interleave, column_pass};

}  // namespace fkdx

#endif
