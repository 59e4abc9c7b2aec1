// SPDX-License-Identifier: Apache-2.0
// Rows that the registers do not hold, on the GPU: a block goes through a row piece by piece, once for each
// pass (from the cache after the first).
#pragma once

#include "base/device.h"

namespace fkdx {

// In place of the dense target's type where the target is sparse.
struct NoDense {
  using Stored = char;
  static constexpr int kPerQuad = 0;
};

// A row of logits z and, of type D, its dense target y, shared by the kThreads threads of a block. D has as
// many bytes as T, or more.
template <typename T, typename D, int kThreads>
struct Pieces {
  static constexpr int kPer = T::kPerQuad;
  static constexpr int kAhead = 2;  // pieces that are loaded before the first of them is used
  static constexpr bool kDense = D::kPerQuad > 0;
  struct Raw {
    Quad z, y[kDense ? kPer / D::kPerQuad : 1];
  };

  const typename T::Stored* z;
  const typename D::Stored* y;
  int classes;

  // Calls visit(z, y) for every element of this thread's share, as floats; y is 0 where the target is sparse.
  // whole: read quads where the row has them, not single elements.
  template <typename Visit>
  __device__ __forceinline__ void each(bool whole, Visit visit) const {
    each_piece(whole, [&](int, int n, const float* x, const float* target) {
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        if (j < n) visit(x[j], kDense ? target[j] : 0.f);
      }
    });
  }

  // The same, and writes what visit returns in the element's place in `to`, if `wanted`. Where it is written
  // whole, `to` lies at the same place within 16 bytes as z.
  template <typename Visit>
  __device__ __forceinline__ void write_if(bool wanted, bool whole, typename T::Stored* to,
                                           Visit visit) const {
    each_piece(whole, [&](int c, int n, float* x, const float* target) {
#pragma unroll
      for (int j = 0; j < kPer; ++j) {
        if (j < n) x[j] = visit(x[j], kDense ? target[j] : 0.f);
      }
      if (wanted) store(to + c, n, x);
    });
  }

  template <typename Visit>
  __device__ __forceinline__ void write(bool whole, typename T::Stored* to, Visit visit) const {
    write_if(true, whole, to, visit);
  }

 private:
  // Calls visit(c, n, x, y) for this thread's share: n = kPer elements from c on, which is at a 16-byte
  // boundary of z; or, where a row begins or ends in between and everywhere unless `whole`, n = 1.
  template <typename Visit>
  __device__ __forceinline__ void each_piece(bool whole, Visit visit) const {
    RowSplit<T> split(z, classes);
    if (!whole) split.head = classes, split.quads = split.tail = 0;
    const int rank = threadIdx.x;
#pragma unroll 1
    for (int i = rank; i < split.quads; i += kAhead * kThreads) {
      Raw raw[kAhead];
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (i + j * kThreads < split.quads) load(split.quad(i + j * kThreads), &raw[j]);
      }
#pragma unroll
      for (int j = 0; j < kAhead; ++j) {
        if (i + j * kThreads < split.quads) widen(split.quad(i + j * kThreads), raw[j], visit);
      }
    }
    for (int c = rank; c < split.head; c += kThreads) single(c, visit);
    for (int c = split.quad(split.quads) + rank; c < classes; c += kThreads) single(c, visit);
  }

  __device__ __forceinline__ void load(int c, Raw* raw) const {
    raw->z = load16(z + c);
    if constexpr (kDense) {
#pragma unroll
      for (int i = 0; i < kPer / D::kPerQuad; ++i) raw->y[i] = load16(y + c + i * D::kPerQuad);
    }
  }

  template <typename Visit>
  __device__ __forceinline__ void widen(int c, const Raw& raw, Visit visit) const {
    float x[kPer], target[kPer];
    T::unpack(raw.z, x);
    if constexpr (kDense) {
#pragma unroll
      for (int i = 0; i < kPer / D::kPerQuad; ++i) D::unpack(raw.y[i], target + i * D::kPerQuad);
    }
    visit(c, kPer, x, target);
  }

  template <typename Visit>
  __device__ __forceinline__ void single(int c, Visit visit) const {
    float x[kPer], target[kPer];
    x[0] = T::widen(z[c]);
    if constexpr (kDense) target[0] = D::widen(y[c]);
    visit(c, 1, x, target);
  }

  static __device__ __forceinline__ void store(typename T::Stored* to, int n, const float* x) {
    if (n == kPer) {
      store16(to, T::pack(x));
    } else {
      *to = T::narrow(x[0]);
    }
  }
};

}  // namespace fkdx
