// SPDX-License-Identifier: Apache-2.0
// One name for one image, whatever store it comes from: its class folder and its stem.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "stores/key_table.h"

namespace fkdx {

// Whether a file of this name is an image, by its suffix.
bool is_image_name(std::string_view name);

// See docs/format.md, "Canonical keys". `class_name` is what the store says of an image whose key has no
// folder, empty where it says nothing.
std::string canonical_key(std::string_view key, std::string_view class_name);

// Names of the classes of keys; numbers may be null: nobody knows.
struct ClassNames {
  const std::vector<std::string>* names = nullptr;
  const int32_t* numbers = nullptr;

  std::string_view of(int64_t image) const {
    return numbers && numbers[image] >= 0 ? std::string_view((*names)[static_cast<size_t>(numbers[image])])
                                          : std::string_view();
  }
};

struct Clash {
  int64_t wanted, other_wanted;  // equal where the clash is in the store
  int64_t there, other_there;    // equal where the clash is among the wanted
};

// For every wanted key that has found[i] < 0: the number in `there` of the key with the same canonical key,
// among those that found[] does not name. Returns what is not clear: canonical keys that occur twice on one
// side and at least once on the other; their found[i] stay -1.
std::vector<Clash> join_canonical(const KeyTable& wanted, const KeyTable& there, const ClassNames& classes,
                                  int32_t* found);

}  // namespace fkdx
