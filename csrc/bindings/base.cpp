// SPDX-License-Identifier: Apache-2.0
// Build facts, CPU variants, and how C++ errors look in Python.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/check.h"
#include "base/cpu.h"
#include "base/cuda.h"
#include "bindings/rooms.h"
#include "image/jpeg_internals.h"

namespace py = pybind11;

#define FKDX_TEXT_OF(x) #x
#define FKDX_TEXT(x) FKDX_TEXT_OF(x)

namespace fkdx {
namespace {

py::dict build_info() {
  py::dict info;
  info["version"] = FKDX_VERSION;
  info["compiler"] = __VERSION__;
  info["jpeg"] = FKDX_TEXT(LIBJPEG_TURBO_VERSION);
#ifdef FKDX_BUNDLED_JPEG
  info["jpeg_bundled"] = true;
#else
  info["jpeg_bundled"] = false;
#endif
#ifdef WITH_SIMD
  info["jpeg_simd"] = true;
#else
  info["jpeg_simd"] = false;
#endif
  info["jpeg_huffman"] = internals_fit();
#ifdef FKDX_WITH_CUDA
  info["cuda_targets"] = FKDX_CUDA_TARGETS;
#else
  info["cuda_targets"] = "";
#endif
  return info;
}

}  // namespace

void bind_base(py::module_& m) {
  py::register_exception<ImageError>(m, "ImageError", PyExc_ValueError);
  py::register_exception<FormatError>(m, "FormatError", PyExc_ValueError);
  py::register_exception_translator([](std::exception_ptr error) {
    try {
      if (error) std::rethrow_exception(error);
    } catch (const std::system_error& e) {
      PyErr_SetObject(PyExc_OSError, py::make_tuple(e.code().value(), e.what()).ptr());
    }
  });
  m.def("build_info", &build_info, "Facts of this build: version, compiler, libjpeg-turbo, CUDA targets.");
  m.def("supported_cpus", [] {
    std::vector<std::string> names;
    for (Cpu cpu : supported_cpus()) names.emplace_back(cpu_name(cpu));
    return names;
  });
  m.def("selected_cpu", [] { return cpu_name(selected_cpu()); });
  m.def("force_cpu", &force_cpu, py::arg("name"));
#ifdef FKDX_WITH_CUDA
  m.def("cuda_device_count", &cuda_device_count,
        "GPUs that this build's CUDA can use, or an error with the reason.");
  m.def("cuda_check", &cuda_check, py::arg("error"), py::arg("what"),
        "RuntimeError with what an error code of CUDA's runtime means and what to do; nothing for 0.");
#endif
}

}  // namespace fkdx
