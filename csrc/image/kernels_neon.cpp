// SPDX-License-Identifier: Apache-2.0
// Bytes by four unsigned digits of base 256: the dot product of ARMv8.2. A negative weight is its two's
// complement, of four digits; the others have three.
#if defined(__aarch64__)

#include <arm_neon.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "base/target.h"
#include "image/kernels.h"

FKDX_BEGIN_TARGET("arch=armv8.2-a+dotprod")

namespace fkdx {
namespace {

constexpr int kVectorBytes = 16;
typedef uint32_t Words __attribute__((vector_size(kVectorBytes), may_alias));
constexpr int kDigits = 4;
constexpr int kSignDigits = 1;
constexpr int kWindow = 32;

Words dot(Words sum, Words pixels, Words weights) {
  return reinterpret_cast<Words>(vdotq_u32(reinterpret_cast<uint32x4_t>(sum),
                                           reinterpret_cast<uint8x16_t>(pixels),
                                           reinterpret_cast<uint8x16_t>(weights)));
}

Words within(Words sum, int32_t top) {
  return reinterpret_cast<Words>(
      vminq_s32(vmaxq_s32(reinterpret_cast<int32x4_t>(sum), vdupq_n_s32(0)), vdupq_n_s32(top)));
}

Words merged(const Words* sums) {
  Words words = sums[0] >> kWeightBits;
  words |= (sums[1] >> (kWeightBits - 8)) & 0xFF00;
  words |= (sums[2] >> (kWeightBits - 16)) & 0xFF0000;
  return words | ((sums[3] << (24 - kWeightBits)) & 0xFF000000);
}

typedef uint32_t Four __attribute__((vector_size(16)));
Four digits_of(Four weights) { return weights; }

typedef uint8_t Bytes __attribute__((vector_size(16)));
Bytes shuffled(Bytes bytes, Bytes order) {
  return reinterpret_cast<Bytes>(
      vqtbl1q_u8(reinterpret_cast<uint8x16_t>(bytes), reinterpret_cast<uint8x16_t>(order)));
}

template <bool kWide>
Words pick(const uint8_t* source, Words indices) {
  const uint8x16_t at = reinterpret_cast<uint8x16_t>(indices);
  if (!kWide) return reinterpret_cast<Words>(vqtbl2q_u8(vld1q_u8_x2(source), at));
  return reinterpret_cast<Words>(vqtbl4q_u8(vld1q_u8_x4(source), at));
}

void interleave_four(const uint8_t* const* rows, int x, Words* words) {
  const auto row = [&](int r) { return vld1q_u8(rows[r] + x); };
  const uint8x16x4_t four = {row(0), row(1), row(2), row(3)};  // in clang, vst4q_u8 is a macro
  vst4q_u8(reinterpret_cast<uint8_t*>(words), four);
}

uint8x16_t narrowed(const Words* sums) {
  const auto upper_halves = [](Words low, Words high) {  // of the words: the results and 22 - 16 more bits
    return vuzp2q_u16(reinterpret_cast<uint16x8_t>(low), reinterpret_cast<uint16x8_t>(high));
  };
  return vshrn_high_n_u16(vshrn_n_u16(upper_halves(sums[0], sums[1]), kWeightBits - 16),
                          upper_halves(sums[2], sums[3]), kWeightBits - 16);
}

void write(uint8_t* out, uint8x16_t bytes, int count) {
  if (count == kVectorBytes) return vst1q_u8(out, bytes);
  std::memcpy(out, &bytes, count);
}

void separate_four(const Words* words, uint8_t* const* rows, int x, int count) {
  const uint8x16x4_t bytes = vld4q_u8(reinterpret_cast<const uint8_t*>(words));
  for (int r = 0; r < 4; ++r) write(rows[r] + x, bytes.val[r], count);
}

#include "image/byte_strips.h"

typedef double Reals __attribute__((vector_size(16)));
typedef int32_t Ints __attribute__((vector_size(8)));
Ints to_ints(Reals x) {
  return reinterpret_cast<Ints>(vmovn_s64(vcvtq_s64_f64(reinterpret_cast<float64x2_t>(x))));
}
Reals to_reals(Ints x) {
  return reinterpret_cast<Reals>(vcvtq_f64_s64(vmovl_s32(reinterpret_cast<int32x2_t>(x))));
}

#include "image/filter_taps.h"

}  // namespace

FKDX_END_TARGET

const Kernels kNeonKernels = {kRows,      kDigits,  &kScalarKernels, filter_taps, pack_weights,
                              fill_table, row_pass, interleave,      separate,    column_pass};

}  // namespace fkdx

#endif
