// SPDX-License-Identifier: Apache-2.0
// The passes of a resize by the vector. A variant includes this inside its unnamed namespace after saying
//
//   kVectorBytes, Words                 its vectors, of 32-bit words, one a column
//   kRows, kDigitBits                   rows a strip; bits of a digit
//   kDigits, kSignDigits                digits a weight, highest first; how many of them, at the front, are 0
//                                       unless weights are negative
//   dot(sum, pixels, weights)           a word's kRows values times as many digits, added to the sum
//   within(sum, top)                    the signed sum, at least 0 and at most top
//   merged(sums)                        the results of kRows rows, side by side in each word
//   interleave_four(rows, x, words)     the words of columns x to x + 4 * kLanes of kRows rows of bytes
//   separate_four(words, rows, x, n)    the first n of these columns, written as bytes of kRows rows
//   narrowed(sums)                      the results of 4 vectors of sums as bytes, in the order of columns
//   write(out, bytes, count)            the first `count` of these bytes
//
// With digits of base B = 2^kDigitBits the weighted sum plus the half that rounds is
// (((half + sum0) * B + sum1) * B + ...) modulo 2^32, sum0 that of the highest digits.

constexpr int kLanes = kVectorBytes / 4;  // columns a vector
constexpr uint32_t kHalf = 1u << (kWeightBits - 1 - kDigitBits * (kDigits - 1 - kSignDigits));
constexpr int kMostSteps = 4;  // loops over at most as many steps of a sum are unrolled

// The sum over steps of pixels_at(step) times weights_at(step * kDigits + digit), rounded: the results lie at
// bits kWeightBits and up. It leaves 0..255 only where weights are negative (kClamp). kSteps is 0 for any
// number.
template <int kSteps, bool kClamp, typename PixelsAt, typename WeightsAt>
inline Words weighted_sum(int steps, PixelsAt pixels_at, WeightsAt weights_at) {
  constexpr int kFirst = kClamp ? 0 : kSignDigits;
  Words sum{};
  if constexpr (kSteps > 0) {  // one sum that moves up from digit to digit
    Words pixels[kSteps];
    for (int s = 0; s < kSteps; ++s) pixels[s] = pixels_at(s);
    for (int d = kFirst; d < kDigits; ++d) {
      if (d > kFirst) sum <<= kDigitBits;
      if (d == kSignDigits) sum += kHalf;
      for (int s = 0; s < kSteps; ++s) sum = dot(sum, pixels[s], weights_at(s * kDigits + d));
    }
  } else {  // a sum for each digit, so that pixels are read once
    Words sums[kDigits] = {};
    for (int s = 0; s < steps; ++s) {
      const Words pixels = pixels_at(s);
      for (int d = kFirst; d < kDigits; ++d) sums[d] = dot(sums[d], pixels, weights_at(s * kDigits + d));
    }
    sums[kSignDigits] += kHalf;
    for (int d = kFirst; d < kDigits; ++d) sum = (sum << kDigitBits) + sums[d];
  }
  return kClamp ? within(sum, (1 << (kWeightBits + 8)) - 1) : sum;
}

// A Group is some neighbouring columns:
//   Group(offsets, shuffles, g)         the table's group g
//   pixels(row, step)                   their source pixels
//   put(strip, words)                   stores their results and returns where the next group goes
//
// What loops need is copied to the stack first: the compiler believes that a store may change all the rest.
template <typename Group, int kSteps, bool kClamp>
void row_pass_of(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  const int groups = table.groups;
  const int steps = kSteps > 0 ? kSteps : table.steps;
  const int32_t* offsets = table.offsets.data();
  const uint32_t* shuffles = table.shuffles.data();
  const Words* weights = reinterpret_cast<const Words*>(table.weights.data());
  const uint8_t* sources[kRows];
  std::copy_n(rows, kRows, sources);
  for (int g = 0; g < groups; ++g, weights += steps * kDigits) {
    const Group group(offsets, shuffles, g);
    Words sums[kRows];
    for (int r = 0; r < kRows; ++r) {
      sums[r] = weighted_sum<kSteps, kClamp>(
          steps, [&](int s) { return group.pixels(sources[r], s); }, [&](int i) { return weights[i]; });
    }
    strip = group.put(strip, merged(sums));
  }
}

template <typename Group>
void row_pass_by(const uint8_t* const* rows, const RowTable& table, uint32_t* strip) {
  with_constants<kMostSteps>(table.steps, table.clamp, [&](auto kSteps, auto kClamp) {
    row_pass_of<Group, kSteps, kClamp>(rows, table, strip);
  });
}

void interleave(const uint8_t* const* rows, int columns, uint32_t* strip) {
  for (int x = 0; x < columns; x += 4 * kLanes) interleave_four(rows, x, reinterpret_cast<Words*>(strip + x));
}

void separate(const uint32_t* strip, int columns, uint8_t* const* rows) {
  for (int x = 0; x < columns; x += 4 * kLanes) {
    separate_four(reinterpret_cast<const Words*>(strip + x), rows, x, std::min(columns - x, 4 * kLanes));
  }
}

// kCount is the number of strips, or 0 for any.
template <int kCount, bool kClamp>
void column_pass_of(const uint32_t* const* strips, int count, const int32_t* words, int columns,
                    uint8_t* out) {
  const uint32_t* near_strips[kCount + 1];
  Words near_weights[kCount * kDigits + 1];
  std::copy_n(strips, kCount, near_strips);
  for (int i = 0; i < kCount * kDigits; ++i) near_weights[i] = Words{} + static_cast<uint32_t>(words[i]);
  for (int x = 0; x < columns; x += 4 * kLanes) {
    Words sums[4];
    for (int v = 0; v < 4; ++v) {
      const auto pixels_at = [&](int s) {
        return *reinterpret_cast<const Words*>((kCount > 0 ? near_strips : strips)[s] + x + v * kLanes);
      };
      const auto weights_at = [&](int i) {
        return kCount > 0 ? near_weights[i] : Words{} + static_cast<uint32_t>(words[i]);
      };
      sums[v] = weighted_sum<kCount, kClamp>(count, pixels_at, weights_at);
    }
    write(out + x, narrowed(sums), std::min(columns - x, 4 * kLanes));
  }
}

void column_pass(const uint32_t* const* strips, int count, const int32_t* words, bool clamp, int columns,
                 uint8_t* out) {
  with_constants<kMostSteps>(count, clamp, [&](auto kCount, auto kClamp) {
    column_pass_of<kCount, kClamp>(strips, count, words, columns, out);
  });
}
