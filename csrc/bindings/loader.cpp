// SPDX-License-Identifier: Apache-2.0
// The pool of the loader: Python hands over arrays and gets them back filled.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "base/check.h"
#include "bindings/rooms.h"
#include "bindings/unlocked.h"
#include "loader/pool.h"

namespace py = pybind11;

namespace fkdx {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename Value>
Value named(const char* what, const std::string& name,
            const std::vector<std::pair<const char*, Value>>& values) {
  std::string expected;
  for (const auto& [known, value] : values) {
    if (name == known) return value;
    expected += (expected.empty() ? "'" : ", '") + std::string(known) + "'";
  }
  throw std::invalid_argument(message("View: ", what, ", got '", name, "', expected one of ", expected));
}

View make_view(int size, const std::string& interpolation, const std::string& resample, bool allow_warnings,
               const std::string& boxes, int resize, std::shared_ptr<RandomCrops> random, bool whole_file) {
  View view;
  view.size = size;
  view.interpolation =
      named<Interpolation>("interpolation", interpolation,
                           {{"bilinear", Interpolation::kBilinear}, {"bicubic", Interpolation::kBicubic}});
  view.resample = named<ResampleRule>(
      "resample", resample, {{"pillow12", ResampleRule::kPillow12}, {"pillow13", ResampleRule::kPillow13}});
  view.strictness = {allow_warnings, whole_file};
  view.box_rule = named<BoxRule>("boxes", boxes,
                                 {{"pixels", BoxRule::kPixels},
                                  {"ratios", BoxRule::kRatios},
                                  {"random", BoxRule::kRandom},
                                  {"centre", BoxRule::kCentre}});
  view.resize = resize;
  view.random = std::move(random);
  check<std::invalid_argument>(size >= 1 && size <= 4096, "View: size, got ", size, ", expected 1..4096");
  check<std::invalid_argument>(resize >= 1 && resize <= 16384, "View: resize, got ", resize,
                               ", expected 1..16384");
  check<std::invalid_argument>(view.box_rule != BoxRule::kRandom || view.random, "View: random, got None");
  return view;
}

// A batch under way with everything it writes to; letting go of it cancels what is left.
class Pending {
 public:
  Pending(std::shared_ptr<Pool> pool, std::shared_ptr<Batch> batch, std::vector<py::object> kept)
      : pool_(std::move(pool)), batch_(std::move(batch)), kept_(std::move(kept)) {}

  ~Pending() {
    if (pool_->in_owner()) {
      cancel();
    } else {
      new std::shared_ptr<Batch>(batch_);  // leaked on purpose, see Pool::delete_in_owner
    }
  }

  bool wait(double seconds) {
    const Unlocked unlocked;
    return pool_->wait(*batch_, seconds);
  }

  void cancel() {
    const Unlocked unlocked;
    pool_->cancel(*batch_);
  }

  std::vector<int> in_state(State state) const { return pool_->in_state(*batch_, state); }

  void raise_error(size_t image) const {
    const std::exception_ptr& error = batch_->images.at(image).error;
    if (error) std::rethrow_exception(error);
  }

  py::bytes encoded(size_t image) const {
    const auto& bytes = batch_->images.at(image).encoded;
    check<std::invalid_argument>(bytes != nullptr, "encoded: image ", image, " is not kept");
    return py::bytes(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  }

  std::vector<int> warned() const {
    std::vector<int> found;
    for (size_t i = 0; i < batch_->images.size(); ++i) {
      if (batch_->images[i].warned) found.push_back(static_cast<int>(i));
    }
    return found;
  }

  Array<int32_t> sizes() const {
    Array<int32_t> sizes({static_cast<py::ssize_t>(batch_->images.size()), py::ssize_t{2}});
    int32_t* next = sizes.mutable_data();
    for (const Image& image : batch_->images) {
      *next++ = image.size.height;
      *next++ = image.size.width;
    }
    return sizes;
  }

 private:
  std::shared_ptr<Pool> pool_;
  std::shared_ptr<Batch> batch_;
  std::vector<py::object> kept_;
};

// The entry points of a data index: of the images of a store, by number.
class EntryTable {
 public:
  // starts (N + 1,): where those of each image of the index begin in `coded`; numbers: the number in the
  // index of each image of the store, -1 where it has none; None: the same.
  EntryTable(Array<uint64_t> starts, Array<uint8_t> coded, std::optional<Array<int32_t>> numbers)
      : starts_(std::move(starts)), coded_(std::move(coded)), numbers_(std::move(numbers)) {}

  CodedEntryPoints of(int64_t image) const {
    if (numbers_ && (image < 0 || image >= numbers_->size())) return {};
    const int64_t number = numbers_ ? numbers_->data()[image] : image;
    if (number < 0 || number + 1 >= starts_.size()) return {};
    const uint64_t begin = starts_.data()[number], end = starts_.data()[number + 1];
    if (begin > end || end > static_cast<uint64_t>(coded_.size())) return {};
    return {coded_.data() + begin, end - begin};
  }

 private:
  Array<uint64_t> starts_;
  Array<uint8_t> coded_;
  std::optional<Array<int32_t>> numbers_;
};

void check_rows(const py::array& array, const char* name, std::vector<py::ssize_t> shape) {
  const bool ok = static_cast<size_t>(array.ndim()) == shape.size() &&
                  std::equal(shape.begin(), shape.end(), array.shape());
  check<std::invalid_argument>(ok, "submit: ", name, ", got another shape, expected ", shape.size(),
                               " dimensions with ", shape[0], " rows");
}

std::unique_ptr<Pending> submit(std::shared_ptr<Pool> pool, const View& view,
                                const std::vector<std::tuple<std::string, int64_t, int64_t>>& places,
                                const std::vector<int64_t>& indices, const std::vector<int>& counts,
                                Array<uint8_t> images, Array<int32_t> boxes, Array<uint8_t> flips,
                                std::optional<Array<float>> ratios,
                                const std::vector<std::pair<int, int>>& sizes,
                                const std::vector<uint64_t>& streams, const std::vector<int64_t>& first_crops,
                                bool urgent, py::object entries, const std::vector<std::string_view>& held) {
  const size_t n = places.size();
  const auto* table = entries.is_none() ? nullptr : entries.cast<const EntryTable*>();
  const bool random = view.box_rule == BoxRule::kRandom;
  check<std::invalid_argument>(
      indices.size() == n && counts.size() == n && (sizes.empty() || sizes.size() == n) &&
          (held.empty() || held.size() == n) && (!random || (streams.size() == n && first_crops.size() == n)),
      "submit: lists of different lengths for ", n, " images");
  std::vector<Image> work(n);
  int rows = 0;
  for (size_t i = 0; i < n; ++i) {
    check<std::invalid_argument>(counts[i] >= 1, "submit: count, got ", counts[i], ", expected 1 or more");
    work[i].where = {std::get<0>(places[i]), std::get<1>(places[i]), std::get<2>(places[i])};
    if (!held.empty()) work[i].held = std::make_shared<Bytes>(held[i].begin(), held[i].end());
    work[i].index = indices[i];
    if (table) work[i].entries = table->of(indices[i]);
    if (!sizes.empty()) work[i].expected = {sizes[i].first, sizes[i].second};
    work[i].first = rows;
    work[i].count = counts[i];
    if (random) work[i].stream = streams[i];
    if (random) work[i].first_crop = first_crops[i];
    rows += counts[i];
  }
  check_rows(images, "images", {rows, view.size, view.size, 3});
  check_rows(boxes, "boxes", {rows, 4});
  check_rows(flips, "flips", {rows});
  check<std::invalid_argument>(ratios.has_value() == (view.box_rule == BoxRule::kRatios), "submit: ratios");
  if (ratios) check_rows(*ratios, "ratios", {rows, 4});
  const Rows pointers{images.mutable_data(), reinterpret_cast<Box*>(boxes.mutable_data()),
                      flips.mutable_data(), ratios ? ratios->data() : nullptr};
  auto batch = std::make_shared<Batch>(view, pointers, std::move(work));
  std::vector<py::object> kept{images, boxes, flips, entries};
  if (ratios) kept.push_back(*ratios);
  pool->submit(batch, urgent);
  return std::make_unique<Pending>(std::move(pool), std::move(batch), std::move(kept));
}

py::dict stages(const Pool& pool) {
  const Stages spent = pool.stages();
  py::dict facts;
  facts["read_ns"] = spent.read_ns;
  facts["decode_ns"] = spent.decode_ns;
  facts["resize_ns"] = spent.resize_ns;
  facts["wait_ns"] = spent.wait_ns;
  facts["images"] = spent.images;
  facts["crops"] = spent.crops;
  facts["bytes"] = spent.bytes;
  facts["warned"] = spent.warned;
  facts["entered"] = spent.entered;
  facts["cold"] = spent.cold;
  facts["misfits"] = spent.misfits;
  facts["cached_bytes"] = pool.cache_bytes();
  return facts;
}

py::tuple random_boxes(const RandomCrops& rule, uint64_t stream, int height, int width, int64_t first,
                       int count) {
  check<std::invalid_argument>(height >= 1 && width >= 1, "random_boxes: size, got (", height, ", ", width,
                               "), expected positive");
  check<std::invalid_argument>(first >= 0 && count >= 0, "random_boxes: crops, got ", count, " from ", first);
  Array<int32_t> boxes({static_cast<py::ssize_t>(count), py::ssize_t{4}});
  Array<uint8_t> flips(count);
  rule.draw(stream, {height, width}, first, count, reinterpret_cast<Box*>(boxes.mutable_data()),
            flips.mutable_data());
  return py::make_tuple(boxes, flips.attr("view")("bool"));
}

}  // namespace

void bind_loader(py::module_& m) {
  using namespace py::literals;
  py::class_<RandomCrops, std::shared_ptr<RandomCrops>>(m, "RandomCrops")
      .def(py::init([](std::pair<double, double> scale, std::pair<double, double> ratio, double flip) {
             return std::make_shared<RandomCrops>(
                 RandomCropRule{scale.first, scale.second, ratio.first, ratio.second, flip});
           }),
           "scale"_a, "ratio"_a, "flip"_a)
      .def("draw", &random_boxes, "stream"_a, "height"_a, "width"_a, "first"_a, "count"_a);
  m.def("mix_words", [](const std::vector<uint64_t>& words) {
    return mix_words(words.data(), static_cast<int>(words.size()));
  });

  py::class_<View>(m, "View").def(py::init(&make_view), "size"_a, "interpolation"_a = "bilinear",
                                  "resample"_a = "pillow12", "allow_warnings"_a = false, "boxes"_a = "pixels",
                                  "resize"_a = 256, "random"_a = nullptr, "whole_file"_a = false);
  py::class_<EntryTable>(m, "EntryTable")
      .def(py::init<Array<uint64_t>, Array<uint8_t>, std::optional<Array<int32_t>>>(), "starts"_a, "coded"_a,
           "numbers"_a = py::none())
      .def(
          "of",
          [](const EntryTable& table, int64_t image) {
            const CodedEntryPoints coded = table.of(image);
            return py::bytes(reinterpret_cast<const char*>(coded.data), coded.size);
          },
          "image"_a, "The coded entry points of an image of the store; empty where it has none.");
  py::class_<Pending>(m, "Pending")
      .def("wait", &Pending::wait, "seconds"_a)
      .def("cancel", &Pending::cancel)
      .def("waiting", [](const Pending& self) { return self.in_state(State::kWaiting); })
      .def("failed", [](const Pending& self) { return self.in_state(State::kFailed); })
      .def("cancelled", [](const Pending& self) { return self.in_state(State::kCancelled); })
      .def("foreign", [](const Pending& self) { return self.in_state(State::kForeign); })
      .def("raise_error", &Pending::raise_error, "image"_a)
      .def("encoded", &Pending::encoded, "image"_a)
      .def("sizes", &Pending::sizes)
      .def("warned", &Pending::warned, "After `wait`: images with warnings that change no pixel.");
  py::class_<Pool, std::shared_ptr<Pool>>(m, "Pool")
      .def(py::init([](int threads, int64_t cache_bytes) {
             return std::shared_ptr<Pool>(new Pool(threads, cache_bytes), &Pool::delete_in_owner);
           }),
           "threads"_a, "cache_bytes"_a = 0)
      .def("submit", &submit, "view"_a, "places"_a, "indices"_a, "counts"_a, py::arg("images").noconvert(),
           py::arg("boxes").noconvert(), py::arg("flips").noconvert(), "ratios"_a = py::none(),
           "sizes"_a = std::vector<std::pair<int, int>>{}, "streams"_a = std::vector<uint64_t>{},
           "first_crops"_a = std::vector<int64_t>{}, "urgent"_a = false, "entries"_a = py::none(),
           "held"_a = std::vector<std::string_view>{})
      .def("check_process", &Pool::check_process)
      .def("close", &Pool::close, py::call_guard<Unlocked>())
      .def("stages", &stages)
      .def_property_readonly("threads", &Pool::threads);
}

}  // namespace fkdx
