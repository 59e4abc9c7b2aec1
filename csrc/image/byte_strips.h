// SPDX-License-Identifier: Apache-2.0
// Four rows a strip: a word holds four bytes, which one instruction multiplies by four 8-bit digits and adds
// up. A variant includes this in place of vector_passes.h, when it has also said
//
//   Four                                a vector of four 32-bit words
//   digits_of(weights)                  the digits of four weights: the lowest kDigits bytes of each word
//   Bytes, shuffled(bytes, order)       a vector of 16 bytes; bytes[order[i]] for each of them
//   kWindow                             bytes that a narrow pick looks at, half as many as a wide one
//   pick<kWide>(source, indices)        source[indices[i]] for every byte i of a vector

constexpr int kRows = 4;
constexpr int kDigitBits = 8;

#include "image/vector_passes.h"

// Word d holds the d-th highest digits of four weights.
Four packed_digits(const int32_t* weights) {
  Four four;
  std::memcpy(&four, weights, sizeof(four));
  Bytes order{};
  for (int b = 0; b < 4 * kDigits; ++b) order[b] = static_cast<uint8_t>(b % 4 * 4 + kDigits - 1 - b / 4);
  return reinterpret_cast<Four>(shuffled(reinterpret_cast<Bytes>(digits_of(four)), order));
}

constexpr int kWindowLanes = kLanes;
constexpr int kWidestWindow = 2 * kWindow;
constexpr uint32_t kNextShuffle = 0x01010101, kFirstShuffle = 0x09060300;  // bytes 0, 3, 6 and 9

#include "image/row_windows.h"

// As many columns as a vector has words.
template <bool kWide>
class Window {
 public:
  Window(const int32_t* offsets, const uint32_t* shuffles, int g)
      : offset_(offsets[g]), shuffle_(*reinterpret_cast<const Words*>(shuffles + g * kLanes)) {}

  Words pixels(const uint8_t* row, int step) const {
    return pick<kWide>(row + offset_ + 12 * step, shuffle_);
  }

  uint32_t* put(uint32_t* strip, Words words) const {
    *reinterpret_cast<Words*>(strip) = words;
    return strip + kLanes;
  }

 private:
  int offset_;
  Words shuffle_;
};

void row_pass(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  table.wide ? row_pass_by<Window<true>>(rows, table, strip) : row_pass_by<Window<false>>(rows, table, strip);
}
