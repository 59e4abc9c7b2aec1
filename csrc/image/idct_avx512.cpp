// SPDX-License-Identifier: Apache-2.0
// The sums of idct_avx2.cpp, two rows of eight 32-bit values a vector. What the next step multiplies is
// picked from wherever the last one has left it, so that nothing is ever transposed.
#if defined(__x86_64__)

#include <immintrin.h>

#include "base/target.h"
#include "image/idct.h"
#include "image/idct_constants.h"

FKDX_BEGIN_TARGET("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi,avx512vnni")

namespace fkdx {
namespace {

using namespace idct_constants;

#include "image/idct_rows.h"

// Which of 64 values, in two vectors, go where.
struct Picks {
  alignas(64) uint16_t at[32];
};

// Where the first pass finds row `row` of column `column`.
constexpr int as_stored(int row, int column) { return 8 * row + column; }

// Where a pass leaves them: descaled() rows 0, 1 and 3, 2, then 4, 5 and 7, 6.
constexpr int as_packed(int row, int column) {
  const int pair = row / 2;  // rows of odd pairs are the second operand, and in turned order
  const int half = pair % 2 ? 1 - row % 2 : row % 2;
  return 32 * (row / 4) + 8 * (2 * half + column / 4) + 4 * (pair % 2) + column % 4;
}

// Four groups of eight: groups[i] is the row whose columns they are.
template <typename Place>
constexpr Picks rows_of(Place place, int a, int b, int c, int d) {
  const int rows[4] = {a, b, c, d};
  Picks picks{};
  for (int i = 0; i < 32; ++i) picks.at[i] = static_cast<uint16_t>(place(rows[i / 8], i % 8));
  return picks;
}

// Two halves of eight pairs each.
template <typename Place>
constexpr Picks pairs_of(Place place, int a, int b, int c, int d) {
  const int rows[4] = {a, b, c, d};
  Picks picks{};
  for (int i = 0; i < 32; ++i) {
    picks.at[i] = static_cast<uint16_t>(place(rows[i / 16 * 2 + i % 2], i / 2 % 8));
  }
  return picks;
}

// What a pass picks of its input.
struct Input {
  Picks in0_0_7_5, in4_4_3_1, in26_26, in71_53;
};

template <typename Place>
constexpr Input input_at(Place place) {
  return {rows_of(place, 0, 0, 7, 5), rows_of(place, 4, 4, 3, 1), pairs_of(place, 2, 6, 2, 6),
          pairs_of(place, 7, 1, 5, 3)};
}

// The second pass takes columns for rows.
constexpr Input kFirst = input_at(as_stored);
constexpr Input kSecond = input_at([](int row, int column) { return as_packed(column, row); });
constexpr Picks kZ34 = pairs_of(as_stored, 2, 3, 2, 3);
constexpr Picks kTwice = pairs_of([](int half, int i) { return 8 * half + i; }, 0, 0, 1, 1);
constexpr Picks kSpread = rows_of([](int first, int i) { return first + i % 4; }, 0, 4, 0, 4);

// Of rows of sums: the higher halves of the first four values of every column, one column behind the other.
constexpr Picks kHighHalves = [] {
  constexpr int kRows[4] = {0, 8, 24, 16};  // as Sums has them
  Picks picks{};
  for (int i = 0; i < 32; ++i) picks.at[i] = static_cast<uint16_t>(2 * (kRows[i % 4] + i / 4) + 1);
  return picks;
}();

__m512i load(const void* from) { return _mm512_load_si512(from); }

struct Block {
  __m512i low, high;

  __m512i pick(const Picks& picks) const { return _mm512_permutex2var_epi16(low, load(picks.at), high); }
};

// Pairs of factors, of the lower and the upper half of a vector. They lie in memory: gcc would make them anew
// for every block, with four instructions each.
struct Factors {
  alignas(64) int16_t at[32];

  constexpr Factors(int a, int b, int c, int d) : at() {
    const int pairs[4] = {a, b, c, d};
    for (int i = 0; i < 32; ++i) at[i] = static_cast<int16_t>(pairs[i / 16 * 2 + i % 2]);
  }
};
constexpr Factors kFirstOnly{1 << kConstantBits, 0, 1 << kConstantBits, 0};
constexpr Factors kEven{k0_541 + k0_765, k0_541, k0_541, k0_541 - k1_847};
constexpr Factors kMinusEven{-k0_541 - k0_765, -k0_541, -k0_541, k1_847 - k0_541};
constexpr Factors kZ{k1_175 - k1_961, k1_175, k1_175, k1_175 - k0_390};
constexpr Factors kOdd0_1{k0_298 - k0_899, -k0_899, k2_053 - k2_562, -k2_562};
constexpr Factors kOdd3_2{-k0_899, k1_501 - k0_899, -k2_562, k3_072 - k2_562};

template <typename T>
struct Repeated {
  alignas(64) T at[64 / sizeof(T)];

  constexpr explicit Repeated(T value) : at() {
    for (T& x : at) x = value;
  }
};
template <int kBits>
constexpr Repeated<int32_t> kHalf{1 << (kBits - 1)};
constexpr Repeated<uint8_t> kMiddle{128};

// Two rows each of eight 32-bit values.
struct Sums {
  __m512i rows01, rows32, rows45, rows76;
};

// The sums that come out have yet to be shifted right by kBits.
template <int kBits>
Sums transform(const Block& in, const Input& input) {
  const __m512i a = in.pick(input.in0_0_7_5), b = in.pick(input.in4_4_3_1);
  const __m512i sums =
      _mm512_mask_sub_epi16(_mm512_add_epi16(a, b), 0xFF00, a, b);  // in0 + 4, in0 - 4, z3, z4
  const __m512i tmp0_1 = _mm512_dpwssd_epi32(
      load(kHalf<kBits>.at), _mm512_permutexvar_epi16(load(kTwice.at), sums), load(kFirstOnly.at));
  const __m512i in26_26 = in.pick(input.in26_26);
  const __m512i tmp10_11 = _mm512_dpwssd_epi32(tmp0_1, in26_26, load(kEven.at));
  const __m512i tmp13_12 = _mm512_dpwssd_epi32(tmp0_1, in26_26, load(kMinusEven.at));

  const __m512i z3_4 = _mm512_madd_epi16(_mm512_permutexvar_epi16(load(kZ34.at), sums), load(kZ.at));
  const __m512i z4_3 = _mm512_shuffle_i64x2(z3_4, z3_4, 0x4E);
  const __m512i in71_53 = in.pick(input.in71_53);
  const __m512i odd0_1 = _mm512_dpwssd_epi32(z3_4, in71_53, load(kOdd0_1.at));
  const __m512i odd3_2 = _mm512_dpwssd_epi32(z4_3, in71_53, load(kOdd3_2.at));

  return {_mm512_add_epi32(tmp10_11, odd3_2), _mm512_add_epi32(tmp13_12, odd0_1),
          _mm512_sub_epi32(tmp13_12, odd0_1), _mm512_sub_epi32(tmp10_11, odd3_2)};
}

template <int kBits>
__m512i descaled(__m512i low, __m512i high) {
  return _mm512_packs_epi32(_mm512_srai_epi32(low, kBits), _mm512_srai_epi32(high, kBits));
}

// The same for sums that fit 16 bits once they are shifted.
template <int kBits>
__m512i high_halves(__m512i low, __m512i high) {
  return _mm512_srai_epi16(_mm512_permutex2var_epi16(low, load(kHighHalves.at), high), kBits - 16);
}

void idct(int16_t* coefficients, const uint16_t* quantisation, uint8_t* const* rows, size_t column) {
  Block block{load(coefficients), load(coefficients + 32)};
  const bool ac = _mm512_test_epi16_mask(block.low, block.low) >> 8 != 0 ||
                  _mm512_test_epi16_mask(block.high, block.high) != 0;
  _mm512_store_si512(coefficients, _mm512_setzero_si512());
  _mm512_store_si512(coefficients + 32, _mm512_setzero_si512());
  block.low = _mm512_mullo_epi16(block.low, _mm512_loadu_si512(quantisation));
  if (ac) {
    block.high = _mm512_mullo_epi16(block.high, _mm512_loadu_si512(quantisation + 32));
    constexpr int kBits = kConstantBits - kPass1Bits;
    const Sums sums = transform<kBits>(block, kFirst);
    block = {descaled<kBits>(sums.rows01, sums.rows32), descaled<kBits>(sums.rows45, sums.rows76)};
  } else {
    const __m512i row = _mm512_slli_epi16(block.low, kPass1Bits);  // saturated nowhere
    block.low = block.high = _mm512_permutexvar_epi16(load(kSpread.at), row);
  }
  constexpr int kBits = kConstantBits + kPass1Bits + 3;
  const Sums sums = transform<kBits>(block, kSecond);
  const __m512i bytes = _mm512_packs_epi16(high_halves<kBits>(sums.rows01, sums.rows32),
                                           high_halves<kBits>(sums.rows45, sums.rows76));
  const __m512i samples = _mm512_xor_si512(_mm512_shuffle_epi32(bytes, _MM_PERM_DBCA), load(kMiddle.at));
  store_rows({_mm512_castsi512_si128(samples), _mm512_extracti32x4_epi32(samples, 1),
              _mm512_extracti32x4_epi32(samples, 2), _mm512_extracti32x4_epi32(samples, 3)},
             rows, column);
}

}  // namespace

FKDX_END_TARGET

Idct idct_avx512() {
  const bool run_here = __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni");
  return run_here ? &idct : nullptr;
}

}  // namespace fkdx

#endif
