// SPDX-License-Identifier: Apache-2.0
#include "labels/key.h"

#include <cstdint>

#include "labels/layout.h"

namespace fkdx {
namespace {

// Bytes of the UTF-8 character at the start of `text`, or 0 where it is none (RFC 3629).
size_t character_size(std::string_view text) {
  const auto byte = [&text](size_t i) { return static_cast<uint8_t>(text[i]); };
  if (byte(0) < 0x80) return 1;
  const size_t size = byte(0) >> 5 == 6 ? 2 : byte(0) >> 4 == 14 ? 3 : byte(0) >> 3 == 30 ? 4 : 0;
  if (size == 0 || text.size() < size) return 0;
  uint32_t point = byte(0) & (0xFFu >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if (byte(i) >> 6 != 2) return 0;
    point = point << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = point >= 0xD800 && point < 0xE000;
  return point >= kSmallest[size] && point <= 0x10FFFF && !surrogate ? size : 0;
}

bool valid_part(std::string_view part) { return !part.empty() && part != "." && part != ".."; }

}  // namespace

bool valid_key(std::string_view key) {
  if (key.size() > kMaxKey || (key.size() > 1 && key[1] == ':')) return false;
  size_t part = 0;  // where the current part of the path begins
  for (size_t at = 0; at < key.size();) {
    const size_t size = character_size(key.substr(at));
    if (size == 0 || static_cast<uint8_t>(key[at]) < 32 || key[at] == '\\') return false;
    if (key[at] == '/') {
      if (!valid_part(key.substr(part, at - part))) return false;
      part = at + 1;
    }
    at += size;
  }
  return valid_part(key.substr(part));
}

std::string printable_key(std::string_view key) {
  if (valid_key(key)) return std::string(key);
  std::string text;
  for (char c : key.substr(0, 200)) text += c >= 32 && c < 127 ? c : '?';
  return text;
}

}  // namespace fkdx
