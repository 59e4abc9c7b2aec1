// SPDX-License-Identifier: Apache-2.0
#include "labels/crop_check.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/check.h"
#include "labels/values.h"

namespace fkdx {
namespace {

constexpr float kLargestHalf = 65504;

template <typename T>
std::string box_text(const T* box) {
  return message("(", box[0], ", ", box[1], ", ", box[2], ", ", box[3], ")");
}

bool inside(const int32_t* box, int64_t height, int64_t width) {
  return box[0] >= 0 && box[1] >= 0 && box[2] >= 1 && box[3] >= 1 && int64_t{box[0]} + box[2] <= height &&
         int64_t{box[1]} + box[3] <= width;
}

bool inside(const float* box) {
  constexpr float kSlack = 1e-5f;  // of float32 ratios
  return box[0] >= 0 && box[1] >= 0 && box[2] > 0 && box[3] > 0 && box[0] + box[2] <= 1 + kSlack &&
         box[1] + box[3] <= 1 + kSlack;
}

bool value_ok(bool probability, float value) {
  if (!probability) return std::isfinite(value);
  return value >= 0 && value < kTooLarge;  // false for NaN
}

std::string value_fault(const Layout& layout, float value) {
  return message("value, got ", value, ", expected ",
                 layout.probabilities() ? "a probability in 0 to 1"
                 : layout.logits()      ? "a finite logit"
                                        : "a finite number");
}

bool values_ok(const Layout& layout, const float* values) {
  if (!layout.probabilities()) return all_finite(values, layout.value_count());
  bool right = true;
  for (uint32_t k = 0; k < layout.value_count(); ++k) right &= value_ok(true, values[k]);
  return right;
}

// What exp of the classes that are not kept adds up to, as a logarithm: that of nothing where all are kept.
bool tail_ok(const Layout& layout, float tail) {
  return layout.kept == layout.classes ? std::isinf(tail) && tail < 0 : std::isfinite(tail);
}

std::string tail_fault(const Layout& layout, float tail) {
  return message("tail, got ", tail, ", expected ",
                 layout.kept == layout.classes ? "-inf where all classes are kept" : "a finite number");
}

std::string id_fault(const Layout& layout, int32_t id) {
  return message("class id, got ", id, ", expected 0 to ", layout.classes - 1);
}

std::string mix_fault(const Layout& layout, const CropBounds& bounds, const CropArrays& crop) {
  const uint8_t operation = *crop.operations;
  if (operation & ~kKnownOperations)
    return message("mix operation, got ", int(operation), ", expected 0 to 7");
  if (!(operation & (kMixup | kCutmix))) return "";
  if (*crop.partners >= bounds.images) {
    return message("partner, got image ", *crop.partners, ", expected less than ", bounds.images);
  }
  if (layout.ratios() ? !inside(crop.partner_ratios) : !inside(crop.partner_boxes, 65535, 65535)) {
    return "partner box, expected inside its image";
  }
  if (!(*crop.lambdas >= 0 && *crop.lambdas <= 1)) {
    return message("lambda, got ", *crop.lambdas, ", expected 0 to 1");
  }
  const int32_t* box = crop.mix_boxes;  // empty is allowed: cutmix may draw a rectangle without a pixel
  const int64_t size = bounds.mix_size;
  const bool fits = box[0] >= 0 && box[1] >= 0 && box[2] >= 0 && box[3] >= 0 &&
                    int64_t{box[0]} + box[2] <= size && int64_t{box[1]} + box[3] <= size;
  if (!fits) return message("mix box, got ", box_text(box), ", expected inside ", size, " x ", size);
  return "";
}

// ---- writing ---------------------------------------------------------------------------------------------

void clamp_box(const CropBounds& bounds, int32_t* box) {
  const int64_t sizes[] = {bounds.height, bounds.width};
  for (int axis = 0; axis < 2; ++axis) {
    const int64_t begin = std::clamp<int64_t>(box[axis], 0, sizes[axis] - 1);
    const int64_t end = std::clamp<int64_t>(int64_t{box[axis]} + box[2 + axis], begin + 1, sizes[axis]);
    box[axis] = static_cast<int32_t>(begin);
    box[2 + axis] = static_cast<int32_t>(end - begin);
  }
}

void clamp_ratios(float* box) {
  for (int axis = 0; axis < 2; ++axis) {
    const float begin = box[axis] >= 0 && box[axis] < 1 ? box[axis] : 0;
    const float length = box[2 + axis] > 0 ? box[2 + axis] : 1;  // also for NaN
    box[axis] = begin;
    box[2 + axis] = std::min(length, 1 - begin);
  }
}

// The labels of one crop, checked and mended.
class RowCheck {
 public:
  RowCheck(const Layout& layout, bool repair, Repairs* repairs)
      : layout_(layout), repair_(repair && layout.probabilities()), repairs_(repairs) {}

  // Returns what is wrong and cannot be mended, or "".
  std::string run(const CropArrays& crop) {
    wrong_.clear();
    std::string fault = check_ids(crop);
    for (uint32_t k : wrong_) blank(crop, k);  // they take no part in the sum
    if (fault.empty() && layout_.value_count()) fault = check_values(crop);
    if (!fault.empty()) return fault;
    if (layout_.id_count()) sort_row(crop);
    return "";
  }

 private:
  std::string check_ids(const CropArrays& crop) {
    bool out_of_range = false;
    bool twice = false;
    if (layout_.id_count() > kFew) seen_.assign(layout_.classes, false);
    for (uint32_t k = 0; k < layout_.id_count(); ++k) {
      const int32_t id = crop.ids[k];
      if (id < 0 || static_cast<uint32_t>(id) >= layout_.classes) {
        if (!repair_) return id_fault(layout_, id);
        out_of_range = true;
        wrong_.push_back(k);
      } else if (seen_before(crop.ids, k)) {
        if (!repair_) return message("class id, got ", id, " twice in a row, expected distinct ids");
        twice = true;
        wrong_.push_back(k);
      }
    }
    repairs_->ids += out_of_range;
    repairs_->duplicates += twice;
    return "";
  }

  bool seen_before(const int32_t* ids, uint32_t k) {
    if (layout_.kept <= kFew) return std::find(ids, ids + k, ids[k]) != ids + k;
    const bool before = seen_[static_cast<size_t>(ids[k])];
    seen_[static_cast<size_t>(ids[k])] = true;
    return before;
  }

  std::string check_values(const CropArrays& crop) {
    double sum = 0;
    bool wrong = false;
    for (uint32_t k = 0; k < layout_.kept; ++k) {
      if (!value_ok(layout_.probabilities(), crop.values[k])) {
        if (!repair_) return value_fault(layout_, crop.values[k]);
        crop.values[k] = 0;
        wrong = true;
      }
      if (layout_.value_type == ValueType::kFloat16 && std::fabs(crop.values[k]) > kLargestHalf) {
        return message("value, got ", crop.values[k], ", which float16 cannot hold; write float32 values");
      }
      sum += crop.values[k];
    }
    repairs_->values += wrong;
    if (layout_.probabilities() && sum > kMaxSum && !rounded_to(crop.values, sum)) {
      if (!repair_) return message("sum of the probabilities, got ", sum, ", expected at most ", kMaxSum);
      for (uint32_t k = 0; k < layout_.kept; ++k) crop.values[k] = static_cast<float>(crop.values[k] / sum);
      ++repairs_->sums;
    }
    return "";
  }

  // Whether a sum above 1 comes from log8: these labels were read from a compact file.
  bool rounded_to(const float* values, double sum) const {
    return sum <= kMaxLog8Sum && std::all_of(values, values + layout_.kept, is_log8_level);
  }

  // Entry k becomes probability 0 of the smallest class that the row does not name.
  void blank(const CropArrays& crop, uint32_t k) {
    const int32_t* end = crop.ids + layout_.kept;
    int32_t unused = 0;
    while (std::find<const int32_t*>(crop.ids, end, unused) != end) ++unused;
    crop.ids[k] = unused;
    if (layout_.value_count()) crop.values[k] = 0;
  }

  void sort_row(const CropArrays& crop) {
    if (!layout_.value_count()) return;
    const auto descending = [](const Entry& a, const Entry& b) { return a.value > b.value; };
    if (std::is_sorted(crop.values, crop.values + layout_.kept, std::greater<float>())) return;
    row_.resize(layout_.kept);
    for (uint32_t k = 0; k < layout_.kept; ++k) row_[k] = {crop.values[k], crop.ids[k]};
    std::stable_sort(row_.begin(), row_.end(), descending);
    for (uint32_t k = 0; k < layout_.kept; ++k) {
      crop.values[k] = row_[k].value;
      crop.ids[k] = row_[k].id;
    }
  }

  static constexpr uint32_t kFew = 32;  // up to here comparing all pairs is faster than a set
  struct Entry {
    float value;
    int32_t id;
  };
  const Layout& layout_;
  bool repair_;
  Repairs* repairs_;
  std::vector<uint32_t> wrong_;
  std::vector<bool> seen_;
  std::vector<Entry> row_;
};

}  // namespace

bool in_range(const Layout& layout, const CropBounds& bounds, const CropArrays& crop) {
  if (crop.boxes && !inside(crop.boxes, bounds.height, bounds.width)) return false;
  if (crop.ratios && !inside(crop.ratios)) return false;
  bool right = true;
  for (uint32_t k = 0; crop.ids && k < layout.id_count(); ++k) {
    right &= static_cast<uint32_t>(crop.ids[k]) < layout.classes;
  }
  if (crop.values) right &= values_ok(layout, crop.values);
  if (crop.tails) right &= tail_ok(layout, *crop.tails);
  return right && (!crop.partners || mix_fault(layout, bounds, crop).empty());
}

std::string range_fault(const Layout& layout, const CropBounds& bounds, const CropArrays& crop) {
  if (in_range(layout, bounds, crop)) return "";
  if (crop.boxes && !inside(crop.boxes, bounds.height, bounds.width)) {
    return message("box (top, left, height, width), got ", box_text(crop.boxes),
                   ", expected inside an image of ", bounds.height, " x ", bounds.width);
  }
  if (crop.ratios && !inside(crop.ratios)) {
    return message("box ratios, got ", box_text(crop.ratios), ", expected parts of the image in 0 to 1");
  }
  for (uint32_t k = 0; crop.ids && k < layout.id_count(); ++k) {
    if (static_cast<uint32_t>(crop.ids[k]) >= layout.classes) return id_fault(layout, crop.ids[k]);
  }
  for (uint32_t k = 0; crop.values && k < layout.value_count(); ++k) {
    if (!value_ok(layout.probabilities(), crop.values[k])) return value_fault(layout, crop.values[k]);
  }
  if (crop.tails && !tail_ok(layout, *crop.tails)) return tail_fault(layout, *crop.tails);
  return mix_fault(layout, bounds, crop);
}

Repairs check_crops(const Layout& layout, const CropBounds& bounds, const CropArrays& crops, uint32_t count,
                    bool repair) {
  Repairs repairs;
  RowCheck row(layout, repair, &repairs);
  for (uint32_t i = 0; i < count; ++i) {
    const CropArrays crop = crops.from(i, layout);
    const bool fits = layout.ratios() ? inside(crop.ratios) : inside(crop.boxes, bounds.height, bounds.width);
    if (repair && !fits) {
      layout.ratios() ? clamp_ratios(crop.ratios) : clamp_box(bounds, crop.boxes);
      ++repairs.boxes;
    }
    std::string fault = row.run(crop);
    if (fault.empty()) fault = range_fault(layout, bounds, crop);
    check<std::invalid_argument>(fault.empty(), "crop ", i, ": ", fault);
  }
  return repairs;
}

}  // namespace fkdx
