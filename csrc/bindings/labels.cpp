// SPDX-License-Identifier: Apache-2.0
// Label files: _C.LabelSet reads, _C.LabelCodec makes the blocks that fkdx.labels.LabelWriter puts into
// files.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstring>

#include "base/check.h"
#include "base/crc32c.h"
#include "bindings/rooms.h"
#include "bindings/unlocked.h"
#include "labels/label_set.h"

namespace py = pybind11;

namespace fkdx {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style | py::array::forcecast>;

template <typename T>
py::array_t<T> empty(std::vector<py::ssize_t> shape) {
  return py::array_t<T>(std::move(shape));
}

// ---- reading ----------------------------------------------------------------------------------------------

struct Request {
  Array<int64_t> images, crops;  // [n], [n, m]
  py::ssize_t n, m;

  Request(Array<int64_t> images_in, Array<int64_t> crops_in)
      : images(std::move(images_in)), crops(std::move(crops_in)) {
    const bool fits = images.ndim() == 1 && crops.ndim() == 2 && crops.shape(0) == images.shape(0);
    check<std::invalid_argument>(fits, "gather: images and crops, expected shapes (n,) and (n, m)");
    n = images.shape(0);
    m = crops.shape(1);
  }

  void run(const LabelSet& set, const CropArrays& out) const {
    const int64_t* image = images.data();
    const int64_t* crop = crops.data();
    const Unlocked unlocked;
    set.gather(image, static_cast<size_t>(n), crop, static_cast<size_t>(m), out);
  }
};

py::tuple gather(const LabelSet& set, Array<int64_t> images, Array<int64_t> crops) {
  const Request ask(std::move(images), std::move(crops));
  const Layout& layout = set.first().layout();
  auto flips = empty<bool>({ask.n, ask.m});
  auto ids = empty<int32_t>({ask.n, ask.m, layout.id_count()});
  auto values = empty<float>({ask.n, ask.m, layout.kept});
  CropArrays out;
  out.flips = reinterpret_cast<uint8_t*>(flips.mutable_data());
  out.ids = ids.mutable_data();
  out.values = values.mutable_data();
  if (layout.ratios()) {
    auto ratios = empty<float>({ask.n, ask.m, 4});
    out.ratios = ratios.mutable_data();
    ask.run(set, out);
    return py::make_tuple(ratios, flips, ids, values);
  }
  auto boxes = empty<int32_t>({ask.n, ask.m, 4});
  out.boxes = boxes.mutable_data();
  ask.run(set, out);
  return py::make_tuple(boxes, flips, ids, values);
}

py::array_t<float> gather_tails(const LabelSet& set, Array<int64_t> images, Array<int64_t> crops) {
  check<std::invalid_argument>(set.first().layout().kind == Kind::kTopkLogits,
                               "gather_tails: kind, expected topk_logits, ", set.first().path());
  const Request ask(std::move(images), std::move(crops));
  auto tails = empty<float>({ask.n, ask.m});
  CropArrays out;
  out.tails = tails.mutable_data();
  ask.run(set, out);
  return tails;
}

py::tuple gather_mixes(const LabelSet& set, Array<int64_t> images, Array<int64_t> crops) {
  const Layout& layout = set.first().layout();
  check<std::invalid_argument>(layout.two_views(), "gather_mixes: views, got 1, expected 2, ",
                               set.first().path());
  const Request ask(std::move(images), std::move(crops));
  auto partners = empty<uint32_t>({ask.n, ask.m});
  auto operations = empty<uint8_t>({ask.n, ask.m});
  auto lambdas = empty<float>({ask.n, ask.m});
  auto mix_boxes = empty<int32_t>({ask.n, ask.m, 4});
  CropArrays out;
  out.partners = partners.mutable_data();
  out.operations = operations.mutable_data();
  out.lambdas = lambdas.mutable_data();
  out.mix_boxes = mix_boxes.mutable_data();
  if (layout.ratios()) {
    auto ratios = empty<float>({ask.n, ask.m, 4});
    out.partner_ratios = ratios.mutable_data();
    ask.run(set, out);
    return py::make_tuple(partners, ratios, operations, lambdas, mix_boxes);
  }
  auto boxes = empty<int32_t>({ask.n, ask.m, 4});
  out.partner_boxes = boxes.mutable_data();
  ask.run(set, out);
  return py::make_tuple(partners, boxes, operations, lambdas, mix_boxes);
}

py::array read_only(py::array array) {
  array.attr("flags").attr("writeable") = false;
  return array;
}

// (bytes, crops, height, width, offset of the flip bits, offset of the extra bytes); the bytes stay in the
// map if there is one.
py::tuple block(const py::object& self, int64_t image) {
  const auto& set = self.cast<const LabelSet&>();
  const LabelSet::Place at = set.place(image);
  std::vector<uint8_t> scratch;
  const Block block = at.file->checked_block(at.image, &scratch);
  const auto bytes = static_cast<py::ssize_t>(block.size.bytes);
  const py::array data = scratch.empty() ? py::array_t<uint8_t>(bytes, block.data, self)
                                         : py::array_t<uint8_t>(bytes, block.data);
  return py::make_tuple(read_only(data), block.entry.crops, block.entry.height, block.entry.width,
                        block.size.flips, block.size.extra, block.entry.extra);
}

// The checked index of file `number` as bytes, 24 an image that is counted there.
py::array index_bytes(const py::object& self, size_t number) {
  const auto& set = self.cast<const LabelSet&>();
  const LabelFile& file = *set.files().at(number);
  const IndexEntry* index = file.checked_index();
  const std::vector<uint32_t>* counted = set.counted(number);
  if (!counted) {
    const auto bytes = static_cast<py::ssize_t>(file.images() * sizeof(IndexEntry));
    return read_only(py::array_t<uint8_t>(bytes, reinterpret_cast<const uint8_t*>(index), self));
  }
  auto some = empty<uint8_t>({static_cast<py::ssize_t>(counted->size() * sizeof(IndexEntry))});
  uint8_t* to = some.mutable_data();
  for (uint32_t image : *counted) {
    std::memcpy(to, index + image, sizeof(IndexEntry));
    to += sizeof(IndexEntry);
  }
  return read_only(some);
}

// The keys of some images of a file.
py::tuple some_keys(const LabelFile& file, const std::vector<uint32_t>& images) {
  auto starts = empty<uint32_t>({static_cast<py::ssize_t>(images.size() + 1)});
  std::string text;
  for (size_t i = 0; i < images.size(); ++i) {
    starts.mutable_at(static_cast<py::ssize_t>(i)) = static_cast<uint32_t>(text.size());
    text += file.key(images[i]);
  }
  starts.mutable_at(static_cast<py::ssize_t>(images.size())) = static_cast<uint32_t>(text.size());
  const auto bytes = static_cast<py::ssize_t>(text.size());
  return py::make_tuple(read_only(starts), read_only(py::array_t<uint8_t>(
                                               bytes, reinterpret_cast<const uint8_t*>(text.data()))));
}

// The checked keys of file `number`, of the images that are counted there: where each starts (N + 1), and
// their text.
py::tuple key_arrays(const py::object& self, size_t number) {
  const auto& set = self.cast<const LabelSet&>();
  const LabelFile& file = *set.files().at(number);
  const uint8_t* keys;
  {
    const Unlocked unlocked;
    keys = file.checked_keys();
  }
  if (const std::vector<uint32_t>* counted = set.counted(number)) return some_keys(file, *counted);
  const auto count = static_cast<py::ssize_t>(file.images() + 1);
  const auto text = static_cast<py::ssize_t>(file.footer().keys_bytes) - 4 * count;
  const py::array starts = py::array_t<uint32_t>(count, reinterpret_cast<const uint32_t*>(keys), self);
  return py::make_tuple(read_only(starts), read_only(py::array_t<uint8_t>(text, keys + 4 * count, self)));
}

py::str key(const LabelSet& set, int64_t image) {
  const LabelSet::Place at = set.place(image);
  at.file->check_keys();
  const std::string_view key = at.file->key(at.image);
  return py::str(key.data(), key.size());
}

py::dict facts(const LabelSet& set) {
  const LabelFile& file = set.first();
  const Layout& layout = file.layout();
  py::dict facts;
  facts["kind"] = static_cast<int>(layout.kind);
  facts["encoding"] = static_cast<int>(layout.encoding);
  facts["value_type"] = static_cast<int>(layout.value_type);
  facts["num_classes"] = layout.classes;
  facts["k"] = layout.kept;
  facts["required"] = layout.required;
  facts["crops"] = file.preamble().crops;
  facts["mix_size"] = file.preamble().mix_size;
  return facts;
}

py::list files(const LabelSet& set) {
  py::list files;
  for (const auto& file : set.files()) {
    const Footer& footer = file->footer();
    py::dict facts;
    facts["path"] = file->path();
    facts["images"] = footer.images;
    facts["bytes"] = footer.length;
    facts["digest"] = py::bytes(reinterpret_cast<const char*>(footer.digest.data()), footer.digest.size());
    facts["header"] = py::bytes(file->header());
    files.append(facts);
  }
  return files;
}

// ---- writing ----------------------------------------------------------------------------------------------

// Makes the blocks of one file.
class LabelCodec {
 public:
  LabelCodec(int kind, int encoding, int value_type, uint32_t classes, uint32_t kept, uint32_t required,
             uint32_t mix_size, uint64_t images)
      : layout_{Kind(kind), Encoding(encoding), ValueType(value_type), classes, kept, required},
        mix_size_(mix_size),
        images_(images) {
    try {
      layout_.check("LabelWriter");
    } catch (const FormatError& error) {
      throw std::invalid_argument(error.what());
    }
  }

  uint64_t stride(uint32_t height, uint32_t width) const {
    return record_fields(layout_, height, width).stride;
  }

  // Checks the crops of an image and encodes them. `arrays` holds contiguous arrays of the format's shapes
  // and the types of CropArrays, by its names; check may sort and mend them in place. Returns (block,
  // repairs).
  py::tuple encode(uint32_t height, uint32_t width, const py::dict& arrays, const std::string& extra,
                   bool repair) const {
    const auto crops = static_cast<uint32_t>(arrays["flips"].cast<py::array>().shape(0));
    const CropArrays in = pointers(arrays);
    const CropBounds bounds{height, width, mix_size_, images_};
    const RecordFields fields = record_fields(layout_, height, width);
    const BlockSize size = block_size(fields, crops, static_cast<uint32_t>(extra.size()));
    std::vector<uint8_t> block(size.bytes + 8);
    Repairs repairs;
    {
      const Unlocked unlocked;
      repairs = check_crops(layout_, bounds, in, crops, repair);
      encode_crops(layout_, fields, in, crops, block.data());
    }
    std::memcpy(block.data() + size.extra, extra.data(), extra.size());
    return py::make_tuple(py::bytes(reinterpret_cast<const char*>(block.data()), size.bytes),
                          counts(repairs));
  }

  // As `encode`, of many images with equally many crops: sizes [n, 2] are their heights and widths, and the
  // arrays hold the crops of one image after the other. Returns (blocks, index entries of the first block at
  // byte `start` of the file `id`, repairs). Throws for the first image that is refused, with its key.
  py::tuple encode_many(const std::vector<std::string>& keys, const Array<uint16_t>& sizes,
                        const py::dict& arrays, bool repair, const py::bytes& file_id, uint64_t start) const {
    const auto crops = static_cast<uint32_t>(arrays["flips"].cast<py::array>().shape(0) / keys.size());
    const CropArrays all = pointers(arrays);
    const uint16_t* size_of = sizes.data();
    std::vector<uint8_t> blocks;
    const std::string id = file_id;
    std::string entries;
    Repairs repairs;
    {
      const Unlocked unlocked;
      for (size_t image = 0; image < keys.size(); ++image) {
        const uint32_t height = size_of[2 * image], width = size_of[2 * image + 1];
        const CropArrays in = all.from(image * crops, layout_);
        const RecordFields fields = record_fields(layout_, height, width);
        const size_t at = blocks.size(), bytes = block_size(fields, crops, 0).bytes;
        blocks.resize(at + bytes + 8);
        try {
          repairs.add(check_crops(layout_, {height, width, mix_size_, images_}, in, crops, repair));
        } catch (const std::invalid_argument& error) {
          throw std::invalid_argument(keys[image] + ": " + error.what());
        }
        encode_crops(layout_, fields, in, crops, blocks.data() + at);
        blocks.resize(at + bytes);
        IndexEntry entry{start + at, crops, static_cast<uint16_t>(height), static_cast<uint16_t>(width),
                         0,          0};
        entry.crc = seal(id.data(), entry, keys[image], blocks.data() + at, bytes);
        entries.append(reinterpret_cast<const char*>(&entry), sizeof(entry));
      }
    }
    return py::make_tuple(py::bytes(reinterpret_cast<const char*>(blocks.data()), blocks.size()),
                          py::bytes(entries), counts(repairs));
  }

  // Values [crops, kept], and tails [crops] or None, of a block that `encode` made.
  py::tuple decode_values(uint32_t height, uint32_t width, const std::string& block, uint32_t crops) const {
    const RecordFields fields = record_fields(layout_, height, width);
    const BlockSize size = block_size(fields, crops, 0);
    check<std::invalid_argument>(block.size() >= size.bytes, "LabelCodec: block, got ", block.size(),
                                 " bytes, expected ", size.bytes);
    std::vector<uint8_t> padded(block.begin(), block.end());
    padded.resize(block.size() + 8);  // decode_crop reads that far behind a record
    auto values = empty<float>({crops, layout_.kept});
    auto tails = empty<float>({crops});
    CropArrays out;
    out.values = values.mutable_data();
    if (fields.tail.count) out.tails = tails.mutable_data();
    for (uint32_t crop = 0; crop < crops; ++crop) {
      decode_crop(layout_, fields, padded.data(), size.flips, crop, out.from(crop, layout_));
    }
    return py::make_tuple(values, fields.tail.count ? py::object(tails) : py::none());
  }

 private:
  static py::tuple counts(const Repairs& repairs) {
    return py::make_tuple(repairs.boxes, repairs.values, repairs.sums, repairs.ids, repairs.duplicates);
  }

  template <typename T>
  static T* pointer(const py::dict& arrays, const char* name) {
    if (!arrays.contains(name)) return nullptr;
    const auto array = arrays[name].cast<py::array>();
    const bool fits =
        array.itemsize() == sizeof(T) && (array.flags() & py::array::c_style) && array.writeable();
    check<std::invalid_argument>(fits, "LabelCodec: ", name, ", expected a writeable contiguous array");
    return static_cast<T*>(const_cast<void*>(array.data()));
  }

  static CropArrays pointers(const py::dict& arrays) {
    CropArrays in;
    in.boxes = pointer<int32_t>(arrays, "boxes");
    in.ratios = pointer<float>(arrays, "ratios");
    in.flips = pointer<uint8_t>(arrays, "flips");
    in.ids = pointer<int32_t>(arrays, "ids");
    in.values = pointer<float>(arrays, "values");
    in.tails = pointer<float>(arrays, "tails");
    in.partners = pointer<uint32_t>(arrays, "partners");
    in.partner_boxes = pointer<int32_t>(arrays, "partner_boxes");
    in.partner_ratios = pointer<float>(arrays, "partner_ratios");
    in.operations = pointer<uint8_t>(arrays, "operations");
    in.lambdas = pointer<float>(arrays, "lambdas");
    in.mix_boxes = pointer<int32_t>(arrays, "mix_boxes");
    return in;
  }

  Layout layout_;
  uint32_t mix_size_;
  uint64_t images_;
};

uint32_t crc32c_of(const py::buffer& data, uint32_t crc) {
  const py::buffer_info info = data.request();
  const Unlocked unlocked;
  return crc32c(crc, info.ptr, static_cast<size_t>(info.size * info.itemsize));
}

}  // namespace

void bind_labels(py::module_& m) {
  py::class_<LabelSet>(m, "LabelSet")
      .def(py::init([](const std::vector<std::string>& paths, const std::string& io) {
             const Unlocked unlocked;
             return std::make_unique<LabelSet>(paths, io_named(io));
           }),
           py::arg("paths"), py::arg("io"))
      .def_property_readonly("images", &LabelSet::images)
      .def("facts", &facts)
      .def("files", &files)
      .def("key", &key, py::arg("image"))
      .def("find", &LabelSet::find, py::arg("key"))
      .def("block", &block, py::arg("image"))
      .def("index_bytes", &index_bytes, py::arg("file"))
      .def("key_arrays", &key_arrays, py::arg("file"))
      .def("forget",
           [](const LabelSet& set) {
             for (const auto& file : set.files()) file->forget();
           })
      .def("gather", &gather, py::arg("images"), py::arg("crops"))
      .def("gather_tails", &gather_tails, py::arg("images"), py::arg("crops"))
      .def("gather_mixes", &gather_mixes, py::arg("images"), py::arg("crops"))
      .def(
          "verify", [](const LabelSet& set, size_t file) { set.files().at(file)->verify(); }, py::arg("file"),
          py::call_guard<Unlocked>())
      .def("check_images", &LabelSet::check_images, py::call_guard<Unlocked>());
  py::class_<LabelCodec>(m, "LabelCodec")
      .def(py::init<int, int, int, uint32_t, uint32_t, uint32_t, uint32_t, uint64_t>(), py::arg("kind"),
           py::arg("encoding"), py::arg("value_type"), py::arg("num_classes"), py::arg("k"),
           py::arg("required"), py::arg("mix_size"), py::arg("images"))
      .def("stride", &LabelCodec::stride, py::arg("height"), py::arg("width"), "Bits of a record.")
      .def("encode", &LabelCodec::encode, py::arg("height"), py::arg("width"), py::arg("arrays"),
           py::arg("extra"), py::arg("repair"))
      .def("encode_many", &LabelCodec::encode_many, py::arg("keys"), py::arg("sizes"), py::arg("arrays"),
           py::arg("repair"), py::arg("id"), py::arg("start"))
      .def("decode_values", &LabelCodec::decode_values, py::arg("height"), py::arg("width"), py::arg("block"),
           py::arg("crops"));
  m.def("crc32c", &crc32c_of, py::arg("data"), py::arg("crc") = 0, "CRC-32C of a buffer, continuing `crc`.");
}

}  // namespace fkdx
