// SPDX-License-Identifier: Apache-2.0
// Floats or doubles by the vector, in the compiler's own types. A variant includes this inside its unnamed
// namespace after saying what its target has: kVectorBytes (64 with AVX-512, 32 with AVX2, 16 with SSE or
// NEON) and kHasFma. (The compiler's macros do not say: a target that is set by #pragma does not define them
// in C++.)

template <typename Real>
struct LanesOf;
template <>
struct LanesOf<float> {
  typedef float Values __attribute__((vector_size(kVectorBytes)));
  typedef int32_t Mask __attribute__((vector_size(kVectorBytes)));
};
template <>
struct LanesOf<double> {
  typedef double Values __attribute__((vector_size(kVectorBytes)));
  typedef int64_t Mask __attribute__((vector_size(kVectorBytes)));
};
template <typename Real>
using Lanes = typename LanesOf<Real>::Values;
template <typename Real>
using Mask = typename LanesOf<Real>::Mask;
template <typename Real>
constexpr int kLanes = kVectorBytes / sizeof(Real);

typedef uint16_t Halves __attribute__((vector_size(kVectorBytes / 2)));
typedef uint32_t Bits __attribute__((vector_size(kVectorBytes)));

template <typename To, typename From>
inline To bits_of(From from) {
  To to;
  static_assert(sizeof(to) == sizeof(from));
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

template <typename Real>
inline Lanes<Real> all(Real x) {
  return x - Lanes<Real>{};
}

// a * b + c, rounded once.
inline Lanes<float> fused(Lanes<float> a, Lanes<float> b, Lanes<float> c) {
  if constexpr (kHasFma) return a * b + c;  // contracted: these files are compiled with -ffp-contract=fast
  for (int i = 0; i < kLanes<float>; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
}

// ---- element types: type in memory, type of the arithmetic, conversions ---------------------------------

struct F32 {
  using Real = float;
  using Stored = float;
  using Packed = Lanes<float>;
  static Lanes<float> widen(Packed x) { return x; }
  static Packed narrow(Lanes<float> x) { return x; }
};

struct F64 {
  using Real = double;
  using Stored = double;
  using Packed = Lanes<double>;
  static Lanes<double> widen(Packed x) { return x; }
  static Packed narrow(Lanes<double> x) { return x; }
};

struct Bf16 {
  using Real = float;
  using Stored = uint16_t;
  using Packed = Halves;
  static Lanes<float> widen(Packed x) {
    return bits_of<Lanes<float>>(__builtin_convertvector(x, Bits) << 16);
  }
  static Packed narrow(Lanes<float> x) {  // round to nearest even
    const Bits u = bits_of<Bits>(x);
    const Bits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return __builtin_convertvector(x != x ? (u >> 16) | 0x40u : rounded, Halves);
  }
};

struct F16 {
  using Real = float;
  using Stored = uint16_t;
  using Packed = Halves;
  static Lanes<float> widen(Packed x) {
    const Bits h = __builtin_convertvector(x, Bits);
    const Bits exponent = h & 0x7c00u;
    const Bits magnitude = ((h & 0x7fffu) << 13) + (112u << 23);
    const Bits special = magnitude + (112u << 23);                                        // infinity and NaN
    const Lanes<float> small = bits_of<Lanes<float>>(magnitude + (1u << 23)) - 0x1p-14f;  // subnormal
    Bits u = exponent == 0x7c00u ? special : magnitude;
    u = exponent == 0u ? bits_of<Bits>(small) : u;
    return bits_of<Lanes<float>>(u | ((h & 0x8000u) << 16));
  }
  static Packed narrow(Lanes<float> x) {  // round to nearest even; too large becomes infinity
    const Bits u = bits_of<Bits>(x);
    const Bits magnitude = u & 0x7fffffffu;
    const Bits normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
    const Bits subnormal = bits_of<Bits>(bits_of<Lanes<float>>(magnitude) + 0.5f) - 0x3f000000u;
    Bits h = magnitude < (113u << 23) ? subnormal : normal;
    h = magnitude >= (143u << 23) ? Bits{} + 0x7c00u : h;
    h = x != x ? Bits{} + 0x7e00u : h;
    return __builtin_convertvector(h | ((u >> 16) & 0x8000u), Halves);
  }
};

template <typename T>
inline Lanes<typename T::Real> load(const void* from) {
  typename T::Packed packed;
  std::memcpy(&packed, from, sizeof(packed));
  return T::widen(packed);
}

// The first n lanes are read, the others are `fill`.
template <typename T>
inline Lanes<typename T::Real> load_some(const void* from, int n, typename T::Real fill) {
  typename T::Packed packed = T::narrow(all<typename T::Real>(fill));
  std::memcpy(&packed, from, n * sizeof(typename T::Stored));
  return T::widen(packed);
}

template <typename T>
inline void store_some(void* to, Lanes<typename T::Real> x, int n) {
  const typename T::Packed packed = T::narrow(x);
  std::memcpy(to, &packed, n * sizeof(typename T::Stored));
}

template <typename T>
inline typename T::Real load_one(const void* from, int64_t index) {
  const char* at = static_cast<const char*>(from) + index * sizeof(typename T::Stored);
  return load_some<T>(at, 1, 0)[0];
}

// -1 in the first n lanes, 0 in the others.
template <typename Real>
inline Mask<Real> first(int n) {
  Mask<Real> index;
  for (int i = 0; i < kLanes<Real>; ++i) index[i] = i;
  return index < n;
}

// ---- elementary functions ---------------------------------------------------------------------------------

// exp(x) for x <= 0 to within 1.1 ulp; below -87.3 the answer is 0. NaN stays NaN. Cody-Waite reduction
// x = n ln 2 + r, |r| <= ln 2 / 2, then 1 + r + c2 r^2 + ... + c6 r^6 with the c whose largest relative error
// is the least (3e-9).
inline Lanes<float> exp_lanes(Lanes<float> x) {
  constexpr float kRound = 12583039.f;  // 1.5 * 2^23 + 127: adding it leaves the nearest integer in the low
                                        // bits, as the exponent of a float
  const Lanes<float> shifted = x * 1.44269504f + kRound;
  const Lanes<float> n = shifted - kRound;
  const Lanes<float> r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  Lanes<float> p = all(0.00138145394f);
  p = p * r + 0.00836874545f;
  p = p * r + 0.0416683890f;
  p = p * r + 0.166665211f;
  p = p * r + 0.49999994f;
  p = p * r + 1.f;
  p = p * r + 1.f;
  const Lanes<float> y = p * bits_of<Lanes<float>>(bits_of<Bits>(shifted) << 23);
  return x < -87.3f ? Lanes<float>{} : y;
}

inline Lanes<double> exp_lanes(Lanes<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp(x[i]);
  return x;
}

// log(1 + x) for 0 <= x <= 1: the series 2 (s + s^3/3 + s^5/5 ...) with s = x /
// (2 + x) <= 1/3.
template <typename Real>
inline Lanes<Real> log1p_lanes(Lanes<Real> x) {
  const Lanes<Real> s = x / (x + Real(2));
  const Lanes<Real> square = s * s;
  Lanes<Real> p{};
  for (int n = sizeof(Real) == 8 ? 35 : 15; n >= 1; n -= 2) p = p * square + Real(2) / Real(n);
  return s * p;
}

// The lanes joined by twos, the results by twos, ...: a shorter chain than one after the other.
template <typename Result, int n, typename Values, typename Join>
inline Result join_lanes(const Values& x, int begin, Join join) {
  if constexpr (n == 1) {
    return x[begin];
  } else {
    return join(join_lanes<Result, n / 2>(x, begin, join), join_lanes<Result, n / 2>(x, begin + n / 2, join));
  }
}

template <typename Real>
inline double sum_lanes(Lanes<Real> x) {
  return join_lanes<double, kLanes<Real>>(x, 0, [](double a, double b) { return a + b; });
}

template <typename Real>
inline Real max_lanes(Lanes<Real> x) {
  return join_lanes<Real, kLanes<Real>>(x, 0, [](Real a, Real b) { return a > b ? a : b; });
}
