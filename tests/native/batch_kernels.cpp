// SPDX-License-Identifier: Apache-2.0
// The CUDA kernels that prepare batches and pick a teacher's top K, run on the CPU: prepare equals
// prepare_cpu bit for bit, top-k equals a sort. Built with sanitizers by `make sanitize`.
#include "cuda_on_cpu.h"

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <random>

#include "batch/prepare_kernel.h"
#include "batch/topk_kernel.h"
#include "buffer.h"

namespace fkdx {
namespace {

std::mt19937 rng;
int failures = 0;

int below(int n) { return std::uniform_int_distribution<int>(0, n - 1)(rng); }

void expect(bool ok, const char* what, int a, int b, int c) {
  if (!ok && ++failures <= 20) std::printf("FAILED %s: %d, %d, %d\n", what, a, b, c);
}

template <typename T, int kPer>
void compare_prepare(PixelType type, int height, int width, bool mixed, bool apart = false) {
  const int rows = 3;
  const size_t count = size_t(rows) * height * width * 3, size = sizeof(typename T::Stored);
  Buffer images(count, kPer == 1 ? 3 : 0, 0), others(count, 0, 0), want(count * size, 0, 0x55),
      got(count * size, 0, 0x2a);
  for (size_t i = 0; i < count; ++i) images.data[i] = char(below(256)), others.data[i] = char(below(256));
  std::vector<int64_t> partners{2, 1, 0};
  std::vector<float> blend{1, 0.3f, 0.71f};
  std::vector<int32_t> boxes;
  for (int row = 0; row < rows; ++row) {
    const int top = below(height), left = below(width);
    boxes.insert(boxes.end(), {top, left, below(height - top + 1), below(width - left + 1)});
  }
  PrepareCall call{};
  call.images = reinterpret_cast<const uint8_t*>(images.data);
  call.others = apart ? reinterpret_cast<const uint8_t*>(others.data) : call.images;
  call.out = want.data;
  call.rows = call.other_rows = rows;
  call.height = height;
  call.width = width;
  call.type = type;
  for (int c = 0; c < 3; ++c) call.scale[c] = 0.01f + 0.003f * c, call.bias[c] = -1.f + 0.7f * c;
  if (mixed) call.partners = partners.data(), call.boxes = boxes.data(), call.blend = blend.data();
  prepare_cpu(call, 1);
  call.out = got.data;
  const unsigned per_block = kPrepareThreads * kChunks * kPer;
  const unsigned parts = unsigned(count / rows + per_block - 1) / per_block;
  cuda_on_cpu::launch(mixed ? prepare_kernel<T, kPer, true> : prepare_kernel<T, kPer, false>, {rows, parts},
                      kPrepareThreads, call);
  expect(got.bytes == want.bytes, "prepare", int(type), height, width);
}

template <typename T>
void prepare_cases(PixelType type) {
  for (const bool mixed : {false, true}) {
    compare_prepare<T, T::kPerQuad>(type, 16, 24, mixed);
    compare_prepare<T, T::kPerQuad>(type, 40, 56, mixed);
    compare_prepare<T, T::kPerQuad>(type, 8, 8, mixed, true);
    compare_prepare<T, 1>(type, 7, 13, mixed);
    compare_prepare<T, 1>(type, 1, 1, mixed);
  }
}

template <typename T, int kThreads, int kQuads>
void compare_topk(LogitType type, int classes, int k, int offset, bool half) {
  using Stored = typename T::Stored;
  const int rows = 3, stride = classes + below(4);
  Buffer logits((size_t(rows - 1) * stride + classes) * sizeof(Stored), offset * sizeof(Stored), 0);
  Stored* z = reinterpret_cast<Stored*>(logits.data);
  for (int row = 0; row < rows; ++row) {
    for (int c = 0; c < classes; ++c) z[row * stride + c] = T::narrow(below(41) / 4.f - 5);  // with ties
  }
  std::vector<int32_t> ids(rows * k, -1);
  std::vector<float> values(rows * k, NAN);
  TopkCall call{z, ids.data(), values.data(), rows, stride, classes, k, 0.5f, type, half};
  const unsigned blocks = kThreads == 32 ? (rows + 3) / 4 : rows;
  cuda_on_cpu::launch(topk_kernel<T, kThreads, kQuads, 1>, {blocks, 1}, kThreads == 32 ? 128 : kThreads,
                      call);
  for (int row = 0; row < rows; ++row) {
    const auto value = [&](int c) { return double(T::widen(z[row * stride + c])); };
    std::vector<int> order(classes);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return value(a) > value(b); });
    double total = 0;
    for (int c = 0; c < classes; ++c) total += std::exp((value(c) - value(order[0])) / 2);
    for (int i = 0; i < k; ++i) {
      const double p = std::exp((value(order[i]) - value(order[0])) / 2) / total;
      const double got =
          half ? from_f16(reinterpret_cast<uint16_t*>(values.data())[row * k + i]) : values[row * k + i];
      expect(ids[row * k + i] == order[i], "topk id", classes, k, i);
      expect(std::fabs(got - p) <= (half ? 5e-4 : 1e-6) * p + 3e-8, "topk value", classes, k, i);
    }
  }
}

template <typename T>
void topk_cases(LogitType type) {
  constexpr int kPer = T::kPerQuad;
  for (const int classes : {1, 7, 33, 257, 1000}) {
    const int k = 1 + below(std::min(classes, 16));
    compare_topk<T, 32, 32 / kPer>(type, classes, k, below(kPer), below(2));
    compare_topk<T, 256, 32 / kPer>(type, classes, k, below(kPer), below(2));
    compare_topk<T, 512, 16 / kPer>(type, classes, k, below(kPer), below(2));
  }
}

}  // namespace
}  // namespace fkdx

// batch_kernels [SEED [quick]]
int main(int argc, char** argv) {
  const unsigned seed = argc > 1 ? unsigned(std::atoi(argv[1])) : std::random_device{}() % 100000;
  fkdx::rng.seed(seed);
  fkdx::prepare_cases<fkdx::DeviceBf16>(fkdx::PixelType::kBf16);
  fkdx::topk_cases<fkdx::DeviceBf16>(fkdx::LogitType::kBf16);
  if (argc <= 2) {
    fkdx::prepare_cases<fkdx::DeviceF32>(fkdx::PixelType::kF32);
    fkdx::prepare_cases<fkdx::DeviceF16>(fkdx::PixelType::kF16);
    fkdx::topk_cases<fkdx::DeviceF32>(fkdx::LogitType::kF32);
    fkdx::topk_cases<fkdx::DeviceF16>(fkdx::LogitType::kF16);
  }
  std::printf("batch_kernels: seed %u, %d failures\n", seed, fkdx::failures);
  return fkdx::failures != 0;
}
