// SPDX-License-Identifier: Apache-2.0
#include "labels/codec.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "base/half.h"
#include "labels/values.h"

namespace fkdx {
namespace {

// Widths are at most 32, so that a field and the bits before it fit one 64-bit word.
inline uint32_t read_bits(const uint8_t* block, uint64_t at, uint32_t width) {
  uint64_t word;
  std::memcpy(&word, block + at / 8, 8);
  return static_cast<uint32_t>(word >> (at & 7) & ((uint64_t{1} << width) - 1));
}

inline void write_bits(uint8_t* block, uint64_t at, uint32_t width, uint32_t value) {
  uint64_t word;
  std::memcpy(&word, block + at / 8, 8);
  word |= (value & ((uint64_t{1} << width) - 1)) << (at & 7);
  std::memcpy(block + at / 8, &word, 8);
}

// Hands the items of a field to `put(i, raw bits)`.
template <typename Put>
inline void read_field(const uint8_t* block, uint64_t record, const Field& field, Put put) {
  const uint64_t at = record + field.at;
  if (field.width == 16 && at % 8 == 0) {  // the plain encoding's ids
    const uint8_t* from = block + at / 8;
    for (uint32_t i = 0; i < field.count; ++i) {
      uint16_t raw;
      std::memcpy(&raw, from + 2 * i, 2);
      put(i, uint32_t{raw});
    }
    return;
  }
  for (uint32_t i = 0; i < field.count; ++i)
    put(i, read_bits(block, at + uint64_t{field.width} * i, field.width));
}

// One record of a block.
class Record {
 public:
  Record(const RecordFields& fields, const uint8_t* block, uint32_t crop)
      : block_(block), at_(fields.stride * crop) {}
  uint32_t get(const Field& field, uint32_t i = 0) const {
    return read_bits(block_, at_ + field.at + uint64_t{field.width} * i, field.width);
  }
  template <typename Put>
  void each(const Field& field, Put put) const {
    read_field(block_, at_, field, put);
  }
  // Top, left, height and width, which follow each other: boxes in pixels are one word.
  void get_edges(const RecordFields& fields, uint32_t edges[4]) const {
    const Field* each[] = {&fields.top, &fields.left, &fields.height, &fields.width};
    const auto [from, shift] = place(fields.top, 0);
    if (shift + fields.width.at + fields.width.width - fields.top.at > 64) {
      for (int i = 0; i < 4; ++i) edges[i] = get(*each[i]);
      return;
    }
    uint64_t word;
    std::memcpy(&word, from, sizeof(word));
    word >>= shift;
    for (int i = 0; i < 4; ++i) {
      const uint64_t mask = (uint64_t{1} << each[i]->width) - 1;
      edges[i] = static_cast<uint32_t>(word >> (each[i]->at - fields.top.at) & mask);
    }
  }
  // The byte in which item `i` begins, and at which of its bits.
  std::pair<const uint8_t*, uint32_t> place(const Field& field, uint32_t i) const {
    const uint64_t at = at_ + field.at + uint64_t{field.width} * i;
    return {block_ + at / 8, static_cast<uint32_t>(at & 7)};
  }

 private:
  const uint8_t* block_;
  uint64_t at_;
};

class RecordWriter {
 public:
  RecordWriter(const RecordFields& fields, uint8_t* block, uint32_t crop)
      : block_(block), at_(fields.stride * crop) {}
  void put(const Field& field, uint32_t value, uint32_t i = 0) {
    write_bits(block_, at_ + field.at + uint64_t{field.width} * i, field.width, value);
  }

 private:
  uint8_t* block_;
  uint64_t at_;
};

// ---- log8 -------------------------------------------------------------------------------------------------

constexpr double kStepsPerOctave = 15;

struct Log8 {
  std::array<float, 256> level{};
  Log8() {
    for (int code = 1; code < 256; ++code) {
      level[code] = static_cast<float>(std::exp2(-(1 + (255 - code) / kStepsPerOctave)));
    }
  }
};
const Log8 kLog8;

// The code with the nearest logarithm; below half of the smallest level, 0.
uint8_t log8_code(double probability) {
  if (probability < kLog8.level[1] / 2) return 0;
  const double code = 255 + kStepsPerOctave * (std::log2(probability) + 1);
  return static_cast<uint8_t>(std::clamp(std::nearbyint(code), 1.0, 255.0));
}

void encode_log8(const RecordFields& fields, const float* values, uint32_t kept, RecordWriter* record) {
  double left = 1;
  for (uint32_t k = 0; k < kept; ++k) left -= values[k];
  const uint8_t rest_code = log8_code(left), first_code = log8_code(values[0]);
  double others = kLog8.level[rest_code];
  float second = 0;
  for (uint32_t k = 1; k < kept; ++k) {
    const uint8_t code = log8_code(values[k]);
    others += kLog8.level[code];
    second = std::max(second, kLog8.level[code]);
    record->put(fields.values, code, k);
  }
  // What was decoded before keeps its value exactly, whichever way it went then.
  const bool first_exact = kLog8.level[first_code] == values[0];
  // Of two probabilities near 0.5 the first must not come out below the second: another class would lead.
  const bool rest =
      !first_exact && first_left(others) >= second && (values[0] >= 0.5f || first_left(others) == values[0]);
  record->put(fields.rest, rest);
  record->put(fields.values, rest ? rest_code : first_code, 0);
}

void decode_log8(const RecordFields& fields, const Record& record, uint32_t kept, float* values) {
  record.each(fields.values, [values](uint32_t k, uint32_t raw) { values[k] = kLog8.level[raw]; });
  put_first(values, kept, record.get(fields.rest));
}

// ---- int8: embeddings ------------------------------------------------------------------------------------

constexpr int kLargestCode = 127;

// Hands each embedding of a crop to `visit(its number, its first value, how many it has)`.
template <typename Visit>
void each_embedding(const Layout& layout, Visit visit) {
  visit(0u, 0u, layout.classes);
  if (layout.kept > layout.classes) visit(1u, layout.classes, layout.kept - layout.classes);
}

// A scale is a bfloat16, the upper half of a float: what counts is its range, as the codes are made for it.
float scale_of(uint32_t raw) { return float_of(raw << 16); }

int8_t int8_code(float value, float scale) {
  return static_cast<int8_t>(std::clamp(std::nearbyint(value / scale), -127.0f, 127.0f));
}

// The smallest scale whose codes reach all values. Values that were decoded before are multiples of it or of
// one of the next two, and keep their codes.
uint32_t int8_scale(const float* values, uint32_t count) {
  float largest = 0;
  for (uint32_t i = 0; i < count; ++i) largest = std::max(largest, std::fabs(values[i]));
  if (largest == 0) return 0;
  const uint32_t smallest = std::max(1u, (bits_of(largest / kLargestCode) + 0xFFFF) >> 16);
  for (uint32_t raw = smallest; raw < smallest + 3; ++raw) {
    const float scale = scale_of(raw);
    const auto kept = [scale](float value) {
      return static_cast<float>(int8_code(value, scale)) * scale == value;
    };
    if (std::all_of(values, values + count, kept)) return raw;
  }
  return smallest;
}

void encode_int8(const Layout& layout, const RecordFields& fields, const float* values,
                 RecordWriter* record) {
  each_embedding(layout, [&](uint32_t number, uint32_t first, uint32_t count) {
    const uint32_t raw = int8_scale(values + first, count);
    record->put(fields.scales, raw, number);
    for (uint32_t k = first; raw && k < first + count; ++k) {
      record->put(fields.values, static_cast<uint8_t>(int8_code(values[k], scale_of(raw))), k);
    }
  });
}

void decode_int8(const Layout& layout, const RecordFields& fields, const Record& record, float* values) {
  each_embedding(layout, [&](uint32_t number, uint32_t first, uint32_t count) {
    const float scale = scale_of(record.get(fields.scales, number));
    const auto [from, shift] = record.place(fields.values, first);
    decode_codes(from, shift, count, scale, values + first);
  });
}

// ---- floats and boxes -------------------------------------------------------------------------------------

void decode_float16(const Field& field, const Record& record, float* values) {
  const auto [from, shift] = record.place(field, 0);
  decode_halves(from, shift, field.count, values);
}

void decode_values(const Layout& layout, const RecordFields& fields, const Record& record, float* values) {
  switch (layout.value_type) {
    case ValueType::kNone:
      values[0] = 1;
      break;
    case ValueType::kFloat16:
      decode_float16(fields.values, record, values);
      break;
    case ValueType::kFloat32:
      record.each(fields.values, [values](uint32_t k, uint32_t raw) { values[k] = float_of(raw); });
      break;
    case ValueType::kLog8:
      decode_log8(fields, record, layout.kept, values);
      break;
    case ValueType::kInt8:
      decode_int8(layout, fields, record, values);
      break;
  }
}

void encode_values(const Layout& layout, const RecordFields& fields, const float* values,
                   RecordWriter* record) {
  switch (layout.value_type) {
    case ValueType::kNone:
      break;
    case ValueType::kFloat16:
      for (uint32_t k = 0; k < layout.kept; ++k) record->put(fields.values, float_to_half(values[k]), k);
      break;
    case ValueType::kFloat32:
      for (uint32_t k = 0; k < layout.kept; ++k) record->put(fields.values, bits_of(values[k]), k);
      break;
    case ValueType::kLog8:
      encode_log8(fields, values, layout.kept, record);
      break;
    case ValueType::kInt8:
      encode_int8(layout, fields, values, record);
      break;
  }
}

void decode_floats(const Field& field, const Record& record, float* out) {
  for (uint32_t i = 0; i < field.count; ++i) out[i] = float_of(record.get(field, i));
}

void encode_mix(const RecordFields& fields, const CropArrays& in, bool ratios, RecordWriter* record) {
  record->put(fields.partner, *in.partners);
  for (uint32_t i = 0; i < 4; ++i) {
    const uint32_t edge = ratios ? bits_of(in.partner_ratios[i]) : static_cast<uint32_t>(in.partner_boxes[i]);
    record->put(fields.partner_box, edge, i);
    record->put(fields.mix_box, static_cast<uint32_t>(in.mix_boxes[i]), i);
  }
  record->put(fields.operation, *in.operations);
  record->put(fields.lambda, bits_of(*in.lambdas));
}

void decode_mix(const RecordFields& fields, const Record& record, const CropArrays& out) {
  *out.partners = record.get(fields.partner);
  if (out.partner_ratios) decode_floats(fields.partner_box, record, out.partner_ratios);
  for (uint32_t i = 0; i < 4; ++i) {
    if (out.partner_boxes) out.partner_boxes[i] = static_cast<int32_t>(record.get(fields.partner_box, i));
    out.mix_boxes[i] = static_cast<int32_t>(record.get(fields.mix_box, i));
  }
  *out.operations = static_cast<uint8_t>(record.get(fields.operation));
  *out.lambdas = float_of(record.get(fields.lambda));
}

template <typename T>
T* step(T* array, size_t items) {
  return array ? array + items : nullptr;
}

}  // namespace

CropArrays CropArrays::from(size_t n, const Layout& layout) const {
  return {step(boxes, 4 * n),
          step(ratios, 4 * n),
          step(flips, n),
          step(ids, layout.id_count() * n),
          step(values, layout.kept * n),
          step(tails, n),
          step(partners, n),
          step(partner_boxes, 4 * n),
          step(partner_ratios, 4 * n),
          step(operations, n),
          step(lambdas, n),
          step(mix_boxes, 4 * n)};
}

void encode_crops(const Layout& layout, const RecordFields& fields, const CropArrays& arrays, uint32_t crops,
                  uint8_t* block) {
  uint8_t* flips = block + block_size(fields, crops, 0).flips;
  for (uint32_t crop = 0; crop < crops; ++crop) {
    RecordWriter record(fields, block, crop);
    const CropArrays in = arrays.from(crop, layout);
    const Field* edges[] = {&fields.top, &fields.left, &fields.height, &fields.width};
    for (int i = 0; i < 4; ++i) {
      record.put(*edges[i], layout.ratios() ? bits_of(in.ratios[i]) : static_cast<uint32_t>(in.boxes[i]));
    }
    for (uint32_t k = 0; k < layout.id_count(); ++k) {
      record.put(fields.ids, static_cast<uint32_t>(in.ids[k]), k);
    }
    encode_values(layout, fields, in.values, &record);
    if (fields.tail.count) record.put(fields.tail, bits_of(*in.tails));
    if (layout.two_views()) encode_mix(fields, in, layout.ratios(), &record);
  }
  // Last, because writing a field rewrites the bytes behind it.
  for (uint32_t crop = 0; crop < crops; ++crop) {
    if (arrays.flips[crop]) flips[crop / 8] |= static_cast<uint8_t>(1u << (crop % 8));
  }
}

void decode_crop(const Layout& layout, const RecordFields& fields, const uint8_t* block, uint64_t flips,
                 uint32_t crop, const CropArrays& out) {
  const Record record(fields, block, crop);
  if (out.boxes || out.ratios) {
    uint32_t edges[4];
    record.get_edges(fields, edges);
    static_assert(sizeof(edges) == 4 * sizeof(float));
    std::memcpy(out.boxes ? static_cast<void*>(out.boxes) : out.ratios, edges, sizeof(edges));
  }
  if (out.flips) *out.flips = block[flips + crop / 8] >> (crop % 8) & 1;
  if (int32_t* ids = out.ids) {
    record.each(fields.ids, [ids](uint32_t k, uint32_t raw) { ids[k] = static_cast<int32_t>(raw); });
  }
  if (out.values) decode_values(layout, fields, record, out.values);
  if (out.tails) decode_floats(fields.tail, record, out.tails);
  if (out.partners) decode_mix(fields, record, out);
}

const float* log8_levels() { return kLog8.level.data(); }

bool is_log8_level(float value) {
  return float_to_half(kLog8.level[log8_code(value)]) == float_to_half(value);
}

}  // namespace fkdx
