// SPDX-License-Identifier: Apache-2.0
#include "loss/entries.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "base/half.h"

namespace fkdx {
namespace {

constexpr size_t kFew = 64;  // so many are faster compared, all with all, than sorted

template <typename T>
T element(const void* from, int64_t index) {
  T x;
  std::memcpy(&x, static_cast<const char*>(from) + index * sizeof(T), sizeof(T));
  return x;
}

const char* name_of(Link link) {
  return link == Link::kSoftmax ? "soft_cross_entropy" : "binary_cross_entropy";
}

}  // namespace

double load_float(const void* from, Float type, int64_t index) {
  switch (type) {
    case Float::kF32:
      return element<float>(from, index);
    case Float::kF64:
      return element<double>(from, index);
    case Float::kBf16:
      return float_of(uint32_t{element<uint16_t>(from, index)} << 16);
    case Float::kF16:
      return half_to_float(element<uint16_t>(from, index));
  }
  return NAN;
}

int64_t load_int(const void* from, Int type, int64_t index) {
  switch (type) {
    case Int::kI16:
      return element<int16_t>(from, index);
    case Int::kI32:
      return element<int32_t>(from, index);
    case Int::kI64:
      return element<int64_t>(from, index);
  }
  return -1;
}

void RowTarget::read(const LossCall& call, int64_t row) {
  base = mass = 0;
  entries.clear();
  for (int i = 0; i < call.num_sources; ++i) add(call, call.sources[i], row);
  merge();
}

void RowTarget::add(const LossCall& call, const Source& source, int64_t row) {
  const int64_t from = source.rows ? source.rows[row] : row, classes = call.classes;
  check<std::out_of_range>(from >= 0 && from < source.num_rows, name_of(call.link), ": partner of row ", row,
                           ", got ", from, ", expected 0 <= entry < ", source.num_rows);
  const double weight = source.weights ? source.weight * double(source.weights[row]) : source.weight;
  const size_t start = entries.size();
  double sum = 0;
  for (int k = 0; k < source.k; ++k) {
    const int64_t id = load_int(source.ids, source.ids_type, from * source.ids_stride + k);
    check<std::out_of_range>(id >= 0 && id < classes, name_of(call.link), ": class id in row ", row, ", got ",
                             id, ", expected 0 <= id < ", classes);
    const double value =
        source.values ? load_float(source.values, source.values_type, from * source.values_stride + k) : 1.0;
    sum += value;
    Entry& entry = entries.emplace_back();  // field by field: a copy would wait for both stores
    entry.id = id;
    entry.delta = value;
  }
  const Recovery<double> recovery = recover<double>(source.tail, sum, source.k, classes);
  for (size_t e = start; e < entries.size(); ++e) {
    entries[e].delta = weight * (recovery.gain * entries[e].delta - recovery.base);
  }
  base += weight * recovery.base;
  mass += weight * recovery.mass;
}

bool RowTarget::named_twice() const {
  bool twice = false;
  for (size_t i = 0; i < entries.size(); ++i) {
    for (size_t j = 0; j < i; ++j) twice |= entries[i].id == entries[j].id;
  }
  return twice;
}

void RowTarget::merge() {
  if (entries.size() <= kFew && !named_twice()) return;
  std::sort(entries.begin(), entries.end(), [](const Entry& a, const Entry& b) { return a.id < b.id; });
  size_t kept = 0;
  for (const Entry& entry : entries) {
    if (kept && entries[kept - 1].id == entry.id) {
      entries[kept - 1].delta += entry.delta;
    } else {
      entries[kept++] = entry;
    }
  }
  entries.resize(kept);
}

}  // namespace fkdx
