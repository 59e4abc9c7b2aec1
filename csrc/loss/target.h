// SPDX-License-Identifier: Apache-2.0
// Targets as the kernels read them. A row's target is y = base + sum_k delta_k e[ids_k], a weighted sum of
// sources; a source is a table of top-K labels from which base and deltas are recovered on the fly.
#pragma once

#include <cstdint>

#if defined(__CUDACC__) || defined(FKDX_CUDA_ON_CPU)
#define FKDX_HOST_DEVICE __host__ __device__
#else
#define FKDX_HOST_DEVICE
#endif

namespace fkdx {

enum class Float : int { kF32 = 0, kBf16 = 1, kF16 = 2, kF64 = 3 };
enum class Int : int { kI16 = 0, kI32 = 1, kI64 = 2 };

// One table of labels: (num_rows, k) ids and values, rows `stride` elements apart.
struct Source {
  const void* ids;
  const void* values;    // null: every value is 1
  const int64_t* rows;   // row b of the batch reads row rows[b]; null: row b
  const float* weights;  // (B,) factors of the rows; null: 1
  int64_t ids_stride;
  int64_t values_stride;
  int64_t num_rows;
  float weight;  // factor of all rows
  int k;
  Int ids_type;
  Float values_type;
  bool tail;  // true: the missing mass is spread over the other classes; false: renormalise
};

// What the sum of a row's values says about its target: y = base + sum_k (gain * value_k - base) e[ids_k],
// and mass = sum_c y_c.
template <typename Real>
struct Recovery {
  Real base, gain, mass;
};

template <typename Real>
FKDX_HOST_DEVICE inline Recovery<Real> recover(bool tail, Real sum, int64_t k, int64_t classes) {
  if (!tail) {
    const Real gain = Real(1) / (sum > Real(1e-12) ? sum : Real(1e-12));
    return {Real(0), gain, sum * gain};
  }
  if (k >= classes) return {Real(0), Real(1), sum};
  return {(Real(1) - sum) / Real(classes - k), Real(1), Real(1)};
}

}  // namespace fkdx
