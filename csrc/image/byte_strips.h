// SPDX-License-Identifier: Apache-2.0
// Four rows a strip: a word holds four bytes, which one instruction multiplies by four 8-bit digits and adds
// up. A variant includes this in place of vector_passes.h, when it has also said
//
//   Four                                a vector of four 32-bit words
//   digits_of(weights)                  the digits of four weights: the lowest kDigits bytes of each word
//   kWindow                             bytes that a narrow pick looks at, half as many as a wide one
//   pick<kWide>(source, indices)        source[indices[i]] for every byte i of a vector

constexpr int kRows = 4;
constexpr int kDigitBits = 8;

inline Words merged(const Words* sums) {
  Words words = sums[0] >> kWeightBits;
  words |= (sums[1] >> (kWeightBits - 8)) & 0xFF00;
  words |= (sums[2] >> (kWeightBits - 16)) & 0xFF0000;
  return words | ((sums[3] << (24 - kWeightBits)) & 0xFF000000);
}

#include "image/vector_passes.h"

// Word d holds the d-th highest digits of four weights.
void pack_weights(const int32_t* weights, int32_t* words) {
  typedef uint8_t Bytes __attribute__((vector_size(16)));
  Four four;
  std::memcpy(&four, weights, sizeof(four));
  Bytes order{};
  for (int d = 0; d < kDigits; ++d) {
    for (int t = 0; t < 4; ++t) order[4 * d + t] = static_cast<uint8_t>(4 * t + kDigits - 1 - d);
  }
  const Bytes turned = __builtin_shuffle(reinterpret_cast<Bytes>(digits_of(four)), order);
  std::memcpy(words, &turned, 4 * kDigits);
}

// Where each column of a group finds its first four source pixels. False: too far apart for a wide pick.
bool fill_shuffle(const Taps& taps, int g, RowTable* table) {
  const int columns = 3 * taps.outputs();
  const int first = g * kLanes / 3;
  const int last = std::min(g * kLanes + kLanes - 1, columns - 1) / 3;
  const int low = std::min(taps.first[first], taps.first[last]);
  const int high = std::max(taps.first[first], taps.first[last]);
  const int reach = 3 * (high - low + 4);
  if (reach > 2 * kWindow) return false;
  table->wide |= reach > kWindow;
  table->offsets.data()[g] = 3 * low;
  auto* shuffle = reinterpret_cast<Words*>(table->shuffles.data() + g * kVectorBytes);
  for (int lane = 0; lane < kLanes; ++lane) {
    const int column = std::min(g * kLanes + lane, columns - 1);
    const uint32_t shift = 3 * (taps.first[column / 3] - low) + column % 3;
    (*shuffle)[lane] = shift * 0x01010101 + 0x09060300;  // bytes shift, shift + 3, ...
  }
  return true;
}

bool fill_table(const Taps& taps, RowTable* table) {
  table->groups = (3 * taps.outputs() + kLanes - 1) / kLanes;
  table->steps = (taps.width + 3) / 4;
  table->offsets.reserve(table->groups);
  table->shuffles.reserve(size_t(table->groups) * kVectorBytes);
  table->wide = false;
  for (int g = 0; g < table->groups; ++g) {
    if (!fill_shuffle(taps, g, table)) return false;
  }
  int32_t* weights = table->weights.reserve(size_t(table->groups) * table->steps * kDigits * kLanes);
  for (int x = 0; x < taps.outputs(); ++x) {
    for (int s = 0; s < table->steps; ++s) {
      int32_t words[kDigits];
      pack_weights(taps.of(x) + 4 * s, words);
      for (int column = 3 * x; column < 3 * x + 3; ++column) {
        int32_t* group = weights + (size_t(column / kLanes) * table->steps + s) * kDigits * kLanes;
        for (int d = 0; d < kDigits; ++d) group[d * kLanes + column % kLanes] = words[d];
      }
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
