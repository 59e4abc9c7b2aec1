// SPDX-License-Identifier: Apache-2.0
// The loss and gradient of one row. Included by the variants (loss_scalar.cpp, loss_avx2.cpp,
// loss_avx512.cpp) inside an unnamed namespace, after lanes.h.

constexpr double kLog2E = 1.4426950408889634;
constexpr int kBlock = 64;  // vectors that are summed in Real before the sum goes on in double

// Which lanes of a vector count, and are there in memory.
struct Whole {};
struct Again {  // all are there; the first n were visited before
  int n;
};
struct Short {  // only the first n are there, and count
  int n;
};

// Calls step(index of the first element, which lanes count).
template <typename Real, typename Step>
inline void for_lanes(int64_t begin, int64_t end, Step step) {
  int64_t c = begin;
  for (; c + kLanes<Real> <= end; c += kLanes<Real>) step(c, Whole{});
  if (c == end) return;
  const int64_t last = end - kLanes<Real>;
  if (last >= 0) {
    step(last, Again{static_cast<int>(c - last)});
  } else {
    step(c, Short{static_cast<int>(end - c)});
  }
}

template <typename T>
inline const void* at(const void* row, int64_t c) {
  return static_cast<const typename T::Stored*>(row) + c;
}

template <typename T, typename Which>
inline Lanes<typename T::Real> load_lanes(const void* row, int64_t c, typename T::Real fill, Which which) {
  if constexpr (std::is_same_v<Which, Short>) return load_some<T>(at<T>(row, c), which.n, fill);
  return load<T>(at<T>(row, c));
}

template <typename T, typename Which>
inline void store_lanes(void* row, int64_t c, Lanes<typename T::Real> x, Which which) {
  int n = kLanes<typename T::Real>;
  if constexpr (std::is_same_v<Which, Short>) n = which.n;
  store_some<T>(const_cast<void*>(at<T>(row, c)), x, n);
}

// x where the lanes count, 0 elsewhere.
template <typename Real, typename Which>
inline Lanes<Real> keep(Lanes<Real> x, Which which) {
  if constexpr (std::is_same_v<Which, Again>) return first<Real>(which.n) ? Lanes<Real>{} : x;
  if constexpr (std::is_same_v<Which, Short>) return first<Real>(which.n) ? x : Lanes<Real>{};
  return x;
}

// Elements of the arithmetic's own type.
template <typename Real>
using Plain = std::conditional_t<sizeof(Real) == 8, F64, F32>;

template <typename T>
typename T::Real row_max(const void* row, int64_t classes) {
  using Real = typename T::Real;
  const Real start = load_one<T>(row, 0);
  Lanes<Real> best = all(start);
  for_lanes<Real>(0, classes, [&](int64_t c, auto which) {
    const Lanes<Real> z = load_lanes<T>(row, c, start, which);
    best = larger(z, best);
  });
  return max_lanes<Real>(best);
}

// Calls block(begin, end) for the blocks of a row.
template <typename Real, typename Block>
inline void for_blocks(int64_t classes, Block block) {
  constexpr int64_t kLength = kBlock * kLanes<Real>;
  for (int64_t c = 0; c < classes; c += kLength) block(c, std::min(classes, c + kLength));
}

// Sums over a row of d = z - max and e = exp(d / temperature).
struct ExpSums {
  double ties = 0;    // how many d are 0; counted only where a loss near 0 needs its digits
  double others = 0;  // sum of the other e
  double linear = 0;  // sum of d
  double total() const { return ties + others; }
  double log_total() const {  // log1p keeps the digits of a small sum, and is slow
    return others < 1 ? std::log(ties) + std::log1p(others / ties) : std::log(total());
  }
};

// Ties and others, from the e of a row: each is 2^y, and what rounding took from y is made good here, where a
// loss near 0 needs it.
template <typename T>
void split_ties(const void* row, int64_t classes, typename T::Real max, double inv_temperature,
                const typename T::Real* exps, ExpSums& sums) {
  using Real = typename T::Real;
  const double exact = inv_temperature * kLog2E;
  const Real per_d = static_cast<Real>(exact), lost = static_cast<Real>(exact - per_d);
  sums.ties = sums.others = 0;
  for_blocks<Real>(classes, [&](int64_t begin, int64_t end) {
    Lanes<Real> ties{}, others{};
    for_lanes<Real>(begin, end, [&](int64_t c, auto which) {
      const Lanes<Real> d = load_lanes<T>(row, c, max, which) - max;
      const Lanes<Real> e = load_lanes<Plain<Real>>(exps, c, 0, which);
      const Lanes<Real> more = fused(d, all(per_d), -(d * per_d)) + d * lost;
      const Lanes<Real> other = e + e * (more * Real(1 / kLog2E));
      ties += keep<Real>(d == Real(0) ? all(Real(1)) : Lanes<Real>{}, which);
      others += keep<Real>(d == Real(0) || e == Real(0) ? Lanes<Real>{} : other, which);
    });
    sums.ties += sum_lanes(ties);
    sums.others += sum_lanes(others);
  });
}

// Writes e to `exps`, and fetches what comes next: the row's gradient and the next row. (A prefetch beyond
// the last row does nothing.)
template <typename T>
ExpSums sum_exps(const void* row, int64_t classes, typename T::Real max, double inv_temperature,
                 typename T::Real* exps, const void* next_row = nullptr, const void* grad = nullptr) {
  using Real = typename T::Real;
  const Real per_d = static_cast<Real>(inv_temperature * kLog2E);
  ExpSums sums;
  for_blocks<Real>(classes, [&](int64_t begin, int64_t end) {
    Lanes<Real> total{}, linear{};
    for_lanes<Real>(begin, end, [&](int64_t c, auto which) {
      if (next_row) __builtin_prefetch(at<T>(next_row, c));
      if (grad) __builtin_prefetch(at<T>(grad, c), 1);
      const Lanes<Real> d = load_lanes<T>(row, c, max, which) - max;
      const Lanes<Real> e = exp2_lanes(d * per_d);
      total += keep<Real>(e, which);
      linear += keep<Real>(d, which);
      store_lanes<Plain<Real>>(exps, c, e, which);
    });
    sums.others += sum_lanes(total);
    sums.linear += sum_lanes(linear);
  });
  if (sums.others < 2) split_ties<T>(row, classes, max, inv_temperature, exps, sums);
  return sums;
}

// A product that is 0 where one factor is: 0 * log 0 = 0.
inline double product(double y, double t) { return y == 0 ? 0 : y * t; }

template <typename T>
double softmax_sparse(const LossCall& call, const void* z, void* grad, double scale, const RowTarget& target,
                      typename T::Real* exps) {
  using Real = typename T::Real;
  const Real max = row_max<T>(z, call.classes);
  const ExpSums sums =
      sum_exps<T>(z, call.classes, max, call.inv_temperature, exps, at<T>(z, call.logits_stride), grad);
  double loss = target.mass * sums.log_total() - product(target.base, sums.linear * call.inv_temperature);
  for (const Entry& entry : target.entries) {
    loss -= product(entry.delta, (double(load_one<T>(z, entry.id)) - max) * call.inv_temperature);
  }
  if (!grad) return loss;

  const double g = scale * call.inv_temperature;
  const Real slope = static_cast<Real>(g * target.mass / sums.total()),
             floor = static_cast<Real>(g * target.base);
  for_lanes<Real>(0, call.classes, [&](int64_t c, auto which) {
    const Lanes<Real> e = load_lanes<Plain<Real>>(exps, c, 0, which);
    store_lanes<T>(grad, c, e * slope - floor, which);
  });
  for (const Entry& entry : target.entries) {
    const double y = target.base + entry.delta;
    const bool only_max = sums.ties == 1 && load_one<T>(z, entry.id) == max;  // p = 1 - others / total
    const double e = only_max ? -sums.others : exps[entry.id];
    const double rest = only_max ? target.mass - y : -y;
    store_one<T>(grad, entry.id, g * (target.mass * e / sums.total() + rest));
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
  for_blocks<Real>(call.classes, [&](int64_t begin, int64_t end) {
    Lanes<Real> sum{};
    for_lanes<Real>(begin, end, [&](int64_t c, auto which) {
      const Lanes<Real> x = load_lanes<T>(z, c, 0, which) * inv_temperature;
      const Lanes<Real> e = exp2_lanes((x > Real(0) ? -x : x) * static_cast<Real>(kLog2E));
      Lanes<Real> y = all(static_cast<Real>(base));
      if (dense) y = load_lanes<Plain<Real>>(dense, c, 0, which);
      const Lanes<Real> wrong = x < Real(0) ? y : Real(1) - y;  // max(x, 0) - y x = |x| wrong
      const Lanes<Real> linear = wrong == Real(0) ? Lanes<Real>{} : wrong * (x < Real(0) ? -x : x);
      sum += keep<Real>(linear + log1p_lanes<Real>(e), which);
      if (!grad) return;
      const Lanes<Real> p = (x < Real(0) ? e : all(Real(1))) / (e + Real(1));
      store_lanes<T>(grad, c, (p - y) * static_cast<Real>(g), which);
    });
    loss += sum_lanes(sum);
  });
  for (const Entry& entry : entries) {
    const double x = double(load_one<T>(z, entry.id)) * call.inv_temperature;
    loss -= product(entry.delta, x);
    if (grad) store_one<T>(grad, entry.id, g * (sigmoid(x) - base - entry.delta));
  }
  return loss / call.classes;
}

// Softmax against a dense row of probabilities `y`.
template <typename T>
double softmax_dense(const LossCall& call, const void* z, void* grad, double scale, const typename T::Real* y,
                     typename T::Real* exps) {
  using Real = typename T::Real;
  const Real max = row_max<T>(z, call.classes);
  const ExpSums sums = sum_exps<T>(z, call.classes, max, call.inv_temperature, exps);
  double mass = 0, dot = 0;
  for_blocks<Real>(call.classes, [&](int64_t begin, int64_t end) {
    Lanes<Real> masses{}, dots{};
    for_lanes<Real>(begin, end, [&](int64_t c, auto which) {
      const Lanes<Real> d = load_lanes<T>(z, c, max, which) - max;
      const Lanes<Real> p = load_lanes<Plain<Real>>(y, c, 0, which);
      masses += keep<Real>(p, which);
      dots += keep<Real>(p == Real(0) ? Lanes<Real>{} : p * d, which);
    });
    mass += sum_lanes(masses);
    dot += sum_lanes(dots);
  });
  if (grad) {
    const double g = scale * call.inv_temperature;
    const Real slope = static_cast<Real>(mass / sums.total());
    for_lanes<Real>(0, call.classes, [&](int64_t c, auto which) {
      const Lanes<Real> p = load_lanes<Plain<Real>>(exps, c, 0, which) * slope;
      const Lanes<Real> dz = (p - load_lanes<Plain<Real>>(y, c, 0, which)) * static_cast<Real>(g);
      store_lanes<T>(grad, c, dz, which);
    });
  }
  return mass * sums.log_total() - dot * call.inv_temperature;
}

// Row `row` of a dense target as probabilities in Real. `scratch` has the size of y.
template <typename Real>
void read_dense(const LossCall& call, int64_t row, Real* scratch, Real* y) {
  const DenseTarget& dense = call.dense;
  Real* stored = dense.inv_temperature == 0 ? y : scratch;
  for (int64_t c = 0; c < call.classes; ++c) {
    stored[c] = static_cast<Real>(load_float(dense.values, dense.type, row * dense.stride + c));
  }
  if (dense.inv_temperature == 0) return;
  const ExpSums sums = sum_exps<Plain<Real>>(stored, call.classes, row_max<Plain<Real>>(stored, call.classes),
                                             dense.inv_temperature, y);
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
      read_dense(call, b, exps.data(), dense.data());
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

float exp2_of(float x) { return exp2_lanes(all(x))[0]; }
