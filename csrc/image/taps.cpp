// SPDX-License-Identifier: Apache-2.0
#include "image/taps.h"

#include <algorithm>
#include <cmath>

namespace fkdx {
namespace {

double support_of(Interpolation interpolation) {
  return interpolation == Interpolation::kBilinear ? 1.0 : 2.0;
}

double filter_at(Interpolation interpolation, double x) {
  x = std::fabs(x);
  if (interpolation == Interpolation::kBilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double kA = -0.5;  // Keys' cubic
  if (x < 1.0) return ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * kA;
  return 0.0;
}

int32_t to_fixed(double weight) {
  return static_cast<int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << kWeightBits));
}

void copy_taps(const Axis& axis, Taps* taps) {
  taps->width = 1;
  taps->weights.assign(axis.count * taps->stride(), 0);
  taps->first.resize(axis.count);
  for (int i = 0; i < axis.count; ++i) {
    taps->first[i] = axis.begin + i;
    taps->weights[i * taps->stride() + Taps::kZeros] = 1 << kWeightBits;
  }
}

}  // namespace

void make_taps(const Axis& axis, Interpolation interpolation, Taps* taps) {
  if (axis.in == axis.out) return copy_taps(axis, taps);
  const double scale = static_cast<double>(axis.in) / axis.out;
  const double stretch = std::max(scale, 1.0);
  const double support = support_of(interpolation) * stretch;
  const double inverse = 1.0 / stretch;
  std::vector<Span> spans(axis.count);
  int width = 0;
  for (int i = 0; i < axis.count; ++i) {
    const double centre = (axis.begin + i + 0.5) * scale;
    spans[i] = {std::max(static_cast<int>(centre - support + 0.5), 0),
                std::min(static_cast<int>(centre + support + 0.5), axis.in)};
    width = std::max(width, spans[i].end - spans[i].begin);
  }
  taps->width = width;
  taps->first.resize(axis.count);
  taps->weights.assign(axis.count * taps->stride(), 0);
  std::vector<double> values(width);
  for (int i = 0; i < axis.count; ++i) {
    const double centre = (axis.begin + i + 0.5) * scale;
    const auto [begin, end] = spans[i];
    double sum = 0.0;
    for (int x = begin; x < end; ++x) {
      values[x - begin] = filter_at(interpolation, (x - centre + 0.5) * inverse);
      sum += values[x - begin];
    }
    const int first = std::min(begin, axis.in - width);  // so that no output reads behind the source
    taps->first[i] = first;
    int32_t* weights = &taps->weights[i * taps->stride() + Taps::kZeros + (begin - first)];
    for (int x = 0; x < end - begin; ++x) weights[x] = to_fixed(sum != 0.0 ? values[x] / sum : values[x]);
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
