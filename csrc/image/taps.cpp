// SPDX-License-Identifier: Apache-2.0
#include "image/taps.h"

#include <algorithm>

namespace fkdx {

void Taps::resize(int outputs, int new_width) {
  width = new_width;
  first.resize(outputs);
  weights.assign(outputs * stride(), 0);
}

void Taps::trim(int outputs, int in) {
  first.resize(outputs);
  const int last = in - width;
  for (int i = outputs - 1; i >= 0 && first[i] > last; --i) {
    int32_t* row = &weights[i * stride() + kZeros];
    std::rotate(row, row + width - (first[i] - last), row + width);
    first[i] = last;
  }
}

void copy_taps(const Axis& axis, Taps* taps) {
  taps->resize(axis.count, 1);
  for (int i = 0; i < axis.count; ++i) {
    taps->first[i] = axis.begin + i;
    taps->weights[i * taps->stride() + Taps::kZeros] = 1 << kWeightBits;
  }
}

void reverse(Taps* taps) {
  std::reverse(taps->first.begin(), taps->first.end());
  for (int i = 0, j = taps->outputs() - 1; i < j; ++i, --j) {
    const auto row = [taps](int output) { return taps->weights.begin() + output * taps->stride(); };
    std::swap_ranges(row(i), row(i + 1), row(j));
  }
}

Span source_span(const Taps& taps) {
  const auto [low, high] = std::minmax_element(taps.first.begin(), taps.first.end());
  return {*low, *high + taps.width};
}

}  // namespace fkdx
