// SPDX-License-Identifier: Apache-2.0
// Bytes by four signed digits of base 256: VNNI.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/target.h"
#include "image/kernels.h"

FKDX_BEGIN_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 64;
typedef uint32_t Words __attribute__((vector_size(kVectorBytes), may_alias));
constexpr int kDigits = 3;
constexpr int kSignDigits = 0;
constexpr int kWindow = 64;

__m512i raw(Words words) { return reinterpret_cast<__m512i>(words); }

Words dot(Words sum, Words pixels, Words weights) {
  return reinterpret_cast<Words>(_mm512_dpbusd_epi32(raw(sum), raw(pixels), raw(weights)));
}

Words within(Words sum, int32_t top) {
  return reinterpret_cast<Words>(
      _mm512_min_epi32(_mm512_max_epi32(raw(sum), _mm512_setzero_si512()), _mm512_set1_epi32(top)));
}

// Every byte of a word becomes the one at bit kWeightBits, of which sums[r] keeps byte r.
Words merged(const Words* sums) {
  const __m512i at = _mm512_set1_epi64(0x0101010101010101 * kWeightBits + 0x2020202000000000);
  __m512i words = _mm512_setzero_si512();
  for (int r = 0; r < 4; ++r) {
    words = _mm512_mask_multishift_epi64_epi8(words, 0x1111111111111111ull << r, at, raw(sums[r]));
  }
  return reinterpret_cast<Words>(words);
}

typedef uint32_t Four __attribute__((vector_size(16)));

// A bias of half a digit makes unsigned digits of signed ones, and its bit turns them back.
Four digits_of(Four weights) { return (weights + 0x808080) ^ 0x808080; }

typedef uint8_t Bytes __attribute__((vector_size(16)));
Bytes shuffled(Bytes bytes, Bytes order) {
  return reinterpret_cast<Bytes>(
      _mm_shuffle_epi8(reinterpret_cast<__m128i>(bytes), reinterpret_cast<__m128i>(order)));
}

template <bool kWide>
Words pick(const uint8_t* source, Words indices) {
  const __m512i low = _mm512_loadu_si512(source);
  if (!kWide) return reinterpret_cast<Words>(_mm512_permutexvar_epi8(raw(indices), low));
  return reinterpret_cast<Words>(
      _mm512_permutex2var_epi8(low, raw(indices), _mm512_loadu_si512(source + kWindow)));
}

// Packing and unpacking stay inside quarters of a vector: this turns quarters and their words round.
__m512i transposed(__m512i words) {
  return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15),
                                  words);
}

void interleave_four(const uint8_t* const* rows, int x, Words* words) {
  const auto row = [&](int r) { return transposed(_mm512_loadu_si512(rows[r] + x)); };
  const __m512i a = row(0), b = row(1), c = row(2), d = row(3);
  const __m512i ab = _mm512_unpacklo_epi8(a, b), cd = _mm512_unpacklo_epi8(c, d);
  const __m512i high_ab = _mm512_unpackhi_epi8(a, b), high_cd = _mm512_unpackhi_epi8(c, d);
  words[0] = reinterpret_cast<Words>(_mm512_unpacklo_epi16(ab, cd));
  words[1] = reinterpret_cast<Words>(_mm512_unpackhi_epi16(ab, cd));
  words[2] = reinterpret_cast<Words>(_mm512_unpacklo_epi16(high_ab, high_cd));
  words[3] = reinterpret_cast<Words>(_mm512_unpackhi_epi16(high_ab, high_cd));
}

__m512i packed(Words low, Words high) {
  return _mm512_packus_epi32(raw(low >> kWeightBits), raw(high >> kWeightBits));
}

__m512i narrowed(const Words* sums) {
  return transposed(_mm512_packus_epi16(packed(sums[0], sums[1]), packed(sums[2], sums[3])));
}

void write(uint8_t* out, __m512i bytes, int count) {
  _mm512_mask_storeu_epi8(out, count == kVectorBytes ? ~0ull : (1ull << count) - 1, bytes);
}

// Bytes `row` of 32 words, then their bytes `row` + 1.
__m512i two_rows(const Words* words, uint32_t row) {
  const Words first = {0, 16, 32, 48, 64, 80, 96, 112, 1, 17, 33, 49, 65, 81, 97, 113};
  const Words at = (first + row) * 0x01010101 + 0x0C080400;
  return _mm512_permutex2var_epi8(raw(words[0]), raw(at), raw(words[1]));
}

void separate_four(const Words* words, uint8_t* const* rows, int x, int count) {
  for (int r = 0; r < 4; r += 2) {
    const __m512i left = two_rows(words, r), right = two_rows(words + 2, r);
    write(rows[r] + x, _mm512_shuffle_i64x2(left, right, 0x44), count);
    write(rows[r + 1] + x, _mm512_shuffle_i64x2(left, right, 0xEE), count);
  }
}

#include "image/byte_strips.h"

typedef double Reals __attribute__((vector_size(kVectorBytes)));
typedef int32_t Ints __attribute__((vector_size(kVectorBytes / 2)));
Ints to_ints(Reals x) { return reinterpret_cast<Ints>(_mm512_cvttpd_epi32(x)); }
Reals to_reals(Ints x) { return _mm512_cvtepi32_pd(reinterpret_cast<__m256i>(x)); }

#include "image/filter_taps.h"

}  // namespace

FKDX_END_TARGET

const Kernels kAvx512Kernels = {kRows,      kDigits,  &kAvx2Kernels, filter_taps, pack_weights,
                                fill_table, row_pass, interleave,    separate,    column_pass};

const Kernels* avx512_kernels() {
  const bool run_here = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
  return run_here ? &kAvx512Kernels : nullptr;
}

}  // namespace fkdx

#endif
