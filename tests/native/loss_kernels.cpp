// SPDX-License-Identifier: Apache-2.0
// The CUDA part of the loss, run on the CPU and compared with loss_cpu: every kernel, type, alignment and
// kind of target, exact-size buffers, outputs filled with NaN before. Built with sanitizers by `make
// sanitize`.
#include "cuda_on_cpu.h"

#include <cstdio>
#include <random>

#include "buffer.h"
#include "loss/entries.h"
#include "loss/loss_cuda.cu"

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

enum Way : int {
  kWarps,
  kBlocks,
  kShape,
  kLoops,
  kApart
};  // kApart: gradients lie otherwise than the logits

LossKernel wish(int way) {
  constexpr LossKernel kWishes[] = {LossKernel::kWarp, LossKernel::kBlock, LossKernel::kAuto,
                                    LossKernel::kLoop, LossKernel::kAuto};
  return kWishes[way];
}

struct Case {
  int rows, classes, offset, padding, k, sources, way;
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

int failures = 0;

void expect(bool ok, const Case& c, const char* what, double got, double want) {
  if (ok || ++failures > 20) return;
  std::printf(
      "FAILED %s: got %.9g, expected %.9g (rows %d, classes %d, offset %d, padding %d, k %d, sources %d, "
      "way %d)\n",
      what, got, want, c.rows, c.classes, c.offset, c.padding, c.k, c.sources, c.way);
}

// (rows, classes) dense targets of either type, `padding` elements between the rows.
struct DenseValues {
  Float type;
  int stride;
  std::vector<char> bytes;
  Buffer buffer;
  std::vector<float> wide;  // what the kernels read, in float32

  DenseValues(const Case& c, Float type_, int offset, int padding, float teacher)
      : type(type_), stride(c.classes + padding), buffer(0, 0, 0) {
    for (int i = 0; i < c.rows * stride; ++i) {
      append(bytes, type, teacher ? normal(2) : below(1000) / (500.f * c.classes));
    }
    const size_t size = type == Float::kF32 ? 4 : 2;
    bytes.resize(bytes.size() - padding * size);
    buffer = Buffer(bytes.size(), offset * size, 0);
    std::memcpy(buffer.data, bytes.data(), bytes.size());
    for (int b = 0; b < c.rows; ++b) {
      for (int i = 0; i < c.classes; ++i) {
        wide.push_back(float(load_float(bytes.data(), type, int64_t(b) * stride + i)));
      }
    }
  }
};

// Loss and gradient of the case's logits, in float32, by the CPU's kernels.
struct Judged {
  std::vector<float> loss, grad;

  Judged(LossCall call, const std::vector<float>& logits, const float* dense)
      : loss(call.rows), grad(logits.size()) {
    call.logits = logits.data();
    call.type = Float::kF32;
    call.logits_stride = call.grad_stride = call.classes;
    call.loss = loss.data();
    call.grad = grad.data();
    if (dense) call.dense.values = dense, call.dense.type = Float::kF32, call.dense.stride = call.classes;
    loss_cpu(call, 1);
  }
};

template <typename T>
void compare(const Case& c, Link link, const DenseValues* dense = nullptr, float teacher = 0) {
  using Stored = typename T::Stored;
  const int size = sizeof(Stored), stride = c.classes + c.padding;
  const size_t bytes = size_t(c.rows) * stride * size - size_t(c.padding) * size;
  Buffer logits(bytes, c.offset * size, 0), grad(bytes, c.offset * size, char(0xff));
  Buffer other(size_t(c.rows) * c.classes * size, ((c.way == kApart) ^ c.offset) * size % 16, char(0xff));
  std::vector<float> wide;
  for (int b = 0; b < c.rows; ++b) {
    for (int i = 0; i < c.classes; ++i) {
      Stored& z = reinterpret_cast<Stored*>(logits.data)[b * stride + i];
      z = T::narrow(normal(3));
      wide.push_back(T::widen(z));
    }
  }
  Labels labels(c);
  std::vector<float> loss(c.rows, NAN), scales;
  for (int b = 0; b < 2 * c.rows; ++b) scales.push_back(0.5f + below(4));

  LossCall call{};
  call.logits = logits.data;
  call.type = kType<T>;
  call.rows = c.rows;
  call.classes = c.classes;
  call.logits_stride = stride;
  call.loss = loss.data();
  call.grad = c.way == kApart ? other.data : grad.data;
  call.grad_stride = c.way == kApart ? c.classes : stride;
  call.link = link;
  call.inv_temperature = 0.5;
  call.scale = 3;
  call.scale_stride = below(3);
  if (below(2)) call.scales = scales.data();
  if (dense) {
    call.dense = {dense->buffer.data, dense->stride, teacher, dense->type};
  } else {
    call.sources = labels.sources.data();
    call.num_sources = c.sources;
  }
  const Judged want(call, wide, dense ? dense->wide.data() : nullptr);
  loss_cuda(call, 0, 0, wish(c.way));

  const double ulp = size == 4 ? 4 * 0x1p-24 : kType<T> == Float::kF16 ? 0x1p-11 : 0x1p-8;
  const double least = call.scales ? 2.1e-6 : 6e-7;  // factors are at most 3.5
  for (int b = 0; b < c.rows; ++b) {
    expect(std::fabs(loss[b] - want.loss[b]) <= 1e-6 * std::fabs(want.loss[b]) + 1e-6, c, "loss", loss[b],
           want.loss[b]);
    const Stored* row = static_cast<const Stored*>(call.grad) + b * call.grad_stride;
    for (int i = 0; i < c.classes; ++i) {
      const double got = T::widen(row[i]), exact = want.grad[size_t(b) * c.classes + i];
      expect(std::fabs(got - exact) <= 1.02 * ulp * std::fabs(exact) + least, c, "gradient", got, exact);
    }
  }
}

template <typename T>
void dense_cases(int classes) {
  for (const Float type : {Float::kF32, kType<T>}) {
    for (const int way : {int(kShape), int(kApart)}) {
      // Rows that lie as the logits do, rows a few elements off, and rows that are longer than the logits'.
      for (const auto& [offset, padding] : {std::pair{0, 0}, {below(4), 0}, {0, 1 + below(5)}, {3, 8}}) {
        const Case c{2, classes, way == kApart ? 3 : offset, 0, 1, 1, way, true};
        const DenseValues probabilities(c, type, offset, padding, 0), logits(c, type, offset, padding, 0.7f);
        compare<T>(c, Link::kSigmoid, &probabilities);
        compare<T>(c, Link::kSoftmax, &probabilities);
        compare<T>(c, Link::kSoftmax, &logits, 0.7f);
      }
    }
  }
}

template <typename T>
void all_cases(const std::vector<int>& classes) {
  for (int count : classes) {
    for (const int way : {kWarps, kBlocks, kShape, kLoops, kApart}) {
      Case c{3 + 2 * below(2), count, below(8), below(3), below(7), 1 + below(3), way, below(2) == 0};
      if (sizeof(typename T::Stored) == 4) c.offset %= 4;
      compare<T>(c, Link::kSoftmax);
    }
    compare<T>({2, count, 0, 1, 5, 2, kShape, true}, Link::kSigmoid);
    compare<T>({2, count, 3, 0, 5, 2, kApart, true}, Link::kSigmoid);
    dense_cases<T>(count);
  }
}

// Rows as long as registers can hold, and longer ones.
template <typename T>
void long_rows() {
  for (const int classes : {8200, 21841, 22528, 22600}) {
    const int offset = below(T::kPerQuad);
    compare<T>({2, classes, offset, below(9), 64, 1, kShape, true}, Link::kSoftmax);
  }
}

// A row that names a class that does not exist is NaN; the row before it is not.
void spoil(Int type, int64_t wrong, Link link, int way) {
  const Case c{2, 33, 0, 0, 2, 1, way, true};
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
  labels.sources[0].ids = labels.ids[0].data();
  labels.sources[0].ids_type = type;
  LossCall call{};
  call.logits = logits.data();
  call.loss = loss.data();
  call.grad = grad.data();
  call.rows = 2;
  call.classes = call.logits_stride = call.grad_stride = 33;
  call.sources = labels.sources.data();
  call.num_sources = 1;
  call.inv_temperature = call.scale = 1;
  call.link = link;
  loss_cuda(call, 0, 0, wish(way));
  for (int i = 0; i < 33; ++i) {
    expect(!std::isnan(grad[i]) && std::isnan(grad[33 + i]), c, "wrong class", grad[33 + i], double(wrong));
  }
  expect(!std::isnan(loss[0]) && std::isnan(loss[1]), c, "wrong class's loss", loss[1], double(wrong));
}

// A NaN or an infinite logit makes its row NaN wherever it stands, and no other.
template <typename T>
void bad_logits(int classes, int way) {
  for (const float bad : {float(NAN), float(INFINITY)}) {
    const Case c{2, classes, 1, 0, 1, 1, way, true};
    const Labels labels(c);
    Buffer logits(size_t(2) * classes * sizeof(typename T::Stored), sizeof(typename T::Stored), 0);
    auto* z = reinterpret_cast<typename T::Stored*>(logits.data);
    for (int i = 0; i < 2 * classes; ++i) z[i] = T::narrow(normal(3));
    z[classes + below(classes)] = T::narrow(bad);
    std::vector<float> loss(2);
    LossCall call{};
    call.logits = logits.data;
    call.type = kType<T>;
    call.loss = loss.data();
    call.rows = 2;
    call.classes = call.logits_stride = classes;
    call.sources = labels.sources.data();
    call.num_sources = 1;
    call.inv_temperature = call.scale = 1;
    loss_cuda(call, 0, 0, wish(way));
    expect(!std::isnan(loss[0]) && std::isnan(loss[1]), c, "bad logit's loss", loss[1], bad);
  }
}

void wrong_classes() {
  for (const int way : {kWarps, kBlocks, kShape, kLoops}) {
    const Link link = way == kShape ? Link::kSigmoid : Link::kSoftmax;
    for (const int id : {-1, 33, 32767}) spoil(Int::kI16, id, link, way);
    for (const int id : {-1, 33, INT32_MIN}) spoil(Int::kI32, id, link, way);
    for (const int64_t id : {int64_t{-1}, int64_t{1} << 31, (int64_t{1} << 32) + 5, INT64_MIN}) {
      spoil(Int::kI64, id, link, way);
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
  fkdx::all_cases<fkdx::DeviceF32>(classes);
  fkdx::all_cases<fkdx::DeviceBf16>(classes);
  fkdx::all_cases<fkdx::DeviceF16>(quick ? std::vector<int>{33} : classes);
  fkdx::compare<fkdx::DeviceBf16>({1, 5003, 3, 0, 64, 1, fkdx::kShape, true}, fkdx::Link::kSoftmax);
  if (!quick) {
    fkdx::long_rows<fkdx::DeviceF32>();
    fkdx::long_rows<fkdx::DeviceBf16>();
  }
  fkdx::wrong_classes();
  for (const int way : {fkdx::kWarps, fkdx::kBlocks, fkdx::kLoops}) {
    fkdx::bad_logits<fkdx::DeviceF32>(1001, way);
    fkdx::bad_logits<fkdx::DeviceBf16>(1001, way);
    fkdx::bad_logits<fkdx::DeviceF16>(1001, way);
  }
  std::printf("loss_kernels: seed %u, %d failures\n", seed, fkdx::failures);
  return fkdx::failures != 0;
}
