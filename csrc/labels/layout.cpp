// SPDX-License-Identifier: Apache-2.0
#include "labels/layout.h"

#include <algorithm>

#include "base/check.h"

namespace fkdx {
namespace {

uint32_t bit_length(uint32_t x) { return x == 0 ? 0 : 32 - static_cast<uint32_t>(__builtin_clz(x)); }

// Appends fields to a record: aligned to their own width in the plain encoding, packed in the compact one.
class RecordBuilder {
 public:
  explicit RecordBuilder(bool aligned) : aligned_(aligned) {}

  Field add(uint32_t width, uint32_t count = 1) {
    if (count == 0) return {};
    if (aligned_) end_ = (end_ + width - 1) / width * width;
    const Field field{static_cast<uint32_t>(end_), width, count};
    end_ += uint64_t{width} * count;
    widest_ = std::max(widest_, width);
    return field;
  }

  uint64_t stride() const { return aligned_ ? (end_ + widest_ - 1) / widest_ * widest_ : end_; }

 private:
  bool aligned_;
  uint64_t end_ = 0;
  uint32_t widest_ = 1;
};

uint32_t value_width(ValueType type) {
  constexpr uint32_t kWidths[] = {0, 16, 32, 8, 8};
  return kWidths[static_cast<int>(type)];
}

}  // namespace

void Layout::check(const std::string& where) const {
  const auto rule = [&where](bool holds, auto... parts) { fkdx::check<FormatError>(holds, where, parts...); };
  rule(kind <= Kind::kEmbedding, ": kind, got ", int(kind), ", expected 0 to 6; a newer fkdx may read it");
  rule(encoding <= Encoding::kCompact, ": encoding, got ", int(encoding), ", expected 0 or 1");
  rule(value_type <= ValueType::kInt8, ": value type, got ", int(value_type), ", expected 0 to 4");
  rule(classes >= 1 && classes <= kMaxClasses, ": classes, got ", classes, ", expected 1 to ", kMaxClasses);
  if (embeds()) {
    rule(classes <= kMaxEmbedding, ": size of an embedding, got ", classes, ", expected 1 to ",
         kMaxEmbedding);
    rule(kept >= classes && kept <= classes + kMaxEmbedding, ": size of a second embedding, got ",
         int64_t{kept} - classes, ", expected 0 to ", kMaxEmbedding);
  } else if (dense()) {
    rule(kept == classes, ": kept values of a dense kind, got ", kept, ", expected ", classes);
  } else {
    const uint32_t most = std::min(classes, kMaxKept);
    rule(kept >= 1 && kept <= most, ": kept classes, got ", kept, ", expected 1 to ", most);
  }
  if (kind == Kind::kHard || kind == Kind::kSmoothing) {
    rule(kept == 1, ": kept classes of hard and smoothing labels, got ", kept, ", expected 1");
  }
  rule((kind == Kind::kHard) == (value_type == ValueType::kNone), ": value type, got ", int(value_type),
       ", expected 0 (none) for hard labels and for them only");
  rule(value_type != ValueType::kLog8 ||
           (encoding == Encoding::kCompact && (kind == Kind::kTopk || kind == Kind::kSmoothing)),
       ": value type log8, expected only in compact topk or smoothing files");
  rule(value_type != ValueType::kInt8 || embeds(), ": value type int8, expected only for embeddings");
  rule((required & ~uint32_t{kKnownRequired}) == 0, ": required flags, got ", required,
       ", which this version does not know; a newer fkdx may read the file");
}

RecordFields record_fields(const Layout& layout, uint32_t height, uint32_t width) {
  const bool plain = layout.encoding == Encoding::kPlain;
  RecordBuilder record(plain);
  const uint32_t edge = layout.ratios() ? 32 : 16;
  const bool fitted = !plain && !layout.ratios();  // box fields are only as wide as the image needs
  const uint32_t rows = fitted ? bit_length(height) : edge;
  const uint32_t columns = fitted ? bit_length(width) : edge;
  const uint32_t id =
      plain ? (layout.classes > 65536 ? 32 : 16) : std::max(1u, bit_length(layout.classes - 1));
  RecordFields fields;
  fields.top = record.add(rows);
  fields.left = record.add(columns);
  fields.height = record.add(rows);
  fields.width = record.add(columns);
  fields.ids = record.add(id, layout.id_count());
  fields.rest = record.add(1, layout.value_type == ValueType::kLog8);
  fields.scales = record.add(16, layout.value_type == ValueType::kInt8 ? layout.embeddings() : 0);
  fields.values = record.add(value_width(layout.value_type), layout.value_count());
  fields.tail = record.add(32, layout.kind == Kind::kTopkLogits);
  fields.partner = record.add(32, layout.two_views());
  fields.partner_box = record.add(edge, layout.two_views() ? 4 : 0);
  fields.operation = record.add(8, layout.two_views());
  fields.lambda = record.add(32, layout.two_views());
  fields.mix_box = record.add(16, layout.two_views() ? 4 : 0);
  fields.stride = record.stride();
  return fields;
}

BlockSize block_size(const RecordFields& fields, uint32_t crops, uint32_t extra) {
  const uint64_t flips = (fields.stride * crops + 7) / 8;
  const uint64_t end = flips + (crops + 7) / 8;
  return {flips, end, align64(end + extra)};
}

}  // namespace fkdx
