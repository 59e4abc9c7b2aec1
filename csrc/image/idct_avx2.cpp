// SPDX-License-Identifier: Apache-2.0
// After simd/x86_64/jidctint-avx2.asm of libjpeg-turbo (Pierre Ossman, D. R. Commander, Matthias Raencker;
// see licenses/libjpeg-turbo-simd-zlib.txt), altered: intrinsics, and coefficients are cleared. A vector
// holds two rows of eight 16-bit values, and data3_2 means row 3 in its lower half, row 2 in its upper one.
#if defined(__x86_64__)

#include <immintrin.h>

#include "base/target.h"
#include "image/idct.h"
#include "image/idct_constants.h"

FKDX_BEGIN_TARGET("avx2")

namespace fkdx {
namespace {

using namespace idct_constants;

#include "image/idct_rows.h"

__m256i swap_halves(__m256i a) { return _mm256_permute2x128_si256(a, a, 0x01); }

// Sums of products of neighbours: with (a, b) in the lower half of the results, with (c, d) in the upper one.
template <int a, int b, int c, int d>
__m256i multiply(__m256i pairs) {
  const auto word = [](int low, int high) { return static_cast<int>((low & 0xFFFF) | unsigned(high) << 16); };
  const int lower = word(a, b), upper = word(c, d);
  return _mm256_madd_epi16(pairs, _mm256_setr_epi32(lower, lower, lower, lower, upper, upper, upper, upper));
}

// Eight 32-bit values of two rows: of columns 0 to 3 and 4 to 7.
struct Wide {
  __m256i low, high;
};

Wide operator+(Wide a, Wide b) { return {_mm256_add_epi32(a.low, b.low), _mm256_add_epi32(a.high, b.high)}; }
Wide operator-(Wide a, Wide b) { return {_mm256_sub_epi32(a.low, b.low), _mm256_sub_epi32(a.high, b.high)}; }
Wide swap_halves(Wide a) { return {swap_halves(a.low), swap_halves(a.high)}; }
Wide interleave(__m256i a, __m256i b) { return {_mm256_unpacklo_epi16(a, b), _mm256_unpackhi_epi16(a, b)}; }

template <int a, int b, int c, int d>
Wide multiply(Wide pairs) {
  return {multiply<a, b, c, d>(pairs.low), multiply<a, b, c, d>(pairs.high)};
}

template <int kBits>
__m256i descale(Wide a) {
  const __m256i half = _mm256_set1_epi32(1 << (kBits - 1));
  return _mm256_packs_epi32(_mm256_srai_epi32(_mm256_add_epi32(a.low, half), kBits),
                            _mm256_srai_epi32(_mm256_add_epi32(a.high, half), kBits));
}

// Four vectors of a block.
struct Rows {
  __m256i a, b, c, d;
};

// in0_4, in3_1, in2_6, in7_5 -> data0_1, data3_2, data4_5, data7_6.
template <int kBits>
Rows transform(Rows in) {
  const Wide even = multiply<k0_541 + k0_765, k0_541, k0_541 - k1_847, k0_541>(
      interleave(in.c, swap_halves(in.c)));  // tmp3_2
  const __m256i signs = _mm256_setr_epi32(0x10001, 0x10001, 0x10001, 0x10001, -1, -1, -1, -1);
  const __m256i sums = _mm256_add_epi16(swap_halves(in.a), _mm256_sign_epi16(in.a, signs));
  const Wide shifted = interleave(_mm256_setzero_si256(), sums);
  const Wide tmp0_1{_mm256_srai_epi32(shifted.low, 16 - kConstantBits),
                    _mm256_srai_epi32(shifted.high, 16 - kConstantBits)};
  const Wide tmp13_12 = tmp0_1 - even, tmp10_11 = tmp0_1 + even;

  const __m256i z3_4 = _mm256_add_epi16(in.d, in.b);
  const Wide z =
      multiply<k1_175 - k1_961, k1_175, k1_175 - k0_390, k1_175>(interleave(z3_4, swap_halves(z3_4)));
  const Wide in71_53 = interleave(in.d, swap_halves(in.b));
  const Wide odd0_1 = multiply<k0_298 - k0_899, -k0_899, k2_053 - k2_562, -k2_562>(in71_53) + z;
  const Wide odd3_2 = multiply<-k0_899, k1_501 - k0_899, -k2_562, k3_072 - k2_562>(in71_53) + swap_halves(z);

  return {descale<kBits>(tmp10_11 + odd3_2), descale<kBits>(tmp13_12 + odd0_1),
          descale<kBits>(tmp13_12 - odd0_1), descale<kBits>(tmp10_11 - odd3_2)};
}

// data0_1, data3_2, data4_5, data7_6 -> data0_4, data1_5, data2_6, data3_7, rows and columns exchanged.
Rows transpose(Rows in) {
  const __m256i a = _mm256_permute4x64_epi64(in.a, 0xD8), b = _mm256_permute4x64_epi64(in.b, 0x72);
  const __m256i c = _mm256_permute4x64_epi64(in.c, 0xD8), d = _mm256_permute4x64_epi64(in.d, 0x72);
  const Wide ab = interleave(a, b), cd = interleave(c, d);
  const Wide left = interleave(ab.low, ab.high), right = interleave(cd.low, cd.high);
  return {_mm256_unpacklo_epi64(left.low, right.low), _mm256_unpackhi_epi64(left.low, right.low),
          _mm256_unpacklo_epi64(left.high, right.high), _mm256_unpackhi_epi64(left.high, right.high)};
}

// The first pass where all but the first row are zero. libjpeg-turbo does not saturate there either.
Rows spread(__m256i row0) {
  const __m128i row = _mm_slli_epi16(_mm256_castsi256_si128(row0), kPass1Bits);
  const __m256i twice = _mm256_setr_m128i(_mm_unpacklo_epi16(row, row), _mm_unpackhi_epi16(row, row));
  return {_mm256_shuffle_epi32(twice, 0x00), _mm256_shuffle_epi32(twice, 0x55),
          _mm256_shuffle_epi32(twice, 0xAA), _mm256_shuffle_epi32(twice, 0xFF)};
}

}  // namespace

void idct_avx2(int16_t* coefficients, const uint16_t* quantisation, uint8_t* const* rows, size_t column) {
  auto* in = reinterpret_cast<__m256i*>(coefficients);
  const auto* table = reinterpret_cast<const __m256i*>(quantisation);
  const __m256i in0_1 = _mm256_load_si256(in), in2_3 = _mm256_load_si256(in + 1);
  const __m256i in4_5 = _mm256_load_si256(in + 2), in6_7 = _mm256_load_si256(in + 3);
  for (int i = 0; i < 4; ++i) _mm256_store_si256(in + i, _mm256_setzero_si256());
  const __m256i in1 = _mm256_permute2x128_si256(in0_1, in0_1, 0x81);
  const __m256i ac = _mm256_or_si256(_mm256_or_si256(in1, in2_3), _mm256_or_si256(in4_5, in6_7));
  const __m256i row0_1 = _mm256_mullo_epi16(in0_1, _mm256_lddqu_si256(table));
  Rows data;
  if (_mm256_testz_si256(ac, ac)) {
    data = spread(row0_1);
  } else {
    const __m256i row2_3 = _mm256_mullo_epi16(in2_3, _mm256_lddqu_si256(table + 1));
    const __m256i row4_5 = _mm256_mullo_epi16(in4_5, _mm256_lddqu_si256(table + 2));
    const __m256i row6_7 = _mm256_mullo_epi16(in6_7, _mm256_lddqu_si256(table + 3));
    data = transpose(transform<kConstantBits - kPass1Bits>({
        _mm256_permute2x128_si256(row0_1, row4_5, 0x20),
        _mm256_permute2x128_si256(row2_3, row0_1, 0x31),
        _mm256_permute2x128_si256(row2_3, row6_7, 0x20),
        _mm256_permute2x128_si256(row6_7, row4_5, 0x31),
    }));
  }
  data = transpose(transform<kConstantBits + kPass1Bits + 3>({
      data.a,
      _mm256_permute2x128_si256(data.d, data.b, 0x20),
      data.c,
      _mm256_permute2x128_si256(data.d, data.b, 0x31),
  }));
  const __m256i middle = _mm256_set1_epi8(-128);
  const __m256i rows01_45 = _mm256_add_epi8(_mm256_packs_epi16(data.a, data.b), middle);
  const __m256i rows23_67 = _mm256_add_epi8(_mm256_packs_epi16(data.c, data.d), middle);
  store_rows({_mm256_castsi256_si128(rows01_45), _mm256_castsi256_si128(rows23_67),
              _mm256_extracti128_si256(rows01_45, 1), _mm256_extracti128_si256(rows23_67, 1)},
             rows, column);
}

}  // namespace fkdx

FKDX_END_TARGET

#endif
