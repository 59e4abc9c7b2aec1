// SPDX-License-Identifier: Apache-2.0
// Tables of keys as arrays, joined and looked up; folders listed without Python.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <numeric>

#include "base/check.h"
#include "bindings/rooms.h"
#include "bindings/unlocked.h"
#include "stores/canonical.h"
#include "stores/folder_walk.h"
#include "stores/key_table.h"

namespace py = pybind11;

namespace fkdx {
namespace {

template <typename T>
using Array = py::array_t<T, py::array::c_style>;

template <typename T>
Array<T> owned(std::vector<T> values) {
  auto* kept = new std::vector<T>(std::move(values));
  const py::capsule owner(kept, [](void* memory) { delete static_cast<std::vector<T>*>(memory); });
  return Array<T>(static_cast<py::ssize_t>(kept->size()), kept->data(), owner);
}

// Keeps the arrays that it looks at.
class Table {
 public:
  Table(Array<uint32_t> starts, Array<uint8_t> text) : starts_(std::move(starts)), text_(std::move(text)) {
    const auto size = starts_.size();
    check<std::invalid_argument>(size >= 1 && starts_.at(0) == 0 && starts_.at(size - 1) == text_.size() &&
                                     std::is_sorted(starts_.data(), starts_.data() + size),
                                 "KeyTable: starts, expected ascending offsets that cover the text");
  }
  explicit Table(KeyList keys) : starts_(owned(std::move(keys.starts))), text_(to_bytes(keys.text)) {}

  KeyTable view() const {
    return {starts_.data(), reinterpret_cast<const char*>(text_.data()), starts_.size() - 1};
  }
  const Array<uint32_t>& starts() const { return starts_; }
  const Array<uint8_t>& text() const { return text_; }

  py::str key(int64_t i) const {
    const KeyTable keys = view();
    check<std::out_of_range>(i >= 0 && i < keys.size, "KeyTable: image, got ", i, ", expected 0 to ",
                             keys.size - 1);
    const std::string_view key = keys.key(i);
    return py::str(key.data(), key.size());
  }

 private:
  static Array<uint8_t> to_bytes(const std::vector<char>& text) {
    Array<uint8_t> bytes(static_cast<py::ssize_t>(text.size()));
    std::copy(text.begin(), text.end(), reinterpret_cast<char*>(bytes.mutable_data()));
    return bytes;
  }

  Array<uint32_t> starts_;
  Array<uint8_t> text_;
};

// (the keys in byte order, their places in the list); checked.
py::tuple sorted_keys(const std::vector<std::string>& keys, const std::string& where) {
  std::vector<int64_t> order(keys.size());
  KeyList list;
  {
    const Unlocked unlocked;
    std::iota(order.begin(), order.end(), int64_t{0});
    const auto at = [&keys](int64_t i) -> const std::string& { return keys[static_cast<size_t>(i)]; };
    std::sort(order.begin(), order.end(), [&at](int64_t a, int64_t b) { return at(a) < at(b); });
    for (const int64_t i : order) list.add(at(i));
    check_keys(list.view(), where);
  }
  return py::make_tuple(Table(std::move(list)), owned(std::move(order)));
}

Array<int32_t> join(const Table& wanted, const Table& there) {
  Array<int32_t> found(wanted.view().size);
  int32_t* out = found.mutable_data();
  const Unlocked unlocked;
  join_keys(wanted.view(), there.view(), out);
  return found;
}

// Fills in found (N,) int32; the clashes as tuples of four numbers.
std::vector<std::array<int64_t, 4>> join_by_canonical_key(const Table& wanted, const Table& there,
                                                          const std::vector<std::string>& names,
                                                          const Array<int32_t>& numbers,
                                                          Array<int32_t> found) {
  check<std::invalid_argument>(found.size() == wanted.view().size && numbers.size() == there.view().size,
                               "join: arrays of other lengths than the keys");
  int32_t* out = found.mutable_data();
  const ClassNames classes{&names, numbers.data()};
  const Unlocked unlocked;
  std::vector<std::array<int64_t, 4>> clashes;
  for (const Clash& clash : join_canonical(wanted.view(), there.view(), classes, out)) {
    clashes.push_back({clash.wanted, clash.other_wanted, clash.there, clash.other_there});
  }
  return clashes;
}

Array<int32_t> numbers_of(const Table& keys, const std::vector<std::string>& names) {
  Array<int32_t> numbers(keys.view().size);
  int32_t* out = numbers.mutable_data();
  const Unlocked unlocked;
  classes_of(keys.view(), names, out);
  return numbers;
}

py::tuple code(const Table& keys) {
  std::vector<uint8_t> coded;
  std::vector<uint64_t> blocks;
  code_keys(keys.view(), &coded, &blocks);
  return py::make_tuple(owned(std::move(coded)), owned(std::move(blocks)));
}

Table decode(const Array<uint8_t>& coded, int64_t size, const std::string& path) {
  return Table(decode_keys(coded.data(), static_cast<uint64_t>(coded.size()), size, path));
}

Array<int64_t> sizes(const std::string& root, const Table& keys, int64_t begin, int64_t end, int threads) {
  check<std::invalid_argument>(0 <= begin && begin <= end && end <= keys.view().size, "file_sizes: range");
  Array<int64_t> sizes(end - begin);
  int64_t* out = sizes.mutable_data();
  const Unlocked unlocked;
  file_sizes(root, keys.view(), begin, end, threads, out);
  return sizes;
}

}  // namespace

void bind_stores(py::module_& m) {
  using namespace py::literals;
  py::class_<Table>(m, "KeyTable")
      .def(py::init<Array<uint32_t>, Array<uint8_t>>(), "starts"_a, "text"_a)
      .def_static("sort", &sorted_keys, "keys"_a, "where"_a)
      .def_static("decode", &decode, "coded"_a, "size"_a, "path"_a)
      .def(
          "check", [](const Table& keys, const std::string& where) { check_keys(keys.view(), where); },
          "where"_a, py::call_guard<Unlocked>())
      .def("__len__", [](const Table& keys) { return keys.view().size; })
      .def("key", &Table::key, "image"_a)
      .def(
          "find", [](const Table& keys, std::string_view key) { return find_key(keys.view(), key); }, "key"_a)
      .def("join", &join, "there"_a)
      .def("join_canonical", &join_by_canonical_key, "there"_a, "names"_a, "numbers"_a,
           py::arg("found").noconvert())
      .def(
          "first_folders", [](const Table& keys) { return first_folders(keys.view()); },
          py::call_guard<Unlocked>())
      .def("classes_of", &numbers_of, "names"_a)
      .def("code", &code)
      .def_property_readonly("starts", &Table::starts)
      .def_property_readonly("text", &Table::text);
  py::class_<FolderWalk>(m, "FolderWalk")
      .def(py::init<std::string, int>(), "root"_a, "threads"_a, py::call_guard<Unlocked>())
      .def("found", &FolderWalk::found)
      .def("wait", &FolderWalk::wait, "seconds"_a, py::call_guard<Unlocked>())
      .def("keys", [](FolderWalk& walk) {
        KeyList keys;
        {
          const Unlocked unlocked;
          keys = walk.keys();
        }
        return Table(std::move(keys));
      });
  m.def("file_sizes", &sizes, "root"_a, "keys"_a, "begin"_a, "end"_a, "threads"_a);
  m.def(
      "canonical_key", [](std::string_view key, std::string_view name) { return canonical_key(key, name); },
      "key"_a, "class_name"_a = "");
}

}  // namespace fkdx
