// SPDX-License-Identifier: Apache-2.0
// Floats or doubles by the vector, in the compiler's own types. A variant includes this inside its unnamed
// namespace after saying what its target has: kVectorBytes (64 with AVX-512, 32 with AVX2, 16 with SSE or
// NEON), and FKDX_AVX512 or FKDX_AVX2 if their intrinsics are at hand. (The compiler's macros do not say: a
// target that is set by #pragma does not define them in C++.)

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

typedef uint8_t Bytes __attribute__((vector_size(kVectorBytes / 4)));
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

// ---- what has an instruction that gcc 12 does not find, or not for certain --------------------------------
// fused: a * b + c, rounded once. larger: a > b ? a : b. to_half rounds to nearest even; too large is
// infinity.

inline Lanes<double> fused(Lanes<double> a, Lanes<double> b, Lanes<double> c) {
  for (int i = 0; i < kLanes<double>; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
}
inline Lanes<double> larger(Lanes<double> a, Lanes<double> b) { return a > b ? a : b; }

#if defined(FKDX_AVX512)
inline Lanes<float> from_bytes(Bytes x) {
  return _mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bits_of<__m128i>(x)));
}
inline Lanes<float> fused(Lanes<float> a, Lanes<float> b, Lanes<float> c) { return _mm512_fmadd_ps(a, b, c); }
inline Lanes<float> larger(Lanes<float> a, Lanes<float> b) { return _mm512_max_ps(a, b); }
inline Bits widen_bits(Halves x) { return bits_of<Bits>(_mm512_cvtepu16_epi32(bits_of<__m256i>(x))); }
inline Halves narrow_bits(Bits x) { return bits_of<Halves>(_mm512_cvtepi32_epi16(bits_of<__m512i>(x))); }
inline Lanes<float> from_half(Halves x) { return _mm512_cvtph_ps(bits_of<__m256i>(x)); }
inline Halves to_half(Lanes<float> x) {
  return bits_of<Halves>(_mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
#elif defined(FKDX_AVX2)
inline Lanes<float> from_bytes(Bytes x) {
  return _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bits_of<int64_t>(x))));
}
inline Lanes<float> fused(Lanes<float> a, Lanes<float> b, Lanes<float> c) { return _mm256_fmadd_ps(a, b, c); }
inline Lanes<float> larger(Lanes<float> a, Lanes<float> b) { return _mm256_max_ps(a, b); }
inline Bits widen_bits(Halves x) { return bits_of<Bits>(_mm256_cvtepu16_epi32(bits_of<__m128i>(x))); }
inline Halves narrow_bits(Bits x) {
  const __m256i y = bits_of<__m256i>(x);
  return bits_of<Halves>(_mm_packus_epi32(_mm256_castsi256_si128(y), _mm256_extracti128_si256(y, 1)));
}
inline Lanes<float> from_half(Halves x) { return _mm256_cvtph_ps(bits_of<__m128i>(x)); }
inline Halves to_half(Lanes<float> x) {
  return bits_of<Halves>(_mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
#else
inline Lanes<float> from_bytes(Bytes x) {
  return __builtin_convertvector(__builtin_convertvector(x, Mask<float>), Lanes<float>);
}
inline Lanes<float> fused(Lanes<float> a, Lanes<float> b, Lanes<float> c) {
#ifdef __aarch64__
  return vfmaq_f32(c, a, b);
#else
  for (int i = 0; i < kLanes<float>; ++i) c[i] = std::fma(a[i], b[i], c[i]);
  return c;
#endif
}
inline Lanes<float> larger(Lanes<float> a, Lanes<float> b) { return a > b ? a : b; }
inline Bits widen_bits(Halves x) { return __builtin_convertvector(x, Bits); }
inline Halves narrow_bits(Bits x) { return __builtin_convertvector(x, Halves); }
inline Lanes<float> from_half(Halves x) {
  const Bits h = widen_bits(x);
  const Bits exponent = h & 0x7c00u;
  const Bits magnitude = ((h & 0x7fffu) << 13) + (112u << 23);
  const Bits special = magnitude + (112u << 23);                                        // infinity and NaN
  const Lanes<float> small = bits_of<Lanes<float>>(magnitude + (1u << 23)) - 0x1p-14f;  // subnormal
  Bits u = exponent == 0x7c00u ? special : magnitude;
  u = exponent == 0u ? bits_of<Bits>(small) : u;
  return bits_of<Lanes<float>>(u | ((h & 0x8000u) << 16));
}
inline Halves to_half(Lanes<float> x) {
  const Bits u = bits_of<Bits>(x);
  const Bits magnitude = u & 0x7fffffffu;
  const Bits normal = (magnitude - (112u << 23) + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  const Bits subnormal = bits_of<Bits>(bits_of<Lanes<float>>(magnitude) + 0.5f) - 0x3f000000u;
  Bits h = magnitude < (113u << 23) ? subnormal : normal;
  h = magnitude >= (143u << 23) ? Bits{} + 0x7c00u : h;
  h = x != x ? Bits{} + 0x7e00u : h;
  return narrow_bits(h | ((u >> 16) & 0x8000u));
}
#endif

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
  static Lanes<float> widen(Packed x) { return bits_of<Lanes<float>>(widen_bits(x) << 16); }
  static Packed narrow(Lanes<float> x) {  // round to nearest even
    const Bits u = bits_of<Bits>(x);
    const Bits rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
    return narrow_bits(x != x ? (u >> 16) | 0x40u : rounded);
  }
};

struct F16 {
  using Real = float;
  using Stored = uint16_t;
  using Packed = Halves;
  static Lanes<float> widen(Packed x) { return from_half(x); }
  static Packed narrow(Lanes<float> x) { return to_half(x); }
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
  typename T::Stored x;
  std::memcpy(&x, static_cast<const char*>(from) + index * sizeof(x), sizeof(x));
  typename T::Packed packed{};
  packed[0] = x;
  return T::widen(packed)[0];
}

template <typename T>
inline void store_one(void* to, int64_t index, typename T::Real x) {
  const typename T::Stored stored = T::narrow(all(x))[0];
  std::memcpy(static_cast<char*>(to) + index * sizeof(stored), &stored, sizeof(stored));
}

// -1 in the first n lanes, 0 in the others.
template <typename Real>
inline Mask<Real> first(int n) {
  Mask<Real> index;
  for (int i = 0; i < kLanes<Real>; ++i) index[i] = i;
  return index < n;
}

// ---- elementary functions ---------------------------------------------------------------------------------

// 2^x for x <= 0 to within 1.5 ulp; 0 for -infinity, NaN for NaN. With x = n + r that is 2^n times the
// polynomial in r whose largest relative error is the least (2e-9) of those that are 1 at 0.
#ifdef FKDX_AVX512
inline Lanes<float> exp2_lanes(Lanes<float> x) {
  const Lanes<float> r = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);  // x - floor(x)
  Lanes<float> p = all(0.000216129163f);
  p = p * r + 0.00124678458f;
  p = p * r + 0.00967545155f;
  p = p * r + 0.0554852821f;
  p = p * r + 0.240229309f;
  p = p * r + 0.693147063f;
  p = p * r + 1.f;
  return _mm512_scalef_ps(p, x);  // p * 2^floor(x)
}
#else
inline Lanes<float> exp2_lanes(Lanes<float> x) {
  constexpr float kRound = 12583039.f;  // 1.5 * 2^23 + 127: adding it leaves the nearest integer in the low
                                        // bits, as the exponent of a float
  x = larger(all(-127.f), x);           // whose exponent is that of 0
  const Lanes<float> n = x + kRound;
  const Lanes<float> r = x - (n - kRound), r2 = r * r;
  const Lanes<float> p01 = r * 0.693147182f + 1.f;  // by twos: the chain is what takes the time
  const Lanes<float> p23 = r * 0.0555033237f + 0.240226477f;
  const Lanes<float> p45 = r * 0.00133988739f + 0.00961843692f;
  const Lanes<float> p = ((r2 * 0.00015353362f + p45) * r2 + p23) * r2 + p01;
  return p * bits_of<Lanes<float>>(bits_of<Bits>(n) << 23);
}
#endif

inline Lanes<double> exp2_lanes(Lanes<double> x) {
  for (int i = 0; i < kLanes<double>; ++i) x[i] = std::exp2(x[i]);
  return x;
}

// log(1 + x) for 0 <= x <= 1: the series 2 (s + s^3/3 + s^5/5 ...) with s = x / (2 + x) <= 1/3.
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

inline double sum_lanes(Lanes<double> x) {
  return join_lanes<double, kLanes<double>>(x, 0, [](double a, double b) { return a + b; });
}

inline double sum_lanes(Lanes<float> x) {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Half halves[2];
  std::memcpy(halves, &x, sizeof(x));
  return sum_lanes(__builtin_convertvector(halves[0], Lanes<double>) +
                   __builtin_convertvector(halves[1], Lanes<double>));
}

template <typename Real>
inline Real max_lanes(Lanes<Real> x) {
  return join_lanes<Real, kLanes<Real>>(x, 0, [](Real a, Real b) { return a > b ? a : b; });
}
