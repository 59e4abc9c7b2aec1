// SPDX-License-Identifier: Apache-2.0
#include "labels/values.h"

#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "base/cpu.h"
#include "base/half.h"

namespace fkdx {
namespace {

// Each loop is compiled twice, once for AVX2: what is inlined into a variant takes its instructions.
#define FKDX_INLINE inline __attribute__((always_inline))
#define FKDX_AVX2_TARGET __attribute__((target("avx2,f16c")))

FKDX_INLINE uint16_t half_at(const uint8_t* from, uint32_t shift) {
  uint32_t word;
  std::memcpy(&word, from, sizeof(word));
  return static_cast<uint16_t>(word >> shift);
}

FKDX_INLINE void codes_loop(const uint8_t* from, uint32_t shift, uint32_t count, float scale, float* out) {
  if (shift == 0) {
    for (uint32_t i = 0; i < count; ++i) out[i] = scale * static_cast<float>(static_cast<int8_t>(from[i]));
    return;
  }
  for (uint32_t i = 0; i < count; ++i) {  // two bytes hold each code
    const auto code = static_cast<uint8_t>(from[i] >> shift | from[i + 1] << (8 - shift));
    out[i] = scale * static_cast<float>(static_cast<int8_t>(code));
  }
}

FKDX_INLINE bool finite_loop(const float* values, uint32_t count) {
  constexpr uint32_t kExponent = 0x7F800000;
  uint32_t wrong = 0;
  for (uint32_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    wrong |= (bits & kExponent) == kExponent;
  }
  return wrong == 0;
}

void halves(const uint8_t* from, uint32_t shift, uint32_t count, float* out) {
  for (uint32_t i = 0; i < count; ++i) out[i] = half_to_float(half_at(from + 2 * i, shift));
}
void codes(const uint8_t* from, uint32_t shift, uint32_t count, float scale, float* out) {
  codes_loop(from, shift, count, scale, out);
}
bool finite(const float* values, uint32_t count) { return finite_loop(values, count); }

#if defined(__x86_64__)
FKDX_AVX2_TARGET void halves_avx2(const uint8_t* from, uint32_t shift, uint32_t count, float* out) {
  const __m128i right = _mm_cvtsi32_si128(static_cast<int>(shift));
  const __m128i left = _mm_cvtsi32_si128(static_cast<int>(16 - shift));  // of 16 leaves nothing
  uint32_t i = 0;
  for (; i + 8 <= count; i += 8) {  // two words hold each half that does not begin at a byte
    const __m128i low = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i));
    const __m128i high = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + 2 * i + 2));
    const __m128i both = _mm_or_si128(_mm_srl_epi16(low, right), _mm_sll_epi16(high, left));
    _mm256_storeu_ps(out + i, _mm256_cvtph_ps(both));
  }
  for (; i < count; ++i) out[i] = _cvtsh_ss(half_at(from + 2 * i, shift));
}
FKDX_AVX2_TARGET void codes_avx2(const uint8_t* from, uint32_t shift, uint32_t count, float scale,
                                 float* out) {
  codes_loop(from, shift, count, scale, out);
}
FKDX_AVX2_TARGET bool finite_avx2(const float* values, uint32_t count) { return finite_loop(values, count); }
#endif

}  // namespace

void decode_halves(const uint8_t* from, uint32_t shift, uint32_t count, float* out) {
  choose(halves, FKDX_ON_X86(halves_avx2), nullptr)(from, shift, count, out);
}

void decode_codes(const uint8_t* from, uint32_t shift, uint32_t count, float scale, float* out) {
  choose(codes, FKDX_ON_X86(codes_avx2), nullptr)(from, shift, count, scale, out);
}

bool all_finite(const float* values, uint32_t count) {
  return choose(finite, FKDX_ON_X86(finite_avx2), nullptr)(values, count);
}

}  // namespace fkdx
