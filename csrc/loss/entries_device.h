// SPDX-License-Identifier: Apache-2.0
// A row's target on the GPU: base, mass, and the classes above the base, read by one warp into shared memory.
#pragma once

#include "base/device.h"
#include "loss/loss.h"

namespace fkdx {

constexpr int kMaxEntries = 64;
constexpr int kHalves = kMaxEntries / 32;  // entries of a lane
constexpr int kMaxSources = 8;
constexpr float kLog2E = 1.44269504f;
constexpr float kLn2 = 0.693147181f;

// LossCall as the kernels take it, by value.
struct LossArgs {
  const void* logits;
  float* loss;
  void* grad;
  const float* scales;
  int64_t rows, logits_stride, grad_stride, scale_stride;
  DenseTarget dense;
  Source sources[kMaxSources];
  int classes, num_sources;
  float inv_temperature, scale;
  bool same_phase;   // a row of logits and its row of gradients lie at the same place within 16 bytes
  bool dense_phase;  // where a row of logits is at a 16-byte boundary, so is its row of dense targets
};

// An id or a value as it lies in memory: 2, 4 or 8 bytes. What is loaded early is converted late, where it is
// used, because a conversion beside its load waits for memory.
struct Raw {
  uint32_t low, high;
};

__device__ __forceinline__ int size_of(Int type) { return 2 << static_cast<int>(type); }
__device__ __forceinline__ int size_of(Float type) {
  return type == Float::kF32 ? 4 : type == Float::kF64 ? 8 : 2;
}

template <typename Type>
__device__ __forceinline__ Raw load_raw(const void* from, Type type, int64_t index) {
  const int size = size_of(type);
  const char* at = static_cast<const char*>(from) + index * size;
  if (size == 2) return {*reinterpret_cast<const uint16_t*>(at), 0};
  if (size == 4) return {*reinterpret_cast<const uint32_t*>(at), 0};
  const Pair pair = load8(at);
  return {pair.word[0], pair.word[1]};
}

// Negative where the id is, or does not fit.
__device__ __forceinline__ int id_of(Raw raw, Int type) {
  if (type == Int::kI16) return static_cast<int16_t>(raw.low);
  return raw.high == 0 ? static_cast<int>(raw.low) : -1;
}

__device__ __forceinline__ float value_of(Raw raw, Float type) {
  switch (type) {
    case Float::kF32:
      return bits_to_float(raw.low);
    case Float::kBf16:
      return DeviceBf16::widen(static_cast<uint16_t>(raw.low));
    case Float::kF16:
      return from_f16(static_cast<uint16_t>(raw.low));
    default:
      return static_cast<float>(bits_to_double(raw.low, raw.high));
  }
}

// The factor of a row's gradient. One thread loads it early, multiplies late and hands it on in shared
// memory: if all did, the compiler would see that it is the same for all, and wait for it at once.
struct GradientScale {
  float raw = 1;

  __device__ __forceinline__ GradientScale(const LossArgs& args, int64_t row, bool mine) {
    if (mine && args.scales) raw = args.scales[row * args.scale_stride];
  }
  __device__ __forceinline__ float value(const LossArgs& args) const {
    return args.scale * args.inv_temperature * raw;
  }
};

// A product that is 0 where the first factor is: 0 * log 0 = 0.
__device__ __forceinline__ float product(float y, float t) { return y == 0.f ? 0.f : y * t; }

// Calls visit(half, e) for a thread's share of `count` entries: e = rank, and e = rank + 32 with half = 1.
// The compiler knows each half, so what visit keeps in an array with a place for each stays in registers.
template <typename Visit>
__device__ __forceinline__ void each_entry(int count, int rank, Visit visit) {
#pragma unroll
  for (int half = 0; half < kHalves; ++half) {
    if (rank + 32 * half < count) visit(half, rank + 32 * half);
  }
}

struct Entries {
  int ids[kMaxEntries];
  float deltas[kMaxEntries];
  float base, mass, scale;  // scale: the factor of the row's gradient
  int count;

  // Called by all lanes of one warp; others may read after the next barrier. A class or a row that does not
  // exist makes base and mass NaN, and so the whole row's loss and gradient. Returns the number of entries.
  __device__ __forceinline__ int read(const LossArgs& args, int64_t row, int lane) {
    const GradientScale gradient_scale(args, row, lane == 0);
    float all_base = 0, all_mass = 0;
    int n = 0;
    bool wrong = false;
    for (int i = 0; i < args.num_sources; ++i) {
      const Source& source = args.sources[i];
      const int64_t from = source.rows ? source.rows[row] : row;
      if (from < 0 || from >= source.num_rows) {
        wrong = true;
        continue;
      }
      Raw raw_ids[kHalves] = {}, raw_values[kHalves] = {};
      each_entry(source.k, lane, [&](int half, int k) {
        raw_ids[half] = load_raw(source.ids, source.ids_type, from * source.ids_stride + k);
        if (!source.values) return;
        raw_values[half] = load_raw(source.values, source.values_type, from * source.values_stride + k);
      });
      const float weight = source.weights ? source.weight * source.weights[row] : source.weight;
      float values[kHalves] = {};
      each_entry(source.k, lane, [&](int half, int k) {
        const int id = id_of(raw_ids[half], source.ids_type);
        const bool exists = id >= 0 && id < args.classes;
        wrong |= !exists;
        ids[n + k] = exists ? id : 0;
        values[half] = source.values ? value_of(raw_values[half], source.values_type) : 1.f;
      });
      const Recovery<float> r =
          recover<float>(source.tail, warp_sum(values[0] + values[1]), source.k, args.classes);
      each_entry(source.k, lane,
                 [&](int half, int k) { deltas[n + k] = weight * (r.gain * values[half] - r.base); });
      all_base += weight * r.base;
      all_mass += weight * r.mass;
      n += source.k;
    }
    wrong = __any_sync(kAllLanes, wrong);
    if (lane == 0) {
      base = wrong ? NAN : all_base;
      mass = wrong ? NAN : all_mass;
      scale = gradient_scale.value(args);
      count = n;
    }
    __syncwarp();
    return n;
  }

  // The sum of the deltas of entry e's class; `first` says whether e is the first that names the class.
  __device__ __forceinline__ float merged(int e, bool* first) const {
    float delta = 0;
    *first = true;
    for (int j = 0; j < count; ++j) {
      if (ids[j] != ids[e]) continue;
      if (j < e) *first = false;
      delta += deltas[j];
    }
    return delta;
  }
};

// Adds exp2(t) of one element to a row's sums, apart where t = 0, at the maximum.
__device__ __forceinline__ void add_exp(float t, Sums* sums) {
  sums->ties += t == 0.f ? 1.f : 0.f;
  sums->others += t == 0.f ? 0.f : exp2_fast(t);
}

// Loss of a row from its sums over t = (z - max) * log2(e) / temperature; linear = sum(y * t).
__device__ __forceinline__ float softmax_loss(const Entries& target, const Sums& s) {
  return target.mass * (logf(s.ties) + log1pf(s.others / s.ties)) - kLn2 * s.linear;
}

// Writes the gradients of the classes that the target names, over what the quads wrote. z, t: of entry e.
template <typename T>
__device__ __forceinline__ void put_entry(const Entries& target, const Sums& s, int e, float t,
                                          typename T::Stored* grad) {
  bool first;
  const float y = target.base + target.merged(e, &first);
  if (!first) return;
  const float total = s.ties + s.others;
  const bool only_max = s.ties == 1.f && t == 0.f;  // p = 1 - others / total keeps its digits near 1
  const float p = target.mass * (only_max ? -s.others : exp2_fast(t)) / total;
  const float rest = only_max ? target.mass - y : -y;
  grad[target.ids[e]] = T::narrow(target.scale * (p + rest));
}

}  // namespace fkdx
