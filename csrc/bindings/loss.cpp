// SPDX-License-Identifier: Apache-2.0
// Pointers and sizes from fkdx/loss.py, which has checked them.
#include "loss/loss.h"

#include <pybind11/pybind11.h>

#include <vector>

#include "bindings/rooms.h"
#include "loss/loss_cuda.h"
#include "loss/variants.h"

namespace py = pybind11;

namespace fkdx {
namespace {

template <typename T>
T* pointer(const py::handle& address) {
  return reinterpret_cast<T*>(address.cast<uintptr_t>());
}

// (ids, ids type, ids stride, values, values type, values stride, rows of the table, k, rows, weights,
// weight, tail)
Source source_of(const py::tuple& t) {
  Source s{};
  s.ids = pointer<const void>(t[0]);
  s.ids_type = static_cast<Int>(t[1].cast<int>());
  s.ids_stride = t[2].cast<int64_t>();
  s.values = pointer<const void>(t[3]);
  s.values_type = static_cast<Float>(t[4].cast<int>());
  s.values_stride = t[5].cast<int64_t>();
  s.num_rows = t[6].cast<int64_t>();
  s.k = t[7].cast<int>();
  s.rows = pointer<const int64_t>(t[8]);
  s.weights = pointer<const float>(t[9]);
  s.weight = t[10].cast<float>();
  s.tail = t[11].cast<bool>();
  return s;
}

// A call and the sources it points to.
struct Parsed {
  std::vector<Source> sources;
  LossCall call{};

  // logits: (address, type, rows, classes, stride); dense: () or (address, type, stride, 1 / temperature);
  // scale: (factor, address of factors, stride); grad: (address, stride)
  Parsed(const py::tuple& logits, const py::tuple& table, const py::tuple& dense, int link,
         double inv_temperature, const py::tuple& scale, uintptr_t loss, const py::tuple& grad) {
    sources.reserve(table.size());
    for (const py::handle& source : table) {
      sources.push_back(source_of(py::reinterpret_borrow<py::tuple>(source)));
    }
    call.logits = pointer<const void>(logits[0]);
    call.type = static_cast<Float>(logits[1].cast<int>());
    call.rows = logits[2].cast<int64_t>();
    call.classes = logits[3].cast<int64_t>();
    call.logits_stride = logits[4].cast<int64_t>();
    call.sources = sources.data();
    call.num_sources = static_cast<int>(sources.size());
    if (!dense.empty()) {
      call.dense = {pointer<const void>(dense[0]), dense[2].cast<int64_t>(), dense[3].cast<float>(),
                    static_cast<Float>(dense[1].cast<int>())};
    }
    call.link = static_cast<Link>(link);
    call.inv_temperature = inv_temperature;
    call.scale = scale[0].cast<double>();
    call.scales = pointer<const void>(scale[1]);
    call.scale_stride = scale[2].cast<int64_t>();
    call.loss = reinterpret_cast<void*>(loss);
    call.grad = pointer<void>(grad[0]);
    call.grad_stride = grad[1].cast<int64_t>();
  }
};

void on_cpu(const py::tuple& logits, const py::tuple& sources, const py::tuple& dense, int link,
            double inv_temperature, const py::tuple& scale, uintptr_t loss, const py::tuple& grad,
            int threads) {
  const Parsed parsed(logits, sources, dense, link, inv_temperature, scale, loss, grad);
  const py::gil_scoped_release unlocked;
  loss_cpu(parsed.call, threads);
}

#ifdef FKDX_WITH_CUDA
void on_cuda(const py::tuple& logits, const py::tuple& sources, const py::tuple& dense, int link,
             double inv_temperature, const py::tuple& scale, uintptr_t loss, const py::tuple& grad,
             int device, uintptr_t stream, int kernel) {
  const Parsed parsed(logits, sources, dense, link, inv_temperature, scale, loss, grad);
  loss_cuda(parsed.call, device, stream, static_cast<LossKernel>(kernel));
}
#endif

}  // namespace

void bind_loss(py::module_& m) {
  m.def("loss_cpu", &on_cpu, "Soft or binary cross-entropy of every row; see csrc/loss/loss.h.");
#ifdef FKDX_WITH_CUDA
  m.def("loss_cuda", &on_cuda, "The same on a GPU; see csrc/loss/loss_cuda.h.");
#endif
  m.def(
      "vector_exp2", [](float x) { return selected_loss().exp2(x); },
      "2^x, x <= 0, as the loss computes it.");
}

}  // namespace fkdx
