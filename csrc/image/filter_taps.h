// SPDX-License-Identifier: Apache-2.0
// Pillow's antialiasing weights, some neighbouring outputs side by side. A variant includes this inside its
// unnamed namespace after saying
//
//   Reals, Ints                         vectors of as many doubles and 32-bit integers
//   to_ints(reals), to_reals(ints)      conversions, the first one towards 0

constexpr int kOutputs = sizeof(Reals) / sizeof(double);

struct Bilinear {
  static constexpr double kSupport = 1.0;
  static Reals at(Reals x) {
    const Reals value = 1.0 - x;
    return value > 0.0 ? value : 0.0;
  }
};

struct Bicubic {
  static constexpr double kSupport = 2.0;
  static Reals at(Reals x) {
    constexpr double kA = -0.5;  // Keys' cubic
    const Reals inner = ((kA + 2.0) * x - (kA + 3.0)) * x * x + 1.0;
    const Reals outer = (((x - 5) * x + 8) * x - 4) * kA;
    return x < 1.0 ? inner : x < 2.0 ? outer : 0.0;
  }
};

// The weights of kOutputs outputs, rows `stride` apart.
template <typename Filter>
void weigh(Reals centre, Ints begin, Ints end, double inverse, int width, Reals* values, int32_t* weights,
           size_t stride) {
  Reals sum{};
  for (int t = 0; t < width; ++t) {
    const Reals x = to_reals(begin + t);
    const Reals distance = (x - centre + 0.5) * inverse;
    const Reals value = Filter::at(distance < 0.0 ? -distance : distance);
    values[t] = x < to_reals(end) ? value : 0.0;
    sum += values[t];
  }
  sum = sum == 0.0 ? 1.0 : sum;
  for (int t = 0; t < width; ++t) {
    const Reals weight = values[t] / sum;
    const Reals half = weight < 0.0 ? Reals{} - 0.5 : Reals{} + 0.5;
    const Ints fixed = to_ints(half + weight * (1 << kWeightBits));
    for (int lane = 0; lane < kOutputs; ++lane) weights[lane * stride + t] = fixed[lane];
  }
}

template <typename Filter>
void filter_taps_by(const Axis& axis, Taps* taps) {
  const double scale = static_cast<double>(axis.in) / axis.out;
  const double stretch = std::max(scale, 1.0);
  const double support = Filter::kSupport * stretch;
  int width = 0;
  for (int i = 0; i < axis.count; ++i) {
    const double centre = (axis.begin + i + 0.5) * scale;
    const int begin = std::max(static_cast<int>(centre - support + 0.5), 0);
    width = std::max(width, std::min(static_cast<int>(centre + support + 0.5), axis.in) - begin);
  }
  taps->resize((axis.count + kOutputs - 1) / kOutputs * kOutputs, width);
  Reals lanes;
  for (int lane = 0; lane < kOutputs; ++lane) lanes[lane] = lane;
  Buffer<Reals> values;
  values.reserve(width);
  for (int i = 0; i < axis.count; i += kOutputs) {
    const Reals centre = (lanes + (axis.begin + i) + 0.5) * scale;
    Ints begin = to_ints(centre - support + 0.5), end = to_ints(centre + support + 0.5);
    begin = begin > 0 ? begin : 0;
    end = end < axis.in ? end : axis.in;
    std::memcpy(&taps->first[i], &begin, sizeof(begin));
    weigh<Filter>(centre, begin, end, 1.0 / stretch, width, values.data(),
                  &taps->weights[i * taps->stride() + Taps::kZeros], taps->stride());
  }
  taps->trim(axis.count, axis.in);
}

void filter_taps(const Axis& axis, Interpolation interpolation, Taps* taps) {
  interpolation == Interpolation::kBilinear ? filter_taps_by<Bilinear>(axis, taps)
                                            : filter_taps_by<Bicubic>(axis, taps);
}
