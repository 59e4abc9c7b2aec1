// SPDX-License-Identifier: Apache-2.0
// Every kernel on a GPU from exact-size buffers, without Python: what compute-sanitizer runs (bench/gpu.sh).
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <cmath>
#include <cstdio>
#include <random>
#include <vector>

#include "base/cuda.h"
#include "batch/prepare.h"
#include "batch/topk.h"
#include "loss/loss_cuda.h"

namespace {

using namespace fkdx;

std::mt19937 rng(1);
int failures = 0;

float uniform(float low, float high) { return std::uniform_real_distribution<float>(low, high)(rng); }

void expect(bool ok, const char* what, int a, int b) {
  if (!ok && ++failures <= 20) std::printf("FAILED %s: %d, %d\n", what, a, b);
}

// Device memory of exactly these elements, freed at the end; memcheck sees every access beyond.
template <typename T>
struct OnDevice {
  T* data = nullptr;
  size_t count;
  explicit OnDevice(size_t n) : count(n) { cuda_check(cudaMalloc(&data, n * sizeof(T)), "cudaMalloc"); }
  explicit OnDevice(const std::vector<T>& from) : OnDevice(from.size()) {
    cuda_check(cudaMemcpy(data, from.data(), count * sizeof(T), cudaMemcpyHostToDevice), "to device");
  }
  ~OnDevice() { cudaFree(data); }
  OnDevice(const OnDevice&) = delete;
  std::vector<T> host() const {
    std::vector<T> to(count);
    cuda_check(cudaMemcpy(to.data(), data, count * sizeof(T), cudaMemcpyDeviceToHost), "to host");
    return to;
  }
};

float widen(float x) { return x; }
float widen(__half x) { return __half2float(x); }
float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
void narrow(float x, float* to) { *to = x; }
void narrow(float x, __half* to) { *to = __float2half(x); }
void narrow(float x, __nv_bfloat16* to) { *to = __float2bfloat16(x); }

template <typename T>
void check_loss(Float type, int classes, int k, LossKernel kernel, Link link, bool dense) {
  const int rows = 5;
  const size_t count = size_t(rows) * classes;
  std::vector<T> logits(count);
  std::vector<float> wide(count), probabilities(count);
  for (size_t i = 0; i < count; ++i) {
    narrow(uniform(-6, 6), &logits[i]);
    wide[i] = widen(logits[i]);
    probabilities[i] = uniform(0, 2.f / classes);
  }
  std::vector<int16_t> ids(rows * k);
  std::vector<float> values(rows * k);
  for (int i = 0; i < rows * k; ++i)
    ids[i] = int16_t(rng() % std::min(classes, 32000)), values[i] = uniform(0, 0.9f / k);
  Source source{};
  source.ids_type = Int::kI16;
  source.values_type = Float::kF32;
  source.ids_stride = source.values_stride = source.k = k;
  source.num_rows = rows;
  source.weight = 1;
  source.tail = true;

  LossCall call{};
  call.rows = rows;
  call.classes = call.logits_stride = call.grad_stride = classes;
  call.inv_temperature = 1;
  call.scale = 1;
  call.link = link;
  call.num_sources = dense ? 0 : 1;
  call.sources = &source;
  std::vector<float> want_loss(rows), want(count);
  LossCall on_cpu = call;
  source.ids = ids.data();
  source.values = values.data();
  if (dense) on_cpu.dense = {probabilities.data(), classes, 0, Float::kF32};
  on_cpu.type = Float::kF32;
  on_cpu.logits = wide.data();
  on_cpu.loss = want_loss.data();
  on_cpu.grad = want.data();
  loss_cpu(on_cpu, 1);

  const OnDevice<T> device_logits(logits), grad(count);
  const OnDevice<float> loss(rows), device_values(values), device_dense(probabilities);
  const OnDevice<int16_t> device_ids(ids);
  source.ids = device_ids.data;
  source.values = device_values.data;
  if (dense) call.dense = {device_dense.data, classes, 0, Float::kF32};
  call.type = type;
  call.logits = device_logits.data;
  call.loss = loss.data;
  call.grad = grad.data;
  loss_cuda(call, 0, 0, kernel);
  cuda_check(cudaDeviceSynchronize(), "loss_cuda");
  const std::vector<float> got_loss = loss.host();
  const std::vector<T> got = grad.host();
  const float ulp = sizeof(T) == 4 ? 4 * 0x1p-24f : type == Float::kF16 ? 0x1p-11f : 0x1p-8f;
  for (int b = 0; b < rows; ++b) {
    expect(std::fabs(got_loss[b] - want_loss[b]) <= 2e-6f * std::fabs(want_loss[b]) + 1e-6f, "loss", classes,
           b);
  }
  for (size_t i = 0; i < count; ++i) {
    expect(std::fabs(widen(got[i]) - want[i]) <= 1.02f * ulp * std::fabs(want[i]) + 6e-7f, "gradient",
           classes, int(i));
  }
}

template <typename T>
void check_all_losses(Float type, const std::vector<int>& shapes) {
  for (const int classes : shapes) {
    for (const LossKernel kernel :
         {LossKernel::kAuto, LossKernel::kWarp, LossKernel::kBlock, LossKernel::kLoop}) {
      check_loss<T>(type, classes, 5, kernel, Link::kSoftmax, false);
    }
    check_loss<T>(type, classes, 64, LossKernel::kAuto, Link::kSoftmax, false);
    check_loss<T>(type, classes, 5, LossKernel::kAuto, Link::kSigmoid, false);
    check_loss<T>(type, classes, 1, LossKernel::kAuto, Link::kSigmoid, true);
    check_loss<T>(type, classes, 1, LossKernel::kAuto, Link::kSoftmax, true);
  }
}

void check_prepare(int height, int width, PixelType type) {
  const int rows = 3;
  const size_t count = size_t(rows) * height * width * 3, size = type == PixelType::kF32 ? 4 : 2;
  std::vector<uint8_t> images(count), want(count * size);
  for (uint8_t& pixel : images) pixel = uint8_t(rng());
  const std::vector<int64_t> partners{1, 2, 0};
  const std::vector<int32_t> boxes{0,          0,         height, width, height / 3, width / 3,
                                   height / 2, width / 2, 0,      0,     0,          0};
  const std::vector<float> blend{0.3f, 1, 1};
  PrepareCall call{images.data(),
                   images.data(),
                   want.data(),
                   partners.data(),
                   boxes.data(),
                   blend.data(),
                   rows,
                   rows,
                   height,
                   width,
                   {0.017f, 0.018f, 0.019f},
                   {-2, -1.9f, -1.8f},
                   type};
  prepare_cpu(call, 1);
  const OnDevice<uint8_t> device_images(images), out(count * size);
  const OnDevice<int64_t> device_partners(partners);
  const OnDevice<int32_t> device_boxes(boxes);
  const OnDevice<float> device_blend(blend);
  call.images = call.others = device_images.data;
  call.out = out.data;
  call.partners = device_partners.data;
  call.boxes = device_boxes.data;
  call.blend = device_blend.data;
  prepare_cuda(call, 0, 0);
  cuda_check(cudaDeviceSynchronize(), "prepare_cuda");
  expect(out.host() == want, "prepare", height, width);
}

void check_topk(int classes, int k) {
  const int rows = 5;
  std::vector<float> logits(size_t(rows) * classes);
  for (float& z : logits) z = uniform(-5, 5);
  const OnDevice<float> device_logits(logits), values(rows * k);
  const OnDevice<int32_t> ids(rows * k);
  topk_cuda(
      {device_logits.data, ids.data, values.data, rows, classes, classes, k, 1.f, LogitType::kF32, false}, 0,
      0);
  cuda_check(cudaDeviceSynchronize(), "topk_cuda");
  const std::vector<int32_t> got = ids.host();
  const std::vector<float> p = values.host();
  for (int row = 0; row < rows; ++row) {
    const float* z = &logits[size_t(row) * classes];
    for (int i = 0; i < k; ++i) {
      int larger = 0;
      for (int c = 0; c < classes; ++c) larger += z[c] > z[got[row * k + i]];
      expect(larger == i, "top-k", classes, i);
      expect(i == 0 || p[row * k + i] <= p[row * k + i - 1], "top-k order", classes, i);
    }
  }
}

}  // namespace

// gpu_check [quick]
int main(int argc, char**) {
  std::vector<int> shapes{1, 7, 100, 257, 1000, 1001, 5003, 21841, 65537};
  if (argc > 1) shapes = {7, 257, 1001, 21841};
  check_all_losses<float>(Float::kF32, shapes);
  check_all_losses<__half>(Float::kF16, shapes);
  check_all_losses<__nv_bfloat16>(Float::kBf16, shapes);
  for (const PixelType type : {PixelType::kF32, PixelType::kBf16, PixelType::kF16}) {
    check_prepare(1, 1, type);
    check_prepare(7, 5, type);
    check_prepare(64, 48, type);
  }
  for (const int classes : {1, 16, 100, 1000, 1001, 8000, 21841}) check_topk(classes, std::min(classes, 16));
  std::printf("gpu_check: %d failures\n", failures);
  return failures != 0;
}
