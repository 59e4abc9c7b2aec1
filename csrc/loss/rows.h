// SPDX-License-Identifier: Apache-2.0
// The loss and gradient of one row. Included by the variants (loss_scalar.cpp, loss_avx2.cpp,
// loss_avx512.cpp) inside an unnamed namespace, after lanes.h.

constexpr int kBlock = 64;  // vectors that are summed in Real before the sum goes on in double

// Calls step(index of the first element, how many of its lanes count, are these all).
template <typename Real, typename Step>
inline void for_lanes(int64_t begin, int64_t end, Step step) {
  int64_t c = begin;
  for (; c + kLanes<Real> <= end; c += kLanes<Real>) step(c, kLanes<Real>, std::true_type{});
  if (c < end) step(c, static_cast<int>(end - c), std::false_type{});
}

template <typename T>
inline const char* at(const void* row, int64_t c) {
  return static_cast<const char*>(row) + c * sizeof(typename T::Stored);
}

template <typename T, typename Whole>
inline Lanes<typename T::Real> load_lanes(const void* row, int64_t c, int n, typename T::Real fill, Whole) {
  if constexpr (Whole::value) return load<T>(at<T>(row, c));
  return load_some<T>(at<T>(row, c), n, fill);
}

template <typename Real, typename Whole>
inline Lanes<Real> keep(Lanes<Real> x, int n, Whole) {
  if constexpr (Whole::value) return x;
  return first<Real>(n) ? x : Lanes<Real>{};
}

template <typename T>
typename T::Real row_max(const void* row, int64_t classes) {
  using Real = typename T::Real;
  const Real start = load_one<T>(row, 0);
  Lanes<Real> best = all(start);
  for_lanes<Real>(0, classes, [&](int64_t c, int n, auto whole) {
    const Lanes<Real> z = load_lanes<T>(row, c, n, start, whole);
    best = z > best ? z : best;
  });
  Real largest = best[0];
  for (int i = 1; i < kLanes<Real>; ++i) largest = best[i] > largest ? best[i] : largest;
  return largest;
}

// Sums over a row of t = (z - max) / temperature, with e = exp(t).
struct ExpSums {
  double ties = 0;    // how many t are 0; these are kept apart so that a loss near 0 keeps its digits
  double others = 0;  // sum of e where t < 0
  double linear = 0;  // sum of t
  double total() const { return ties + others; }
  double log_total() const { return std::log(ties) + std::log1p(others / ties); }
};

// Also writes e to `exps`, if the gradient wants it.
template <typename T, typename Exps>
ExpSums sum_exps(const void* row, int64_t classes, typename T::Real max, typename T::Real inv_temperature,
                 Exps* exps) {
  using Real = typename T::Real;
  ExpSums sums;
  for (int64_t begin = 0; begin < classes; begin += kBlock * kLanes<Real>) {
    const int64_t end = std::min(classes, begin + kBlock * kLanes<Real>);
    Lanes<Real> ties{}, others{}, linear{};
    for_lanes<Real>(begin, end, [&](int64_t c, int n, auto whole) {
      const Lanes<Real> t = (load_lanes<T>(row, c, n, max, whole) - max) * inv_temperature;
      const Lanes<Real> e = exp_lanes(t);
      const Mask<Real> tie = t == Real(0);
      ties += keep<Real>(tie ? all(Real(1)) : Lanes<Real>{}, n, whole);
      others += keep<Real>(tie ? Lanes<Real>{} : e, n, whole);
      linear += keep<Real>(t, n, whole);
      if (exps) std::memcpy(exps + c, &e, n * sizeof(Real));
    });
    sums.ties += sum_lanes<Real>(ties);
    sums.others += sum_lanes<Real>(others);
    sums.linear += sum_lanes<Real>(linear);
  }
  return sums;
}

// A product that is 0 where one factor is: 0 * log 0 = 0.
inline double product(double y, double t) { return y == 0 ? 0 : y * t; }

template <typename T>
void put(void* grad, int64_t c, double x) {
  store_some<T>(static_cast<char*>(grad) + c * sizeof(typename T::Stored),
                all(static_cast<typename T::Real>(x)), 1);
}

template <typename T>
double softmax_sparse(const LossCall& call, const void* z, void* grad, double scale, const RowTarget& target,
                      typename T::Real* exps) {
  using Real = typename T::Real;
  const Real max = row_max<T>(z, call.classes);
  const Real inv_temperature = static_cast<Real>(call.inv_temperature);
  const ExpSums sums = sum_exps<T>(z, call.classes, max, inv_temperature, grad ? exps : nullptr);
  double loss = target.mass * sums.log_total() - product(target.base, sums.linear);
  for (const Entry& entry : target.entries) {
    loss -= product(entry.delta, (load_one<T>(z, entry.id) - max) * inv_temperature);
  }
  if (!grad) return loss;

  const double g = scale * call.inv_temperature;
  const Real slope = static_cast<Real>(g * target.mass / sums.total()),
             floor = static_cast<Real>(g * target.base);
  for_lanes<Real>(0, call.classes, [&](int64_t c, int n, auto whole) {
    const Lanes<Real> e = load_lanes<std::conditional_t<sizeof(Real) == 8, F64, F32>>(exps, c, n, 0, whole);
    store_some<T>(static_cast<char*>(grad) + c * sizeof(typename T::Stored), e * slope - floor, n);
  });
  for (const Entry& entry : target.entries) {
    const double y = target.base + entry.delta;
    const bool only_max = sums.ties == 1 && load_one<T>(z, entry.id) == max;  // p = 1 - others / total
    const double e = only_max ? -sums.others : exps[entry.id];
    const double rest = only_max ? target.mass - y : -y;
    put<T>(grad, entry.id, g * (target.mass * e / sums.total() + rest));
  }
  return loss;
}

// softplus(x) = max(x, 0) + log(1 + exp(-|x|)), sigmoid(x) from the same exponential.
template <typename T>
double sigmoid_row(const LossCall& call, const void* z, void* grad, double scale, double base,
                   const std::vector<Entry>& entries, const typename T::Real* dense) {
  using Real = typename T::Real;
  const Real inv_temperature = static_cast<Real>(call.inv_temperature);
  const double g = scale * call.inv_temperature / call.classes;
  double loss = 0;
  const auto sigmoid = [&](double x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
  };
  for (int64_t begin = 0; begin < call.classes; begin += kBlock * kLanes<Real>) {
    const int64_t end = std::min(call.classes, begin + kBlock * kLanes<Real>);
    Lanes<Real> sum{};
    for_lanes<Real>(begin, end, [&](int64_t c, int n, auto whole) {
      const Lanes<Real> x = load_lanes<T>(z, c, n, 0, whole) * inv_temperature;
      const Lanes<Real> e = exp_lanes(x > Real(0) ? -x : x);
      Lanes<Real> y = all(static_cast<Real>(base));
      if (dense) y = load_lanes<std::conditional_t<sizeof(Real) == 8, F64, F32>>(dense, c, n, 0, whole);
      const Lanes<Real> wrong = x < Real(0) ? y : Real(1) - y;  // max(x, 0) - y x = |x| wrong
      const Lanes<Real> linear = wrong == Real(0) ? Lanes<Real>{} : wrong * (x < Real(0) ? -x : x);
      sum += keep<Real>(linear + log1p_lanes<Real>(e), n, whole);
      if (!grad) return;
      const Lanes<Real> p = (x < Real(0) ? e : all(Real(1))) / (e + Real(1));
      store_some<T>(static_cast<char*>(grad) + c * sizeof(typename T::Stored), (p - y) * static_cast<Real>(g),
                    n);
    });
    loss += sum_lanes<Real>(sum);
  }
  for (const Entry& entry : entries) {
    const double x = double(load_one<T>(z, entry.id)) * call.inv_temperature;
    loss -= product(entry.delta, x);
    if (grad) put<T>(grad, entry.id, g * (sigmoid(x) - base - entry.delta));
  }
  return loss / call.classes;
}

// Softmax against a dense row of probabilities `y`.
template <typename T>
double softmax_dense(const LossCall& call, const void* z, void* grad, double scale, const typename T::Real* y,
                     typename T::Real* exps) {
  using Real = typename T::Real;
  using Plain = std::conditional_t<sizeof(Real) == 8, F64, F32>;
  const Real max = row_max<T>(z, call.classes);
  const Real inv_temperature = static_cast<Real>(call.inv_temperature);
  const ExpSums sums = sum_exps<T>(z, call.classes, max, inv_temperature, exps);
  double mass = 0, dot = 0;
  for (int64_t begin = 0; begin < call.classes; begin += kBlock * kLanes<Real>) {
    const int64_t end = std::min(call.classes, begin + kBlock * kLanes<Real>);
    Lanes<Real> masses{}, dots{};
    for_lanes<Real>(begin, end, [&](int64_t c, int n, auto whole) {
      const Lanes<Real> t = (load_lanes<T>(z, c, n, max, whole) - max) * inv_temperature;
      const Lanes<Real> p = load_lanes<Plain>(y, c, n, 0, whole);
      masses += p;
      dots += p == Real(0) ? Lanes<Real>{} : p * t;
    });
    mass += sum_lanes<Real>(masses);
    dot += sum_lanes<Real>(dots);
  }
  if (grad) {
    const double g = scale * call.inv_temperature;
    const Real slope = static_cast<Real>(mass / sums.total());
    for_lanes<Real>(0, call.classes, [&](int64_t c, int n, auto whole) {
      const Lanes<Real> p = load_lanes<Plain>(exps, c, n, 0, whole) * slope;
      const Lanes<Real> dz = (p - load_lanes<Plain>(y, c, n, 0, whole)) * static_cast<Real>(g);
      store_some<T>(static_cast<char*>(grad) + c * sizeof(typename T::Stored), dz, n);
    });
  }
  return mass * sums.log_total() - dot;
}

// Row `row` of a dense target as probabilities in Real.
template <typename Real>
void read_dense(const LossCall& call, int64_t row, Real* y) {
  const DenseTarget& dense = call.dense;
  for (int64_t c = 0; c < call.classes; ++c) {
    y[c] = static_cast<Real>(load_float(dense.values, dense.type, row * dense.stride + c));
  }
  if (dense.inv_temperature == 0) return;
  using Plain = std::conditional_t<sizeof(Real) == 8, F64, F32>;
  const ExpSums sums = sum_exps<Plain>(y, call.classes, row_max<Plain>(y, call.classes),
                                       static_cast<Real>(dense.inv_temperature), y);
  for (int64_t c = 0; c < call.classes; ++c) y[c] = static_cast<Real>(y[c] / sums.total());
}

template <typename T>
void loss_range(const LossCall& call, int64_t begin, int64_t end) {
  using Real = typename T::Real;
  std::vector<Real> exps(call.classes), dense(call.dense.values ? call.classes : 0);
  RowTarget target;
  for (int64_t b = begin; b < end; ++b) {
    const void* z = at<T>(call.logits, b * call.logits_stride);
    void* grad = call.grad ? static_cast<typename T::Stored*>(call.grad) + b * call.grad_stride : nullptr;
    const double scale =
        call.scale * (call.scales ? static_cast<const Real*>(call.scales)[b * call.scale_stride] : 1);
    double loss;
    if (call.dense.values) {
      read_dense(call, b, dense.data());
      loss = call.link == Link::kSoftmax ? softmax_dense<T>(call, z, grad, scale, dense.data(), exps.data())
                                         : sigmoid_row<T>(call, z, grad, scale, 0, {}, dense.data());
    } else {
      target.read(call, b);
      loss = call.link == Link::kSoftmax
                 ? softmax_sparse<T>(call, z, grad, scale, target, exps.data())
                 : sigmoid_row<T>(call, z, grad, scale, target.base, target.entries, nullptr);
    }
    if (call.loss) static_cast<Real*>(call.loss)[b] = static_cast<Real>(loss);
  }
}

void loss_any_type(const LossCall& call, int64_t begin, int64_t end) {
  switch (call.type) {
    case Float::kF32:
      return loss_range<F32>(call, begin, end);
    case Float::kBf16:
      return loss_range<Bf16>(call, begin, end);
    case Float::kF16:
      return loss_range<F16>(call, begin, end);
    case Float::kF64:
      return loss_range<F64>(call, begin, end);
  }
}

float exp_of(float x) { return exp_lanes(all(x))[0]; }
