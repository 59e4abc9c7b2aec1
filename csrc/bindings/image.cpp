// SPDX-License-Identifier: Apache-2.0
// Crops of one image. Arguments were checked in fkdx/image.py; arrays are C-contiguous.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string_view>

#include "bindings/rooms.h"
#include "bindings/unlocked.h"
#include "image/crops.h"

namespace py = pybind11;

namespace fkdx {
namespace {

using Bytes = py::array_t<uint8_t, py::array::c_style>;
using Boxes = py::array_t<int32_t, py::array::c_style>;

static_assert(sizeof(Box) == 4 * sizeof(int32_t), "a row of boxes is a Box");

const uint8_t* bytes_of(std::string_view data) { return reinterpret_cast<const uint8_t*>(data.data()); }

CropSpec crop_spec(const Boxes& boxes, const Bytes& flips, int size, bool bicubic, bool pillow13,
                   Strictness strictness) {
  return {reinterpret_cast<const Box*>(boxes.data()),
          flips.data(),
          static_cast<int>(boxes.shape(0)),
          size,
          bicubic ? Interpolation::kBicubic : Interpolation::kBilinear,
          pillow13 ? ResampleRule::kPillow13 : ResampleRule::kPillow12,
          strictness};
}

ValidationSpec validation_spec(int resize, int size, bool bicubic, bool pillow13, Strictness strictness) {
  return {resize, size, bicubic ? Interpolation::kBicubic : Interpolation::kBilinear,
          pillow13 ? ResampleRule::kPillow13 : ResampleRule::kPillow12, strictness};
}

Pixels pixels_of(const Bytes& image) {
  return {image.data(),
          {static_cast<int>(image.shape(0)), static_cast<int>(image.shape(1))},
          ptrdiff_t{3} * image.shape(1)};
}

py::tuple read_size(CropDecoder& decoder, std::string_view data) {
  ImageSize size;
  {
    const Unlocked unlocked;
    size = decoder.read_size(bytes_of(data), data.size());
  }
  return py::make_tuple(size.height, size.width);
}

void decode_crops(CropDecoder& decoder, std::string_view data, const Boxes& boxes, const Bytes& flips,
                  int size, bool bicubic, bool pillow13, bool allow_warnings, bool whole_file, Bytes out,
                  std::string_view entries) {
  CropSpec spec = crop_spec(boxes, flips, size, bicubic, pillow13, {allow_warnings, whole_file});
  spec.entries = {bytes_of(entries), entries.size()};
  uint8_t* pixels = out.mutable_data();
  const Unlocked unlocked;
  decoder.decode_crops(bytes_of(data), data.size(), spec, pixels);
}

void resize_crops(CropDecoder& decoder, const Bytes& image, const Boxes& boxes, const Bytes& flips, int size,
                  bool bicubic, bool pillow13, Bytes out) {
  const CropSpec spec = crop_spec(boxes, flips, size, bicubic, pillow13, {});
  const Pixels source = pixels_of(image);
  uint8_t* pixels = out.mutable_data();
  const Unlocked unlocked;
  decoder.resize_crops(source, spec, pixels);
}

void decode_validation(CropDecoder& decoder, std::string_view data, int resize, int size, bool bicubic,
                       bool pillow13, bool allow_warnings, bool whole_file, Bytes out) {
  const ValidationSpec spec = validation_spec(resize, size, bicubic, pillow13, {allow_warnings, whole_file});
  uint8_t* pixels = out.mutable_data();
  const Unlocked unlocked;
  decoder.decode_validation(bytes_of(data), data.size(), spec, pixels);
}

void resize_validation(CropDecoder& decoder, const Bytes& image, int resize, int size, bool bicubic,
                       bool pillow13, Bytes out) {
  const ValidationSpec spec = validation_spec(resize, size, bicubic, pillow13, {});
  const Pixels source = pixels_of(image);
  uint8_t* pixels = out.mutable_data();
  const Unlocked unlocked;
  decoder.resize_validation(source, spec, pixels);
}

Bytes decode_box(CropDecoder& decoder, std::string_view data, int top, int left, int height, int width,
                 bool allow_warnings, bool plain, bool whole_file, std::string_view entries) {
  Bytes out({height, width, 3});
  uint8_t* pixels = out.mutable_data();
  const Unlocked unlocked;
  decoder.decode_box(bytes_of(data), data.size(), {top, left, height, width}, {allow_warnings, whole_file},
                     plain, pixels, {bytes_of(entries), entries.size()});
  return out;
}

py::bytes make_entry_points(CropDecoder& decoder, std::string_view data, double share, uint32_t least_step) {
  std::vector<uint8_t> coded;
  {
    const Unlocked unlocked;
    coded = decoder.make_entry_points(bytes_of(data), data.size(), share, least_step);
  }
  return py::bytes(reinterpret_cast<const char*>(coded.data()), coded.size());
}

const char* entry_use(const CropDecoder& decoder) {
  switch (decoder.entry_use()) {
    case EntryUse::kUsed:
      return "used";
    case EntryUse::kMisfit:
      return "misfit";
    default:
      return "none";
  }
}

void decode_region_only(CropDecoder& decoder, std::string_view data, const Boxes& boxes) {
  const CropSpec spec =
      crop_spec(boxes, Bytes(), 1, false, false, {/*allow_warnings=*/true, /*whole_file=*/false});
  const Unlocked unlocked;
  decoder.decode_region_only(bytes_of(data), data.size(), spec);
}

void decode_coefficients_only(CropDecoder& decoder, std::string_view data) {
  const Unlocked unlocked;
  decoder.decode_coefficients_only(bytes_of(data), data.size());
}

void read_units_only(CropDecoder& decoder, std::string_view data, const Boxes& boxes,
                     std::string_view entries) {
  CropSpec spec = crop_spec(boxes, Bytes(), 1, false, false, {/*allow_warnings=*/true, /*whole_file=*/false});
  spec.entries = {bytes_of(entries), entries.size()};
  const Unlocked unlocked;
  decoder.read_units_only(bytes_of(data), data.size(), spec);
}

py::dict times(const CropDecoder& decoder) {
  py::dict stages;
  stages["decode"] = decoder.times().decode * 1e-9;
  stages["resize"] = decoder.times().resize * 1e-9;
  return stages;
}

}  // namespace

void bind_image(py::module_& m) {
  m.def("is_jpeg", [](std::string_view data) { return is_jpeg(bytes_of(data), data.size()); });
  py::class_<CropDecoder>(m, "CropDecoder", "One a thread: decodes an image once for all its crops.")
      .def(py::init<>())
      .def("read_size", &read_size)
      .def("decode_crops", &decode_crops, py::arg("data"), py::arg("boxes"), py::arg("flips"),
           py::arg("size"), py::arg("bicubic"), py::arg("pillow13"), py::arg("allow_warnings"),
           py::arg("whole_file"), py::arg("out"), py::arg("entries") = py::bytes())
      .def("make_entry_points", &make_entry_points, py::arg("data"), py::arg("share") = 0.015,
           py::arg("least_step") = 1, "Coded entry points of a sound baseline JPEG; of others, no bytes.")
      .def_property_readonly("entry_use", &entry_use, "Of the last image: 'none', 'used' or 'misfit'.")
      .def("resize_crops", &resize_crops)
      .def("decode_validation", &decode_validation)
      .def("resize_validation", &resize_validation)
      .def("decode_box", &decode_box, py::arg("data"), py::arg("top"), py::arg("left"), py::arg("height"),
           py::arg("width"), py::arg("allow_warnings"), py::arg("plain"), py::arg("whole_file") = false,
           py::arg("entries") = py::bytes(),
           "Pixels of a box as they are: (height, width, 3). plain: by libjpeg-turbo alone, the judge.")
      .def("decode_region_only", &decode_region_only, "What libjpeg-turbo alone needs, for benchmarks.")
      .def("decode_coefficients_only", &decode_coefficients_only, "Entropy decoding alone, for benchmarks.")
      .def("read_units_only", &read_units_only, "Entropy decoding of the boxes' units alone, for benchmarks.")
      .def_property_readonly("harmless_warnings", &CropDecoder::harmless_warnings,
                             "libjpeg's warnings about the last JPEG that can change no pixel.")
      .def_property_readonly("times", &times, "Seconds by stage since the decoder was made.");
}

}  // namespace fkdx
