// SPDX-License-Identifier: Apache-2.0
// The table of a horizontal pass: columns side by side, each window of kWindowLanes columns picking its
// pixels from source bytes that lie close together. A variant includes this after vector_passes.h and
//
//   packed_digits(weights)              word d holds the d-th highest digits of kRows weights
//   kWindow, kWidestWindow              bytes that a narrow window spans, and a wide one
//   kFirstShuffle                       the bytes that a word picks if its column's first is byte 0
//   kNextShuffle                        what is added to move them all on by one

void pack_weights(const int32_t* weights, int32_t* words) {
  const Four digits = packed_digits(weights);
  std::memcpy(words, &digits, 4 * kDigits);
}

// Row i of by_column, [kCount, stride], becomes words_of(x)[i] at the three columns of each pixel x. Four
// words are written, the last of which the next pixel overwrites. Columns behind the last pixel repeat it.
template <int kCount, typename WordsOf>
void spread(int outputs, WordsOf words_of, uint32_t* by_column, size_t stride) {
  for (int x = 0; x < outputs; ++x) {
    const std::array<Four, kCount> words = words_of(x);
    for (int i = 0; i < kCount; ++i) {
      std::memcpy(by_column + i * stride + 3 * x, &words[i], sizeof(Four));
    }
  }
  for (int i = 0; i < kCount; ++i) {
    uint32_t* row = by_column + i * stride;
    for (int c = 3 * outputs; c % kLanes != 0; ++c) row[c] = row[c - 3];
  }
}

// Where windows lie and what their columns pick, given the first source byte of each column. False: columns
// of a window are too far apart.
bool fill_windows(const uint32_t* starts, RowTable* table) {
  const int windows = table->groups * (kLanes / kWindowLanes);
  int32_t* offsets = table->offsets.reserve(windows);
  uint32_t* shuffles = table->shuffles.reserve(size_t(windows) * kWindowLanes);
  table->wide = false;
  for (int w = 0; w < windows; ++w, starts += kWindowLanes, shuffles += kWindowLanes) {
    const auto [low, high] = std::minmax({starts[0] / 3 * 3, starts[kWindowLanes - 1] / 3 * 3});
    const uint32_t reach = high - low + 3 * kRows;
    if (reach > kWidestWindow) return false;
    table->wide |= reach > kWindow;
    offsets[w] = static_cast<int32_t>(low);
    typedef uint32_t Lanes __attribute__((vector_size(4 * kWindowLanes)));
    Lanes lanes;
    std::memcpy(&lanes, starts, sizeof(lanes));
    lanes = (lanes - low) * kNextShuffle + kFirstShuffle;
    std::memcpy(shuffles, &lanes, sizeof(lanes));
  }
  return true;
}

bool fill_table(const Taps& taps, RowTable* table) {
  const int outputs = taps.outputs();
  const int groups = table->groups = (3 * outputs + kLanes - 1) / kLanes;
  const int steps = table->steps = (taps.width + kRows - 1) / kRows;
  const size_t stride = size_t(groups + 1) * kLanes;
  uint32_t* by_column = table->by_column.reserve(kDigits * stride);
  const auto start_of = [first = taps.first.data()](int x) {
    return std::array<Four, 1>{Four{0, 1, 2, 0} + 3u * first[x]};
  };
  spread<1>(outputs, start_of, by_column, stride);
  if (!fill_windows(by_column, table)) return false;
  auto* weights = reinterpret_cast<Words*>(table->weights.reserve(size_t(groups) * steps * kDigits * kLanes));
  for (int s = 0; s < steps; ++s) {
    const auto words_of = [from = taps.of(0) + kRows * s, stride = taps.stride()](int x) {
      const Four digits = packed_digits(from + x * stride);
      std::array<Four, kDigits> everywhere;
      for (int d = 0; d < kDigits; ++d) everywhere[d] = Four{} + digits[d];
      return everywhere;
    };
    spread<kDigits>(outputs, words_of, by_column, stride);
    for (int i = 0; i < groups * kDigits; ++i) {
      const int g = i / kDigits, d = i % kDigits;
      weights[(size_t(g) * steps + s) * kDigits + d] =
          reinterpret_cast<const Words*>(by_column + d * stride)[g];
    }
  }
  return true;
}
