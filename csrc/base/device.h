// SPDX-License-Identifier: Apache-2.0
// What the kernels need of a GPU: 16-byte access, conversions, warps and blocks. The tests include a twin of
// the first half that runs the same kernels on the CPU (tests/native/cuda_on_cpu.h).
#pragma once

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace fkdx {

struct Pair {
  uint32_t word[2];
};
struct Quad {
  uint32_t word[4];
};

// One 128-bit access each; `from` is not written during the kernel. Assembler, because the compiler may split
// a plain 16-byte store that stands beside a scalar path.
__device__ __forceinline__ Quad load16(const void* from) {
  const uint4 q = __ldg(static_cast<const uint4*>(from));
  return {{q.x, q.y, q.z, q.w}};
}

__device__ __forceinline__ Pair load8(const void* from) {
  const uint2 q = __ldg(static_cast<const uint2*>(from));
  return {{q.x, q.y}};
}

__device__ __forceinline__ void store16(void* to, const Quad& q) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(q.word[0]), "r"(q.word[1]),
               "r"(q.word[2]), "r"(q.word[3])
               : "memory");
}

// 2^x to within 2 ulp; 0 where the answer would be subnormal.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

__device__ __forceinline__ float divide_fast(float a, float b) { return __fdividef(a, b); }

__device__ __forceinline__ float bits_to_float(uint32_t u) { return __uint_as_float(u); }
__device__ __forceinline__ uint32_t float_to_bits(float x) { return __float_as_uint(x); }
__device__ __forceinline__ double bits_to_double(uint32_t low, uint32_t high) {
  return __hiloint2double(static_cast<int>(high), static_cast<int>(low));
}
// The larger of each half of a and b, two bfloat16 or two float16 each. A NaN gives way to a number.
__device__ __forceinline__ uint32_t larger_bf16(uint32_t a, uint32_t b) {
  const __nv_bfloat162 x =
      __hmax2(reinterpret_cast<__nv_bfloat162&>(a), reinterpret_cast<__nv_bfloat162&>(b));
  return reinterpret_cast<const uint32_t&>(x);
}
__device__ __forceinline__ uint32_t larger_f16(uint32_t a, uint32_t b) {
  const __half2 x = __hmax2(reinterpret_cast<__half2&>(a), reinterpret_cast<__half2&>(b));
  return reinterpret_cast<const uint32_t&>(x);
}
__device__ __forceinline__ uint16_t to_bf16(float x) { return __bfloat16_as_ushort(__float2bfloat16_rn(x)); }
__device__ __forceinline__ uint16_t to_f16(float x) { return __half_as_ushort(__float2half_rn(x)); }
__device__ __forceinline__ float from_f16(uint16_t h) { return __half2float(__ushort_as_half(h)); }

}  // namespace fkdx
#endif

namespace fkdx {

// ---- element types of logits and gradients ----------------------------------------------------------------
// kLowest: four bytes of -infinity. larger: of each element of two words; a NaN gives way to a number.

struct DeviceF32 {
  using Stored = float;
  static constexpr int kPerQuad = 4;
  static constexpr uint32_t kLowest = 0xff800000;
  static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) {
    return float_to_bits(fmaxf(bits_to_float(a), bits_to_float(b)));
  }
  static __device__ __forceinline__ float widen(float x) { return x; }
  static __device__ __forceinline__ float narrow(float x) { return x; }
  static __device__ __forceinline__ void unpack(const Quad& q, float* x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) x[i] = bits_to_float(q.word[i]);
  }
  static __device__ __forceinline__ Quad pack(const float* x) {
    Quad q;
#pragma unroll
    for (int i = 0; i < 4; ++i) q.word[i] = float_to_bits(x[i]);
    return q;
  }
};

struct DeviceBf16 {
  using Stored = uint16_t;
  static constexpr int kPerQuad = 8;
  static constexpr uint32_t kLowest = 0xff80ff80;
  static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) { return larger_bf16(a, b); }
  static __device__ __forceinline__ float widen(uint16_t x) { return bits_to_float(uint32_t(x) << 16); }
  static __device__ __forceinline__ uint16_t narrow(float x) { return to_bf16(x); }
  static __device__ __forceinline__ void unpack(const Quad& q, float* x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = bits_to_float(q.word[i] << 16);
      x[2 * i + 1] = bits_to_float(q.word[i] & 0xffff0000u);
    }
  }
  static __device__ __forceinline__ Quad pack(const float* x) {
    Quad q;
#pragma unroll
    for (int i = 0; i < 4; ++i) q.word[i] = to_bf16(x[2 * i]) | uint32_t(to_bf16(x[2 * i + 1])) << 16;
    return q;
  }
};

struct DeviceF16 {
  using Stored = uint16_t;
  static constexpr int kPerQuad = 8;
  static constexpr uint32_t kLowest = 0xfc00fc00;
  static __device__ __forceinline__ uint32_t larger(uint32_t a, uint32_t b) { return larger_f16(a, b); }
  static __device__ __forceinline__ float widen(uint16_t x) { return from_f16(x); }
  static __device__ __forceinline__ uint16_t narrow(float x) { return to_f16(x); }
  static __device__ __forceinline__ void unpack(const Quad& q, float* x) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      x[2 * i] = from_f16(static_cast<uint16_t>(q.word[i]));
      x[2 * i + 1] = from_f16(static_cast<uint16_t>(q.word[i] >> 16));
    }
  }
  static __device__ __forceinline__ Quad pack(const float* x) {
    Quad q;
#pragma unroll
    for (int i = 0; i < 4; ++i) q.word[i] = to_f16(x[2 * i]) | uint32_t(to_f16(x[2 * i + 1])) << 16;
    return q;
  }
};

// The maximum of many quads. Two elements of 16 bits are compared at once, and converted at the end only.
template <typename T>
struct QuadMax {
  static constexpr int kChains = T::kPerQuad == 8 ? 4 : 1;  // in float32 registers are short
  uint32_t tops[kChains];

  __device__ __forceinline__ QuadMax() {
#pragma unroll
    for (int i = 0; i < kChains; ++i) tops[i] = T::kLowest;
  }
  __device__ __forceinline__ void add(const Quad& q) {
#pragma unroll
    for (int i = 0; i < 4; ++i) tops[i % kChains] = T::larger(tops[i % kChains], q.word[i]);
  }
  __device__ __forceinline__ float value() const {
    uint32_t top = tops[0];
#pragma unroll
    for (int i = 1; i < kChains; ++i) top = T::larger(top, tops[i]);
    float x[T::kPerQuad];
    T::unpack({{top, top, top, top}}, x);
    return fmaxf(x[0], x[1]);
  }
};

// ---- a row in memory: a few elements before the first 16-byte boundary, whole quads, a few elements after
// ----

template <typename T>
struct RowSplit {
  int head, quads, tail;

  __device__ __forceinline__ RowSplit(const typename T::Stored* row, int classes) {
    constexpr int kSize = sizeof(typename T::Stored);
    const int before = int((16 - (reinterpret_cast<uintptr_t>(row) & 15)) & 15) / kSize;
    head = before < classes ? before : classes;
    quads = (classes - head) / T::kPerQuad;
    tail = classes - head - quads * T::kPerQuad;
  }
  __device__ __forceinline__ int quad(int i) const { return head + i * T::kPerQuad; }
  // The element outside the quads that belongs to thread `rank`, or -1. Sixteen threads are enough.
  __device__ __forceinline__ int edge(int rank) const {
    if (rank < head) return rank;
    return rank >= 8 && rank - 8 < tail ? quad(quads) + rank - 8 : -1;
  }
};

// ---- warps and blocks; sums are taken in a fixed order ----------------------------------------------------

constexpr unsigned kAllLanes = 0xffffffffu;

__device__ __forceinline__ float warp_max(float x) {
#pragma unroll
  for (int lane = 16; lane; lane >>= 1) x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, lane));
  return x;
}

__device__ __forceinline__ float warp_sum(float x) {
#pragma unroll
  for (int lane = 16; lane; lane >>= 1) x += __shfl_xor_sync(kAllLanes, x, lane);
  return x;
}

struct Sums {
  float ties, others, linear;
};

// The threads that share one row: a warp or a whole block.
template <int kThreads>
struct Team {
  static constexpr int kWarps = kThreads / 32;
  struct Scratch {
    float max[kWarps];
    Sums sums[kWarps], total;
  };

  static __device__ __forceinline__ void sync() {
    if constexpr (kThreads == 32) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // Every thread gets the maximum. Also a barrier.
  static __device__ __forceinline__ float max(float x, int rank, Scratch& scratch) {
    x = warp_max(x);
    if constexpr (kThreads > 32) {
      if (rank % 32 == 0) scratch.max[rank / 32] = x;
      __syncthreads();
      x = scratch.max[0];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) x = fmaxf(x, scratch.max[w]);
    } else {
      __syncwarp();
    }
    return x;
  }

  // Every thread gets the sums. Also a barrier.
  static __device__ __forceinline__ Sums sum(Sums s, int rank, Scratch& scratch) {
    s = {warp_sum(s.ties), warp_sum(s.others), warp_sum(s.linear)};
    if constexpr (kThreads > 32) {
      if (rank % 32 == 0) scratch.sums[rank / 32] = s;
      __syncthreads();
      s = scratch.sums[0];
#pragma unroll
      for (int w = 1; w < kWarps; ++w) {
        s.ties += scratch.sums[w].ties;
        s.others += scratch.sums[w].others;
        s.linear += scratch.sums[w].linear;
      }
    } else {
      __syncwarp();
    }
    return s;
  }
};

}  // namespace fkdx
