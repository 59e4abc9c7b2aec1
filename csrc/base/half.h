// SPDX-License-Identifier: Apache-2.0
// float16 <-> float32, as numpy does it: round half to even, subnormals kept.
#pragma once

#include <cstdint>
#include <cstring>

namespace fkdx {

inline uint32_t bits_of(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return bits;
}

inline float float_of(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, 4);
  return x;
}

inline float half_to_float(uint16_t half) {
  const uint32_t sign = uint32_t{half & 0x8000u} << 16;
  const uint32_t rest = half & 0x7FFFu;
  if (rest >= 0x7C00) return float_of(sign | 0x7F800000 | (rest & 0x3FF) << 13);
  // A float with the same bits is 2^112 times too small; the product is exact, also for subnormals.
  return float_of(sign | bits_of(float_of(rest << 13) * 0x1p112f));
}

inline uint16_t float_to_half(float x) {
  const uint32_t bits = bits_of(x);
  const uint16_t sign = static_cast<uint16_t>(bits >> 16 & 0x8000);
  const uint32_t rest = bits & 0x7FFFFFFF;
  if (rest > 0x7F800000) return sign | 0x7E00;   // NaN
  if (rest >= 0x477FF000) return sign | 0x7C00;  // rounds to infinity
  if (rest < 0x38800000) {
    // Subnormal: adding 0.5 puts the float's own rounding at bit 2^-24.
    return sign | static_cast<uint16_t>(bits_of(float_of(rest) + 0.5f) - bits_of(0.5f));
  }
  return sign | static_cast<uint16_t>((rest - 0x38000000 + 0xFFF + (rest >> 13 & 1)) >> 13);
}

}  // namespace fkdx
