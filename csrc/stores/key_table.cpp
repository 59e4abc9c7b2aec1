// SPDX-License-Identifier: Apache-2.0
#include "stores/key_table.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

#include "base/check.h"
#include "labels/key.h"
#include "labels/layout.h"

namespace fkdx {
namespace {

constexpr int64_t kLargestText = int64_t{UINT32_MAX};

std::string_view first_folder(std::string_view key) {
  const size_t slash = key.find('/');
  return slash == std::string_view::npos ? std::string_view() : key.substr(0, slash);
}

// Bytes that are no printable ASCII as \xNN.
std::string escaped(std::string_view key) {
  static const char* const kDigits = "0123456789abcdef";
  std::string text;
  for (const char c : key.substr(0, 200)) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte >= 32 && byte < 127) {
      text += c;
    } else {
      text += {'\\', 'x', kDigits[byte >> 4], kDigits[byte & 15]};
    }
  }
  return text;
}

}  // namespace

void KeyList::add(std::string_view key) {
  const int64_t end = static_cast<int64_t>(text.size() + key.size());
  check<std::invalid_argument>(end <= kLargestText, "keys: text, got more than ", kLargestText, " bytes");
  text.insert(text.end(), key.begin(), key.end());
  starts.push_back(static_cast<uint32_t>(end));
}

void check_keys(const KeyTable& keys, const std::string& where) {
  for (int64_t i = 0; i < keys.size; ++i) {
    const std::string_view key = keys.key(i);
    check<std::invalid_argument>(
        !key.empty() && valid_key(key), "images: file name, got '", escaped(key),
        "', expected what a label file can hold: a relative path in UTF-8 without '..', backslash, control "
        "character or drive letter; rename the file, ",
        where);
    if (i == 0) continue;
    check<std::invalid_argument>(keys.key(i - 1) != key, "images: name, got '", escaped(key),
                                 "' twice, expected each once, ", where);
    check<std::invalid_argument>(keys.key(i - 1) < key, "keys: order, got '", escaped(key), "' after '",
                                 escaped(keys.key(i - 1)), "', ", where);
  }
}

int64_t find_key(const KeyTable& keys, std::string_view key) {
  int64_t low = 0, high = keys.size;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (keys.key(middle) < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < keys.size && keys.key(low) == key ? low : -1;
}

void join_keys(const KeyTable& wanted, const KeyTable& there, int32_t* found) {
  int64_t other = 0;
  for (int64_t i = 0; i < wanted.size; ++i) {
    const std::string_view key = wanted.key(i);
    int order = -1;
    while (other < there.size && (order = there.key(other).compare(key)) < 0) ++other;
    found[i] = other < there.size && order == 0 ? static_cast<int32_t>(other) : -1;
  }
}

std::vector<std::string> first_folders(const KeyTable& keys) {
  std::vector<std::string> folders;
  for (int64_t i = 0; i < keys.size; ++i) {
    const std::string_view folder = first_folder(keys.key(i));
    if (!folder.empty() && (folders.empty() || folders.back() != folder)) folders.emplace_back(folder);
  }
  std::sort(folders.begin(), folders.end());
  folders.erase(std::unique(folders.begin(), folders.end()), folders.end());
  return folders;
}

void classes_of(const KeyTable& keys, const std::vector<std::string>& names, int32_t* numbers) {
  std::unordered_map<std::string_view, int32_t> number_of;
  for (size_t i = 0; i < names.size(); ++i) number_of[names[i]] = static_cast<int32_t>(i);
  std::string_view last;
  int32_t number = -1;
  for (int64_t i = 0; i < keys.size; ++i) {
    const std::string_view folder = first_folder(keys.key(i));
    if (folder != last) {
      const auto known = number_of.find(folder);
      number = known == number_of.end() ? -1 : known->second;
      last = folder;
    }
    numbers[i] = folder.empty() ? -1 : number;
  }
}

void code_keys(const KeyTable& keys, std::vector<uint8_t>* coded, std::vector<uint64_t>* blocks) {
  const auto put = [coded](size_t value) {
    coded->push_back(static_cast<uint8_t>(value & 255));
    coded->push_back(static_cast<uint8_t>(value >> 8));
  };
  std::string_view last;
  for (int64_t i = 0; i < keys.size; ++i) {
    const std::string_view key = keys.key(i);
    size_t shared = 0;
    if (i % kKeysABlock == 0) {
      blocks->push_back(coded->size());
    } else {
      const size_t most = std::min(key.size(), last.size());
      while (shared < most && key[shared] == last[shared]) ++shared;
    }
    put(shared);
    put(key.size() - shared);
    coded->insert(coded->end(), key.begin() + static_cast<int64_t>(shared), key.end());
    last = key;
  }
  blocks->push_back(coded->size());
}

KeyList decode_keys(const uint8_t* coded, uint64_t bytes, int64_t size, const std::string& path) {
  const auto expect = [&path](bool ok, int64_t key) {
    check<FormatError>(ok, "index: key ", key, ", got bytes that are none; the file is damaged, ", path);
  };
  KeyList keys;
  keys.starts.reserve(static_cast<size_t>(size) + 1);
  keys.text.reserve(static_cast<size_t>(size) * 32);
  uint64_t at = 0;
  std::string key;
  for (int64_t i = 0; i < size; ++i) {
    expect(bytes - at >= 4, i);
    const size_t shared = coded[at] | size_t{coded[at + 1]} << 8;
    const size_t more = coded[at + 2] | size_t{coded[at + 3]} << 8;
    at += 4;
    const bool first = i % kKeysABlock == 0;
    expect(shared <= (first ? 0 : key.size()) && more <= bytes - at && shared + more <= kMaxKey, i);
    key.resize(shared);
    key.append(reinterpret_cast<const char*>(coded + at), more);
    at += more;
    keys.add(key);
  }
  expect(at == bytes, size);
  return keys;
}

}  // namespace fkdx
