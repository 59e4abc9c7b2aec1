// SPDX-License-Identifier: Apache-2.0
#include "stores/canonical.h"

#include <algorithm>
#include <array>

namespace fkdx {
namespace {

constexpr size_t kSynset = 9;  // n and eight digits

bool is_synset(std::string_view text) {
  return text.size() == kSynset && text[0] == 'n' &&
         std::all_of(text.begin() + 1, text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

size_t suffix_of(std::string_view name) {
  const size_t dot = name.rfind('.');
  return dot == std::string_view::npos || dot == 0 ? name.size() : dot;
}

struct Named {
  std::string canonical;
  int64_t image;
  bool operator<(const Named& other) const {
    return canonical != other.canonical ? canonical < other.canonical : image < other.image;
  }
};

// The end of the run of equal canonical keys that begins at `begin`.
size_t run_end(const std::vector<Named>& sorted, size_t begin) {
  size_t end = begin + 1;
  while (end < sorted.size() && sorted[end].canonical == sorted[begin].canonical) ++end;
  return end;
}

}  // namespace

bool is_image_name(std::string_view name) {
  static constexpr std::array<std::string_view, 10> kSuffixes{".jpg", ".jpeg", ".png", ".webp", ".bmp",
                                                              ".gif", ".ppm",  ".pgm", ".tif",  ".tiff"};
  const size_t slash = name.rfind('/');
  if (slash != std::string_view::npos) name.remove_prefix(slash + 1);
  std::string suffix(name.substr(suffix_of(name)));
  for (char& c : suffix) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  return std::find(kSuffixes.begin(), kSuffixes.end(), suffix) != kSuffixes.end();
}

std::string canonical_key(std::string_view key, std::string_view class_name) {
  const size_t slash = key.rfind('/');
  std::string_view folder, stem = key;
  if (slash != std::string_view::npos) {
    folder = key.substr(0, slash);
    folder = folder.substr(folder.rfind('/') + 1);  // npos + 1 is 0
    stem = key.substr(slash + 1);
  }
  if (is_image_name(stem)) stem = stem.substr(0, suffix_of(stem));
  if (folder.empty()) {
    const size_t bar = stem.size() > kSynset ? stem.size() - kSynset - 1 : 0;
    if (bar > 0 && stem[bar] == '_' && is_synset(stem.substr(bar + 1))) {
      folder = stem.substr(bar + 1);
      stem = stem.substr(0, bar);
    } else if (stem.size() > kSynset && stem[kSynset] == '_' && is_synset(stem.substr(0, kSynset))) {
      folder = stem.substr(0, kSynset);
    } else {
      folder = class_name;
    }
  }
  std::string canonical(folder);
  if (!canonical.empty()) canonical += '/';
  return canonical.append(stem);
}

std::vector<Clash> join_canonical(const KeyTable& wanted, const KeyTable& there, const ClassNames& classes,
                                  int32_t* found) {
  std::vector<bool> taken(static_cast<size_t>(there.size));
  std::vector<Named> left, right;
  for (int64_t i = 0; i < wanted.size; ++i) {
    if (found[i] >= 0) {
      taken[static_cast<size_t>(found[i])] = true;
    } else {
      left.push_back({canonical_key(wanted.key(i), {}), i});
    }
  }
  for (int64_t i = 0; i < there.size; ++i) {
    if (!taken[static_cast<size_t>(i)]) right.push_back({canonical_key(there.key(i), classes.of(i)), i});
  }
  std::sort(left.begin(), left.end());
  std::sort(right.begin(), right.end());
  std::vector<Clash> clashes;
  for (size_t l = 0, r = 0; l < left.size() && r < right.size();) {
    const int order = left[l].canonical.compare(right[r].canonical);
    const size_t left_end = run_end(left, l), right_end = run_end(right, r);
    if (order == 0 && left_end - l == 1 && right_end - r == 1) {
      found[left[l].image] = static_cast<int32_t>(right[r].image);
    } else if (order == 0) {
      clashes.push_back(
          {left[l].image, left[left_end - 1].image, right[r].image, right[right_end - 1].image});
    }
    if (order <= 0) l = left_end;
    if (order >= 0) r = right_end;
  }
  return clashes;
}

}  // namespace fkdx
