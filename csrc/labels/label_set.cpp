// SPDX-License-Identifier: Apache-2.0
#include "labels/label_set.h"

#include <algorithm>
#include <queue>

#include "base/check.h"
#include "labels/key.h"

namespace fkdx {
namespace {

bool same_labels(const Preamble& a, const Preamble& b) {
  return a.required == b.required && a.kind == b.kind && a.encoding == b.encoding &&
         a.value_type == b.value_type && a.classes == b.classes && a.kept == b.kept && a.crops == b.crops &&
         a.mix_size == b.mix_size;
}

constexpr size_t kGroup = 16;  // images that gather reads together

}  // namespace

LabelSet::LabelSet(const std::vector<std::string>& paths, Io io) : starts_{0} {
  check<std::invalid_argument>(!paths.empty(), "LabelSet: paths, got none");
  for (const std::string& path : paths) {
    files_.push_back(std::make_unique<LabelFile>(path, io));
    const LabelFile& file = *files_.back();
    check<FormatError>(same_labels(file.preamble(), first().preamble()),
                       "LabelSet: shard, got labels of another kind or size than ", first().path(),
                       ", expected the same, ", path);
    starts_.push_back(starts_.back() + file.images());
  }
  if (files_.size() > 1 && first().layout().two_views()) number_images();
}

template <typename Visit>
void LabelSet::each_image(Visit visit) const {
  const auto key = [this](Entry entry) { return files_[entry.file]->key(entry.image); };
  const auto later = [&key](Entry a, Entry b) {
    const int order = key(a).compare(key(b));
    return order != 0 ? order > 0 : a.file > b.file;
  };
  std::priority_queue<Entry, std::vector<Entry>, decltype(later)> next(later);
  for (uint32_t file = 0; file < files_.size(); ++file) {
    files_[file]->check_keys();
    if (files_[file]->images() > 0) next.push({file, 0});
  }
  std::vector<Entry> same;
  while (!next.empty()) {
    const Entry entry = next.top();
    next.pop();
    same.push_back(entry);
    if (entry.image + 1 < files_[entry.file]->images()) next.push({entry.file, entry.image + 1});
    if (!next.empty() && key(next.top()) == key(entry)) continue;
    visit(same);
    same.clear();
  }
}

// For every image of every file, where the set counts it.
std::vector<std::vector<LabelSet::Entry>> LabelSet::owners() const {
  std::vector<std::vector<Entry>> owners(files_.size());
  each_image([&](const std::vector<Entry>& same) {
    const Entry owner = this->owner(same);
    for (const Entry& one : same) owners[one.file].push_back(owner);
  });
  return owners;
}

void LabelSet::check_images() const {
  if (files_.size() > 1 && shares_.empty()) {
    each_image([this](const std::vector<Entry>& same) { owner(same); });
  }
}

// Of the entries of one image, the one with crops, or else the first.
const LabelSet::Entry& LabelSet::owner(const std::vector<Entry>& same) const {
  const Entry* found = nullptr;
  for (const Entry& entry : same) {
    const LabelFile& file = *files_[entry.file];
    if (file.checked_index()[entry.image].crops == 0) continue;
    check<FormatError>(!found, "LabelSet: image '", printable_key(file.key(entry.image)),
                       "', got crops of it in two shards, expected one, ", file.path());
    found = &entry;
  }
  return found ? *found : same.front();
}

void LabelSet::number_images() {
  const std::vector<std::vector<Entry>> owners = this->owners();
  shares_.resize(files_.size());
  uint32_t count = 0;
  for (uint32_t file = 0; file < files_.size(); ++file) {
    Share& share = shares_[file];
    share.numbers.resize(owners[file].size());
    for (uint32_t image = 0; image < owners[file].size(); ++image) {
      if (owners[file][image].file != file) continue;
      share.counted.push_back(image);
      share.numbers[image] = count++;
    }
    starts_[file + 1] = count;
  }
  for (uint32_t file = 0; file < files_.size(); ++file) {
    for (uint32_t image = 0; image < owners[file].size(); ++image) {
      const Entry owner = owners[file][image];
      shares_[file].numbers[image] = shares_[owner.file].numbers[owner.image];
    }
    files_[file]->forget();
  }
}

LabelSet::Place LabelSet::place(int64_t image) const {
  check<std::out_of_range>(image >= 0 && static_cast<uint64_t>(image) < images(), "LabelSet: image, got ",
                           image, ", expected 0 to ", static_cast<int64_t>(images()) - 1, ", ",
                           first().path());
  const uint64_t number = static_cast<uint64_t>(image);
  const size_t file =
      static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), number) - starts_.begin()) - 1;
  const uint64_t image_there = number - starts_[file];
  return {files_[file].get(), shares_.empty() ? image_there : shares_[file].counted[image_there], file};
}

int64_t LabelSet::find(std::string_view key) const {
  for (size_t i = 0; i < files_.size(); ++i) {
    const LabelFile& file = *files_[i];
    file.check_keys();
    // Shards usually hold ranges of keys, so that one comparison rules most of them out.
    if (file.images() == 0 || key < file.key(0) || file.key(file.images() - 1) < key) continue;
    const int64_t image = file.find(key);
    if (image < 0) continue;
    return shares_.empty() ? static_cast<int64_t>(starts_[i]) + image
                           : int64_t{shares_[i].numbers[static_cast<size_t>(image)]};
  }
  return -1;
}

void LabelSet::gather(const int64_t* images, size_t count, const int64_t* crops, size_t each,
                      const CropArrays& out) const {
  const size_t together = first().mapped() ? kGroup : 1;  // without a map there is memory for one block
  for (size_t i = 0; i < count; i += together) {
    gather_group(images + i, std::min(together, count - i), crops + i * each, each,
                 out.from(i * each, first().layout()));
  }
}

// Of a large file hardly anything is in the cache. What all images of a group wait for is fetched at once:
// their index entries, then their records.
void LabelSet::gather_group(const int64_t* images, size_t count, const int64_t* crops, size_t each,
                            const CropArrays& out) const {
  thread_local std::vector<uint8_t> scratch;
  Place places[kGroup];
  Block blocks[kGroup];
  for (size_t i = 0; i < count; ++i) {
    places[i] = place(images[i]);
    if (first().mapped()) places[i].file->expect_image(places[i].image);
  }
  for (size_t i = 0; i < count; ++i) {
    blocks[i] = places[i].file->find_crops(places[i].image, crops + i * each, each, &scratch);
  }
  for (size_t i = 0; i < count; ++i) {
    const CropArrays rows = out.from(i * each, first().layout());
    places[i].file->read_crops(places[i].image, blocks[i], crops + i * each, each, rows);
    if (rows.partners && !shares_.empty()) renumber_partners(places[i].number, each, rows);
  }
}

void LabelSet::renumber_partners(size_t file, size_t count, const CropArrays& crops) const {
  for (size_t i = 0; i < count; ++i) {
    if (!(crops.operations[i] & (kMixup | kCutmix))) continue;
    crops.partners[i] = shares_[file].numbers[crops.partners[i]];
  }
}

}  // namespace fkdx
