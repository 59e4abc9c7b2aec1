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

// Byte b of the result is byte at(b) of the digits of four weights.
template <typename At>
Four digits_in_order(const int32_t* weights, At at) {
  Four four;
  std::memcpy(&four, weights, sizeof(four));
  Bytes order{};
  for (int b = 0; b < 16; ++b) order[b] = static_cast<uint8_t>(at(b));
  return reinterpret_cast<Four>(shuffled(reinterpret_cast<Bytes>(digits_of(four)), order));
}

// Word d holds the d-th highest digits of four weights.
void pack_weights(const int32_t* weights, int32_t* words) {
  const auto at = [](int b) { return b % 4 * 4 + (kDigits - 1 - b / 4) % 4; };
  const Four digits = digits_in_order(weights, at);
  std::memcpy(words, &digits, 4 * kDigits);
}

// Row i of by_column, [kCount, stride], becomes four_of(x, i) at the three columns of each pixel x. Four
// words are written, the last of which the next pixel overwrites. Columns behind the last pixel repeat it.
template <int kCount, typename FourOf>
void spread(int outputs, FourOf four_of, uint32_t* by_column, size_t stride) {
  for (int x = 0; x < outputs; ++x) {
    for (int i = 0; i < kCount; ++i) {
      const Four four = four_of(x, i);
      std::memcpy(by_column + i * stride + 3 * x, &four, sizeof(four));
    }
  }
  for (int i = 0; i < kCount; ++i) {
    uint32_t* row = by_column + i * stride;
    for (int c = 3 * outputs; c % kLanes != 0; ++c) row[c] = row[c - 3];
  }
}

// Where each column of a group finds its first four source bytes, given where the first one lies. False: too
// far apart for a wide pick.
bool fill_shuffle(const uint32_t* starts, int g, RowTable* table) {
  const auto [low, high] = std::minmax({starts[0] / 3 * 3, starts[kLanes - 1] / 3 * 3});  // of whole pixels
  const uint32_t reach = high - low + 12;
  if (reach > 2 * kWindow) return false;
  table->wide |= reach > kWindow;
  table->offsets.data()[g] = static_cast<int32_t>(low);
  const Words shifts = *reinterpret_cast<const Words*>(starts) - low;
  auto* shuffle = reinterpret_cast<Words*>(table->shuffles.data() + g * kVectorBytes);
  *shuffle = shifts * 0x01010101 + 0x09060300;  // bytes shift, shift + 3, ...
  return true;
}

bool fill_table(const Taps& taps, RowTable* table) {
  const int outputs = taps.outputs();
  const int groups = table->groups = (3 * outputs + kLanes - 1) / kLanes;
  const int steps = table->steps = (taps.width + 3) / 4;
  table->offsets.reserve(groups);
  table->shuffles.reserve(size_t(groups) * kVectorBytes);
  table->wide = false;
  const size_t stride = size_t(groups + 1) * kLanes;
  uint32_t* by_column = table->by_column.reserve(kDigits * stride);
  const auto start_of = [first = taps.first.data()](int x, int) { return Four{0, 1, 2, 0} + 3u * first[x]; };
  spread<1>(outputs, start_of, by_column, stride);
  for (int g = 0; g < groups; ++g) {
    if (!fill_shuffle(by_column + g * kLanes, g, table)) return false;
  }
  auto* weights = reinterpret_cast<Words*>(table->weights.reserve(size_t(groups) * steps * kDigits * kLanes));
  for (int s = 0; s < steps; ++s) {
    const auto digits_at = [from = taps.of(0) + 4 * s, stride = taps.stride()](int x, int d) {
      return digits_in_order(from + x * stride, [d](int b) { return b % 4 * 4 + kDigits - 1 - d; });
    };
    spread<kDigits>(outputs, digits_at, by_column, stride);
    for (int i = 0; i < groups * kDigits; ++i) {
      const int g = i / kDigits, d = i % kDigits;
      weights[(size_t(g) * steps + s) * kDigits + d] =
          reinterpret_cast<const Words*>(by_column + d * stride)[g];
    }
  }
  return true;
}

// As many columns as a vector has words.
template <bool kWide>
class Window {
 public:
  Window(const int32_t* offsets, const uint8_t* shuffles, int g)
      : offset_(offsets[g]), shuffle_(*reinterpret_cast<const Words*>(shuffles + g * kVectorBytes)) {}

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
