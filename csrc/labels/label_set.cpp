// SPDX-License-Identifier: Apache-2.0
#include "labels/label_set.h"

#include <algorithm>

#include "base/check.h"

namespace fkdx {
namespace {

bool same_labels(const Preamble& a, const Preamble& b) {
  return a.required == b.required && a.kind == b.kind && a.encoding == b.encoding &&
         a.value_type == b.value_type && a.classes == b.classes && a.kept == b.kept && a.crops == b.crops &&
         a.mix_size == b.mix_size;
}

}  // namespace

LabelSet::LabelSet(const std::vector<std::string>& paths, Io io) : starts_{0} {
  check<std::invalid_argument>(!paths.empty(), "LabelSet: paths, got none");
  for (const std::string& path : paths) {
    files_.push_back(std::make_unique<LabelFile>(path, io));
    const LabelFile& file = *files_.back();
    check<FormatError>(same_labels(file.preamble(), first().preamble()),
                       "LabelSet: shard, got labels of another kind or size than ", first().path(),
                       ", expected the same, ", path);
    check<FormatError>(files_.size() == 1 || !file.layout().two_views(),
                       "LabelSet: shards with two views, expected a single file, ", path);
    starts_.push_back(starts_.back() + file.images());
  }
}

LabelSet::Place LabelSet::place(int64_t image) const {
  check<std::out_of_range>(image >= 0 && static_cast<uint64_t>(image) < images(), "LabelSet: image, got ",
                           image, ", expected 0 to ", static_cast<int64_t>(images()) - 1, ", ",
                           first().path());
  const uint64_t number = static_cast<uint64_t>(image);
  const size_t file =
      static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), number) - starts_.begin()) - 1;
  return {files_[file].get(), number - starts_[file]};
}

int64_t LabelSet::find(std::string_view key) const {
  for (size_t i = 0; i < files_.size(); ++i) {
    const LabelFile& file = *files_[i];
    file.check_keys();
    // Shards usually hold ranges of keys, so that one comparison rules most of them out.
    if (file.images() == 0 || key < file.key(0) || file.key(file.images() - 1) < key) continue;
    const int64_t image = file.find(key);
    if (image >= 0) return static_cast<int64_t>(starts_[i]) + image;
  }
  return -1;
}

void LabelSet::gather(const int64_t* images, size_t count, const int64_t* crops, size_t each,
                      const CropArrays& out) const {
  const Layout& layout = first().layout();
  for (size_t i = 0; i < count; ++i) {
    const Place at = place(images[i]);
    at.file->read_crops(at.image, crops + i * each, each, out.from(i * each, layout));
  }
}

}  // namespace fkdx
