// SPDX-License-Identifier: Apache-2.0
// Pointers and sizes from fkdx/loss/cross_entropy.py, which has checked them.
#include "loss/loss.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "bindings/rooms.h"
#include "bindings/unlocked.h"
#include "loss/loss_cuda.h"
#include "loss/variants.h"

namespace py = pybind11;

namespace fkdx {
namespace {

using namespace py::literals;

template <typename T>
T* pointer(uintptr_t address) {
  return reinterpret_cast<T*>(address);
}

Source source_of(uintptr_t ids, int ids_type, int64_t ids_stride, uintptr_t values, int values_type,
                 int64_t values_stride, int64_t num_rows, int k, uintptr_t rows, uintptr_t weights,
                 float weight, bool tail) {
  Source s{};
  s.ids = pointer<const void>(ids);
  s.ids_type = static_cast<Int>(ids_type);
  s.ids_stride = ids_stride;
  s.values = pointer<const void>(values);
  s.values_type = static_cast<Float>(values_type);
  s.values_stride = values_stride;
  s.num_rows = num_rows;
  s.k = k;
  s.rows = pointer<const int64_t>(rows);
  s.weights = pointer<const float>(weights);
  s.weight = weight;
  s.tail = tail;
  return s;
}

DenseTarget dense_of(uintptr_t values, int type, int64_t stride, float inv_temperature) {
  return {pointer<const void>(values), stride, inv_temperature, static_cast<Float>(type)};
}

LossCall call_of(uintptr_t logits, int type, int64_t rows, int64_t classes, int64_t logits_stride,
                 const std::vector<Source>& sources, const DenseTarget* dense, int link,
                 double inv_temperature, double scale, uintptr_t scales, int64_t scale_stride, uintptr_t loss,
                 uintptr_t grad, int64_t grad_stride) {
  LossCall call{};
  call.logits = pointer<const void>(logits);
  call.type = static_cast<Float>(type);
  call.rows = rows;
  call.classes = classes;
  call.logits_stride = logits_stride;
  call.sources = sources.data();
  call.num_sources = static_cast<int>(sources.size());
  if (dense) call.dense = *dense;
  call.link = static_cast<Link>(link);
  call.inv_temperature = inv_temperature;
  call.scale = scale;
  call.scales = pointer<const void>(scales);
  call.scale_stride = scale_stride;
  call.loss = pointer<void>(loss);
  call.grad = pointer<void>(grad);
  call.grad_stride = grad_stride;
  return call;
}

// Both functions take what call_of takes, and then say where the call runs.
template <typename... Args>
void bind_calls(py::module_& m, LossCall (*make)(Args...)) {
  const auto define = [&](const char* name, auto function, auto... more) {
    m.def(name, function, "logits"_a, "type"_a, "rows"_a, "classes"_a, "logits_stride"_a, "sources"_a,
          "dense"_a.none(true), "link"_a, "inv_temperature"_a, "scale"_a, "scales"_a, "scale_stride"_a,
          "loss"_a, "grad"_a, "grad_stride"_a, more...);
  };
  define(
      "loss_cpu",
      [make](Args... args, int threads) {
        const LossCall call = make(args...);
        const Unlocked unlocked;
        loss_cpu(call, threads);
      },
      "threads"_a, "Soft or binary cross-entropy of every row; see LossCall in csrc/loss/loss.h.");
#ifdef FKDX_WITH_CUDA
  define(
      "loss_cuda",
      [make](Args... args, int device, uintptr_t stream, int kernel) {
        const LossCall call = make(args...);
        const Unlocked unlocked;
        loss_cuda(call, device, stream, static_cast<LossKernel>(kernel));
      },
      "device"_a, "stream"_a, "kernel"_a, "The same on a GPU; see csrc/loss/loss_cuda.h.");
#endif
}

}  // namespace

void bind_loss(py::module_& m) {
  py::class_<Source>(m, "LossSource", "A table of labels in memory; see Source in csrc/loss/target.h.")
      .def(py::init(&source_of), "ids"_a, "ids_type"_a, "ids_stride"_a, "values"_a, "values_type"_a,
           "values_stride"_a, "num_rows"_a, "k"_a, "rows"_a, "weights"_a, "weight"_a, "tail"_a);
  py::class_<DenseTarget>(m, "LossDense", "A dense target in memory; see DenseTarget in csrc/loss/loss.h.")
      .def(py::init(&dense_of), "values"_a, "type"_a, "stride"_a, "inv_temperature"_a);
  bind_calls(m, &call_of);
  m.def(
      "vector_exp2", [](float x) { return selected_loss().exp2(x); },
      "2^x, x <= 0, as the loss computes it.");
}

}  // namespace fkdx
