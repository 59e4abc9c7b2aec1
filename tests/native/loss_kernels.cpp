// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels of the loss, run on the CPU and compared with loss_cpu: every kernel, type, alignment and
// kind of target, exact-size buffers, outputs filled with NaN before. Built with sanitizers by `make
// sanitize`.
#include "cuda_on_cpu.h"

#include <cstdio>
#include <random>

#include "buffer.h"
#include "loss/dense_kernel.h"
#include "loss/entries.h"
#include "loss/loop_kernel.h"
#include "loss/row_kernel.h"

namespace fkdx {
namespace {

std::mt19937 rng;

float normal(float spread) { return std::normal_distribution<float>(0, spread)(rng); }
int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(rng); }

template <typename T>
constexpr Float kType = Float::kF32;
template <>
constexpr Float kType<DeviceBf16> = Float::kBf16;
template <>
constexpr Float kType<DeviceF16> = Float::kF16;

struct Case {
  int rows, classes, offset, padding, k, sources, kernel;
  bool tail;
};

template <typename T>
void append(std::vector<char>& to, T x) {
  to.insert(to.end(), reinterpret_cast<const char*>(&x), reinterpret_cast<const char*>(&x) + sizeof(x));
}

void append(std::vector<char>& to, Int type, int id) {
  if (type == Int::kI16) return append(to, int16_t(id));
  if (type == Int::kI32) return append(to, int32_t(id));
  append(to, int64_t(id));
}

void append(std::vector<char>& to, Float type, float value) {
  if (type == Float::kF32) return append(to, value);
  if (type == Float::kF64) return append(to, double(value));
  append(to, type == Float::kBf16 ? to_bf16(value) : to_f16(value));
}

// The labels of a case, of any types: ids may repeat, the first source is read through a permutation with
// weights.
struct Labels {
  std::vector<std::vector<char>> ids, values;
  std::vector<int64_t> permutation;
  std::vector<float> weights;
  std::vector<Source> sources;

  explicit Labels(const Case& c) : ids(c.sources), values(c.sources) {
    for (int b = 0; b < c.rows; ++b) {
      permutation.push_back(below(c.rows));
      weights.push_back(0.25f + 0.5f * below(2));
    }
    for (int s = 0; s < c.sources; ++s) {
      Source source{};
      source.ids_type = static_cast<Int>(below(3));
      source.values_type = static_cast<Float>(below(4));
      for (int i = 0; i < c.rows * c.k; ++i) {
        append(ids[s], source.ids_type, below(std::min(c.classes, 32767)));
        append(values[s], source.values_type, 0.9f / c.k * (1 + below(8)) / 8);
      }
      source.ids = ids[s].data();
      source.values = c.tail || below(4) ? values[s].data() : nullptr;
      source.ids_stride = source.values_stride = c.k;
      source.num_rows = c.rows;
      source.k = c.k;
      source.tail = c.tail;
      source.weight = 1.f / c.sources;
      if (s == 0 && c.sources > 1) source.rows = permutation.data(), source.weights = weights.data();
      sources.push_back(source);
    }
  }
};

template <typename T>
void run(const LossArgs& args, Link link, int kernel) {
  constexpr bool kWide = sizeof(typename T::Stored) == 4;
  const unsigned rows = unsigned(args.rows);
  using cuda_on_cpu::launch;
  if (link == Link::kSigmoid) return launch(sigmoid_kernel<T>, {rows, 1}, kDenseThreads, args);
  if (args.dense.values) return launch(dense_kernel<T>, {rows, 1}, kDenseThreads, args);
  if (kernel == 0) return launch(row_kernel < T, 32, kWide ? 8 : 4, 6 >, {(rows + 3) / 4, 1}, 128, args);
  if (kernel == 1) return launch(row_kernel < T, 128, kWide ? 2 : 1, 8 >, {rows, 1}, 128, args);
  if (kernel == 2) return launch(row_kernel < T, 256, kWide ? 8 : 4, 3 >, {rows, 1}, 256, args);
  return launch(loop_kernel<T>, {rows, 1}, kLoopThreads, args);
}

int failures = 0;

void expect(bool ok, const Case& c, const char* what, double got, double want) {
  if (ok || ++failures > 20) return;
  std::printf(
      "FAILED %s: got %.9g, expected %.9g (rows %d, classes %d, offset %d, padding %d, k %d, sources %d, "
      "kernel %d)\n",
      what, got, want, c.rows, c.classes, c.offset, c.padding, c.k, c.sources, c.kernel);
}

template <typename T>
void compare(const Case& c, Link link, bool dense, float teacher) {
  using Stored = typename T::Stored;
  const int size = sizeof(Stored), stride = c.classes + c.padding;
  const size_t bytes = size_t(c.rows) * stride * size - size_t(c.padding) * size;
  Buffer logits(bytes, c.offset * size, 0), grad(bytes, c.offset * size, char(0xff));
  Buffer other(size_t(c.rows) * c.classes * size, ((c.kernel == 4) ^ c.offset) * size % 16, char(0xff));
  for (int b = 0; b < c.rows; ++b) {
    for (int i = 0; i < c.classes; ++i) {
      reinterpret_cast<Stored*>(logits.data)[b * stride + i] = T::narrow(normal(3));
    }
  }
  Labels labels(c);
  std::vector<float> probabilities(size_t(c.rows) * c.classes);
  for (float& p : probabilities) p = teacher ? normal(2) : below(1000) / (500.f * c.classes);

  LossCall call{};
  call.logits = logits.data;
  call.type = kType<T>;
  call.rows = c.rows;
  call.classes = c.classes;
  call.logits_stride = stride;
  call.link = link;
  call.inv_temperature = 0.5;
  call.scale = 3;
  if (dense) {
    call.dense = {probabilities.data(), c.classes, teacher, Float::kF32};
  } else {
    call.sources = labels.sources.data();
    call.num_sources = c.sources;
  }
  std::vector<float> want_loss(c.rows), want(size_t(c.rows) * c.classes);
  {  // the judge computes in float32 from the same logits
    std::vector<float> wide(want.size());
    for (size_t i = 0; i < wide.size(); ++i) {
      wide[i] = T::widen(reinterpret_cast<Stored*>(logits.data)[i / c.classes * stride + i % c.classes]);
    }
    LossCall judge = call;
    judge.logits = wide.data();
    judge.type = Float::kF32;
    judge.logits_stride = judge.grad_stride = c.classes;
    judge.loss = want_loss.data();
    judge.grad = want.data();
    loss_cpu(judge, 1);
  }

  std::vector<float> loss(c.rows, NAN);
  LossArgs args{};
  args.logits = logits.data;
  args.loss = loss.data();
  const bool same_phase = c.kernel != 4;  // 4: the loop, with gradients that lie otherwise than the logits
  args.grad = same_phase ? grad.data : other.data;
  args.rows = c.rows;
  args.logits_stride = stride;
  args.grad_stride = same_phase ? stride : c.classes;
  args.dense = call.dense;
  for (int s = 0; s < call.num_sources; ++s) args.sources[s] = call.sources[s];
  args.num_sources = call.num_sources;
  args.classes = c.classes;
  args.inv_temperature = 0.5f;
  args.scale = 3;
  args.same_phase = same_phase;
  run<T>(args, link, c.kernel);

  const double ulp = size == 4 ? 4 * 0x1p-24 : kType<T> == Float::kF16 ? 0x1p-11 : 0x1p-8;
  for (int b = 0; b < c.rows; ++b) {
    expect(std::fabs(loss[b] - want_loss[b]) <= 1e-6 * std::fabs(want_loss[b]) + 1e-6, c, "loss", loss[b],
           want_loss[b]);
    const Stored* row = static_cast<const Stored*>(args.grad) + b * args.grad_stride;
    for (int i = 0; i < c.classes; ++i) {
      const double got = T::widen(row[i]), exact = want[size_t(b) * c.classes + i];
      expect(std::fabs(got - exact) <= 1.02 * ulp * std::fabs(exact) + 6e-7, c, "gradient", got, exact);
    }
  }
}

template <typename T>
void all_cases(const std::vector<int>& classes, int kernels) {
  for (int count : classes) {
    for (int kernel = 0; kernel < kernels; ++kernel) {
      if (kernel < 2 && count / T::kPerQuad > 128 * (sizeof(typename T::Stored) == 4 ? 2 : 1)) continue;
      Case c{3 + 2 * below(2), count, below(8), below(3), below(7), 1 + below(3), kernel, below(2) == 0};
      if (sizeof(typename T::Stored) == 4) c.offset %= 4;
      compare<T>(c, Link::kSoftmax, false, 0);
    }
    const Case c{2, count, 0, 1, 5, 2, 3, true};
    compare<T>(c, Link::kSigmoid, false, 0);
    compare<T>(c, Link::kSigmoid, true, 0);
    compare<T>(c, Link::kSoftmax, true, 0);
    compare<T>(c, Link::kSoftmax, true, 0.7f);
  }
}

// A row that names a class that does not exist is NaN; the row before it is not.
void spoil(Int type, int64_t wrong, Link link, int kernel) {
  const Case c{2, 33, 0, 0, 2, 1, kernel, true};
  Labels labels(c);
  labels.ids[0].clear();
  for (const int64_t id : {int64_t{4}, int64_t{7}, int64_t{32}, wrong}) {
    if (type == Int::kI64) {
      append(labels.ids[0], id);
    } else {
      append(labels.ids[0], type, int(id));
    }
  }
  std::vector<float> logits(2 * 33), grad(2 * 33), loss(2);
  for (float& z : logits) z = normal(3);
  LossArgs args{};
  args.logits = logits.data();
  args.loss = loss.data();
  args.grad = grad.data();
  args.rows = 2;
  args.classes = args.logits_stride = args.grad_stride = 33;
  args.sources[0] = labels.sources[0];
  args.sources[0].ids = labels.ids[0].data();
  args.sources[0].ids_type = type;
  args.num_sources = 1;
  args.inv_temperature = args.scale = 1;
  args.same_phase = true;
  run<DeviceF32>(args, link, kernel);
  for (int i = 0; i < 33; ++i) {
    expect(!std::isnan(grad[i]) && std::isnan(grad[33 + i]), c, "wrong class", grad[33 + i], double(wrong));
  }
  expect(!std::isnan(loss[0]) && std::isnan(loss[1]), c, "wrong class's loss", loss[1], double(wrong));
}

void wrong_classes() {
  for (int kernel = 0; kernel < 4; ++kernel) {
    const Link link = kernel == 2 ? Link::kSigmoid : Link::kSoftmax;
    for (const int id : {-1, 33, 32767}) spoil(Int::kI16, id, link, kernel);
    for (const int id : {-1, 33, INT32_MIN}) spoil(Int::kI32, id, link, kernel);
    for (const int64_t id : {int64_t{-1}, int64_t{1} << 31, (int64_t{1} << 32) + 5, INT64_MIN}) {
      spoil(Int::kI64, id, link, kernel);
    }
  }
}

}  // namespace
}  // namespace fkdx

// loss_kernels [SEED [quick]]
int main(int argc, char** argv) {
  const unsigned seed = argc > 1 ? unsigned(std::atoi(argv[1])) : std::random_device{}() % 100000;
  const bool quick = argc > 2;
  fkdx::rng.seed(seed);
  std::vector<int> classes{1, 2, 7, 8, 9, 33, 257, 1000, 1001};
  if (quick) classes = {9, 257};
  fkdx::all_cases<fkdx::DeviceF32>(classes, 5);
  fkdx::all_cases<fkdx::DeviceBf16>(classes, 5);
  fkdx::all_cases<fkdx::DeviceF16>(quick ? std::vector<int>{33} : classes, 5);
  fkdx::compare<fkdx::DeviceBf16>({1, 5003, 3, 0, 64, 1, 2, true}, fkdx::Link::kSoftmax, false, 0);
  fkdx::wrong_classes();
  std::printf("loss_kernels: seed %u, %d failures\n", seed, fkdx::failures);
  return fkdx::failures != 0;
}
