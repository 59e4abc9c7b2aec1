// SPDX-License-Identifier: Apache-2.0
// Keys of images in byte order, as label files and data indexes keep them: where each starts, and their text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace fkdx {

// A view: the memory is somebody else's. starts[size + 1] are ascending offsets into text.
struct KeyTable {
  const uint32_t* starts = nullptr;
  const char* text = nullptr;
  int64_t size = 0;

  std::string_view key(int64_t i) const {
    const uint32_t begin = starts[i];
    return {text + begin, starts[i + 1] - begin};
  }
};

// The same with memory of its own.
struct KeyList {
  std::vector<uint32_t> starts{0};
  std::vector<char> text;

  void add(std::string_view key);
  KeyTable view() const { return {starts.data(), text.data(), static_cast<int64_t>(starts.size()) - 1}; }
};

// Throws std::invalid_argument where a label file cannot hold one of the keys, or they do not ascend strictly
// as bytes; `where` is the path of the store.
void check_keys(const KeyTable& keys, const std::string& where);

// The key's number, or -1.
int64_t find_key(const KeyTable& keys, std::string_view key);

// found[i] = the number in `there` of wanted key i, or -1.
void join_keys(const KeyTable& wanted, const KeyTable& there, int32_t* found);

// Every distinct first folder in order; keys without a folder have none.
std::vector<std::string> first_folders(const KeyTable& keys);

// numbers[i] = which of `names` the first folder of key i is, or -1.
void classes_of(const KeyTable& keys, const std::vector<std::string>& names, int32_t* numbers);

// ---- blocks of 64 keys in which each is kept as what differs from the one before --------------------------

constexpr int64_t kKeysABlock = 64;

// Appends the coded keys to `coded`; `blocks` gets where each block starts, and the end.
void code_keys(const KeyTable& keys, std::vector<uint8_t>* coded, std::vector<uint64_t>* blocks);

// Throws FormatError where the bytes are no coded keys; `path` is the file they are in.
KeyList decode_keys(const uint8_t* coded, uint64_t bytes, int64_t size, const std::string& path);

}  // namespace fkdx
