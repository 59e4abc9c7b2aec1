// SPDX-License-Identifier: Apache-2.0
// Pointers and sizes from fkdx/batch/prepare.py and fkdx/batch/topk.py, which have checked them.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <optional>
#include <utility>

#include "base/check.h"
#include "batch/prepare.h"
#include "batch/topk.h"
#include "bindings/rooms.h"
#include "bindings/unlocked.h"

namespace py = pybind11;

namespace fkdx {
namespace {

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

constexpr int64_t kLongestSide = int64_t{1} << 29;  // three bytes a pixel are still counted in int

using Factors = std::array<float, 3>;
using Others = std::optional<std::pair<uintptr_t, int64_t>>;

// mix: (partners, boxes, blend), addresses or 0; others: (address, rows), or nothing: the images themselves
PrepareCall prepare_call(uintptr_t images, uintptr_t out, const std::array<uintptr_t, 3>& mix,
                         const std::array<int64_t, 3>& shape, const Factors& scale, const Factors& bias,
                         int type, const Others& others) {
  check<std::invalid_argument>(shape[1] <= kLongestSide && shape[2] <= kLongestSide, "prepare: images, got ",
                               shape[0], " of ", shape[1], " x ", shape[2],
                               ", expected at most 2^29 pixels on a side");
  PrepareCall call{};
  call.images = pointer<const uint8_t>(images);
  call.others = pointer<const uint8_t>(others ? others->first : images);
  call.out = pointer<void>(out);
  call.partners = pointer<const int64_t>(mix[0]);
  call.boxes = pointer<const int32_t>(mix[1]);
  call.blend = pointer<const float>(mix[2]);
  call.rows = shape[0];
  call.other_rows = others ? others->second : call.rows;
  call.height = static_cast<int>(shape[1]);
  call.width = static_cast<int>(shape[2]);
  for (int c = 0; c < 3; ++c) call.scale[c] = scale[c], call.bias[c] = bias[c];
  call.type = static_cast<PixelType>(type);
  return call;
}

void on_cpu(uintptr_t images, uintptr_t out, const std::array<uintptr_t, 3>& mix,
            const std::array<int64_t, 3>& shape, const Factors& scale, const Factors& bias, int type,
            int threads, const Others& others) {
  const PrepareCall call = prepare_call(images, out, mix, shape, scale, bias, type, others);
  const Unlocked unlocked;
  prepare_cpu(call, threads);
}

#ifdef FKDX_WITH_CUDA
void on_cuda(uintptr_t images, uintptr_t out, const std::array<uintptr_t, 3>& mix,
             const std::array<int64_t, 3>& shape, const Factors& scale, const Factors& bias, int type,
             int device, uintptr_t stream, const Others& others) {
  const Unlocked unlocked;
  prepare_cuda(prepare_call(images, out, mix, shape, scale, bias, type, others), device, stream);
}

void topk(uintptr_t logits, int type, int64_t rows, int64_t stride, int classes, int k, float inv_temperature,
          uintptr_t ids, uintptr_t values, bool half_values, int device, uintptr_t stream) {
  const Unlocked unlocked;
  topk_cuda({pointer<const void>(logits), pointer<int32_t>(ids), pointer<void>(values), rows, stride, classes,
             k, inv_temperature, static_cast<LogitType>(type), half_values},
            device, stream);
}
#endif

}  // namespace

void bind_batch(py::module_& m) {
  using namespace py::literals;
  m.def("prepare_cpu", &on_cpu, "images"_a, "out"_a, "mix"_a, "shape"_a, "scale"_a, "bias"_a, "type"_a,
        "threads"_a, "others"_a = py::none(), "Normalise and mix uint8 images; see csrc/batch/prepare.h.");
#ifdef FKDX_WITH_CUDA
  m.def("prepare_cuda", &on_cuda, "images"_a, "out"_a, "mix"_a, "shape"_a, "scale"_a, "bias"_a, "type"_a,
        "device"_a, "stream"_a, "others"_a = py::none(), "The same on a GPU.");
  m.def("topk_cuda", &topk, "Softmax and top-k of every row on a GPU; see csrc/batch/topk.h.");
  m.attr("max_topk") = kMaxTopk;
  m.attr("max_topk_classes") = kMaxTopkClasses;
#endif
}

}  // namespace fkdx
