// SPDX-License-Identifier: Apache-2.0
// Four rows a strip: a word holds four bytes, which VNNI multiplies by four signed 8-bit weights and adds up.
//
// A 22-bit weight is three signed digits of base 256, highest first: ((32 + sum2) * 256 + sum1) * 256 + sum0
// is the weighted sum plus the half that rounds, modulo 2^32.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "image/kernels.h"

#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")

namespace fkdx {
namespace {

constexpr int kLanes = 16;  // columns a vector
constexpr int kDigits = 3;
constexpr int kRound = 1 << (kWeightBits - 1 - 16);
constexpr uint32_t kByte[] = {0xFFu, 0xFF00u, 0xFF0000u, 0xFF000000u};

void pack_weights(const int32_t* weights, int32_t* words) {
  uint32_t digits[kDigits] = {};
  for (int t = 0; t < 4; ++t) {
    const int32_t low = static_cast<int8_t>(weights[t]);
    const int32_t rest = (weights[t] - low) >> 8;
    const int32_t middle = static_cast<int8_t>(rest);
    const int32_t high = (rest - middle) >> 8;
    digits[0] |= static_cast<uint32_t>(high & 0xFF) << (8 * t);
    digits[1] |= static_cast<uint32_t>(middle & 0xFF) << (8 * t);
    digits[2] |= static_cast<uint32_t>(low & 0xFF) << (8 * t);
  }
  std::memcpy(words, digits, sizeof(digits));
}

// A group is 16 columns, so 5 or 6 output pixels. Its source pixels have to lie within two vectors.
bool fill_table(const Taps& taps, RowTable* table) {
  const int columns = 3 * taps.outputs();
  table->groups = (columns + kLanes - 1) / kLanes;
  table->steps = (taps.width + 3) / 4;
  int32_t* offsets = table->offsets.reserve(table->groups);
  uint8_t* shuffles = table->shuffles.reserve(size_t(table->groups) * 64);
  int32_t* weights = table->weights.reserve(size_t(table->groups) * table->steps * kDigits * kLanes);
  table->wide = false;
  for (int g = 0; g < table->groups; ++g) {
    const int first = g * kLanes / 3;
    const int last = std::min(g * kLanes + kLanes - 1, columns - 1) / 3;
    const int low = std::min(taps.first[first], taps.first[last]);
    const int high = std::max(taps.first[first], taps.first[last]);
    const int reach = 3 * (high - low + 4);
    if (reach > 128) return false;
    table->wide |= reach > 64;
    offsets[g] = 3 * low;
    for (int lane = 0; lane < kLanes; ++lane) {
      const int column = std::min(g * kLanes + lane, columns - 1);
      const int shift = 3 * (taps.first[column / 3] - low) + column % 3;
      for (int t = 0; t < 4; ++t) shuffles[64 * g + 4 * lane + t] = static_cast<uint8_t>(shift + 3 * t);
    }
  }
  std::vector<int32_t> padded(size_t(table->steps) * 4);
  for (int x = 0; x < taps.outputs(); ++x) {
    std::copy_n(&taps.weights[size_t(x) * taps.width], taps.width, padded.begin());
    for (int s = 0; s < table->steps; ++s) {
      int32_t words[kDigits];
      pack_weights(&padded[4 * s], words);
      for (int column = 3 * x; column < 3 * x + 3; ++column) {
        int32_t* group = weights + (size_t(column / kLanes) * table->steps + s) * kDigits * kLanes;
        for (int d = 0; d < kDigits; ++d) group[d * kLanes + column % kLanes] = words[d];
      }
    }
  }
  return true;
}

template <bool kClamp>
__m512i clamped(__m512i sum) {
  if (!kClamp) return sum;
  const __m512i top = _mm512_set1_epi32((1 << (kWeightBits + 8)) - 1);
  return _mm512_min_epi32(_mm512_max_epi32(sum, _mm512_setzero_si512()), top);
}

// The results of four sums as the four bytes of each word.
__m512i merged(const __m512i sums[4]) {
  __m512i bytes = _mm512_srli_epi32(sums[0], kWeightBits);
  bytes = _mm512_or_si512(bytes, _mm512_and_si512(_mm512_srli_epi32(sums[1], kWeightBits - 8),
                                                  _mm512_set1_epi32(static_cast<int>(kByte[1]))));
  bytes = _mm512_or_si512(bytes, _mm512_and_si512(_mm512_srli_epi32(sums[2], kWeightBits - 16),
                                                  _mm512_set1_epi32(static_cast<int>(kByte[2]))));
  return _mm512_or_si512(bytes, _mm512_and_si512(_mm512_slli_epi32(sums[3], 24 - kWeightBits),
                                                 _mm512_set1_epi32(static_cast<int>(kByte[3]))));
}

// Four source pixels of each of 16 columns.
template <bool kWide>
__m512i gathered(const uint8_t* source, __m512i shuffle) {
  const __m512i low = _mm512_loadu_si512(source);
  if (!kWide) return _mm512_permutexvar_epi8(shuffle, low);
  return _mm512_permutex2var_epi8(low, shuffle, _mm512_loadu_si512(source + 64));
}

// kSteps is table.steps, or 0 for any number.
template <int kSteps, bool kWide, bool kClamp>
void row_pass_of(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  const int steps = kSteps > 0 ? kSteps : table.steps;
  const int32_t* weights = table.weights.data();
  for (int g = 0; g < table.groups; ++g, weights += steps * kDigits * kLanes) {
    const __m512i shuffle = _mm512_load_si512(table.shuffles.data() + 64 * g);
    __m512i sums[4];
    for (int r = 0; r < 4; ++r) {
      const uint8_t* source = rows[r] + table.offsets.data()[g];
      __m512i pixels[kSteps > 0 ? kSteps : 1];
      for (int s = 0; s < kSteps; ++s) pixels[s] = gathered<kWide>(source + 12 * s, shuffle);
      __m512i sum = _mm512_set1_epi32(kRound);
      for (int d = 0; d < kDigits; ++d) {
        if (d > 0) sum = _mm512_slli_epi32(sum, 8);
        for (int s = 0; s < steps; ++s) {
          const __m512i four = kSteps > 0 ? pixels[s] : gathered<kWide>(source + 12 * s, shuffle);
          sum = _mm512_dpbusd_epi32(sum, four, _mm512_load_si512(weights + (s * kDigits + d) * kLanes));
        }
      }
      sums[r] = clamped<kClamp>(sum);
    }
    _mm512_store_si512(strip + g * kLanes, merged(sums));
  }
}

void row_pass(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  with_constants<3>(table.steps, table.clamp, [&](auto kSteps, auto kClamp) {
    table.wide ? row_pass_of<kSteps, true, kClamp>(rows, table, strip)
               : row_pass_of<kSteps, false, kClamp>(rows, table, strip);
  });
}

void interleave(const uint8_t* const* rows, int columns, uint32_t* strip) {
  for (int x = 0; x < columns; x += kLanes) {
    __m512i words = _mm512_setzero_si512();
    for (int r = 0; r < 4; ++r) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(rows[r] + x));
      words = _mm512_or_si512(words, _mm512_sll_epi32(_mm512_cvtepu8_epi32(bytes), _mm_cvtsi32_si128(8 * r)));
    }
    _mm512_store_si512(strip + x, words);
  }
}

// kCount is the number of strips, or 0 for any.
template <int kCount, bool kClamp>
void column_pass_of(const uint32_t* const* strips, int count, const int32_t* words, int columns,
                    uint8_t* out) {
  alignas(64) static constexpr auto kOrder = [] {
    struct {
      uint8_t index[64];
    } order{};
    for (int i = 0; i < 64; ++i) order.index[i] = static_cast<uint8_t>(4 * (i % kLanes) + i / kLanes);
    return order;
  }();
  if (kCount > 0) count = kCount;
  const __m512i order = _mm512_load_si512(kOrder.index);
  for (int x = 0; x < columns; x += 64) {
    __m512i sums[4];
    for (int v = 0; v < 4; ++v) {
      __m512i sum = _mm512_set1_epi32(kRound);
      for (int d = 0; d < kDigits; ++d) {
        if (d > 0) sum = _mm512_slli_epi32(sum, 8);
        for (int s = 0; s < count; ++s) {
          sum = _mm512_dpbusd_epi32(sum, _mm512_load_si512(strips[s] + x + v * kLanes),
                                    _mm512_set1_epi32(words[s * kDigits + d]));
        }
      }
      sums[v] = clamped<kClamp>(sum);
    }
    const __m512i bytes = _mm512_permutexvar_epi8(order, merged(sums));
    const int left = columns - x;
    _mm512_mask_storeu_epi8(out + x, left >= 64 ? ~0ull : (1ull << left) - 1, bytes);
  }
}

void column_pass(const uint32_t* const* strips, int count, const int32_t* words, bool clamp, int columns,
                 uint8_t* out) {
  with_constants<3>(count, clamp, [&](auto kCount, auto kClamp) {
    column_pass_of<kCount, kClamp>(strips, count, words, columns, out);
  });
}

}  // namespace

#pragma GCC pop_options

const Kernels kAvx512Kernels = {4,          kDigits,  &kAvx2Kernels, pack_weights,
                                fill_table, row_pass, interleave,    column_pass};

bool avx512_kernels_run_here() {
  return __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
}

}  // namespace fkdx

#endif
