// SPDX-License-Identifier: Apache-2.0
#include "codes.h"

#include <algorithm>
#include <cstdio>

#include <jpeglib.h>

namespace {

// Lengths of n codes of a complete tree but for its last leaf: no code may be all ones.
std::vector<int> random_lengths(Random& random, int n) {
  const int depth = random.below(3);  // 0: split any leaf, 1: mostly the deepest, 2: always the deepest
  std::vector<int> leaves{0};
  while (static_cast<int>(leaves.size()) < n + 1) {
    const bool deepest = depth == 2 || (depth == 1 && random.chance(70));
    int leaf = static_cast<int>(leaves.size()) - 1;
    if (!deepest || leaves[leaf] >= 16) leaf = random.below(static_cast<int>(leaves.size()));
    if (leaves[leaf] >= 16) continue;
    const int length = leaves[leaf] + 1;
    leaves.erase(leaves.begin() + leaf);
    leaves.insert(leaves.end(), 2, length);
    std::sort(leaves.begin(), leaves.end());
  }
  leaves.pop_back();
  return leaves;
}

// The symbols that a decoder of 8-bit samples has to know; a few beyond where `odd`.
Bytes alphabet(bool ac, bool odd) {
  Bytes symbols;
  if (!ac) {
    for (int size = 0; size <= (odd ? 15 : 11); ++size) symbols.push_back(static_cast<uint8_t>(size));
    return symbols;
  }
  for (int symbol = 0; symbol < 256; ++symbol) {
    const int run = symbol >> 4, size = symbol & 15;
    const bool sound = size == 0 ? run == 0 || run == 15 : size <= 10;
    if (sound || odd) symbols.push_back(static_cast<uint8_t>(symbol));
  }
  return symbols;
}

}  // namespace

void Codes::assign() {
  lengths.fill(0);
  uint32_t code = 0;
  size_t place = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    for (int i = 0; i < counts[length] && place < values.size(); ++i, ++place, ++code) {
      lengths[values[place]] = static_cast<uint8_t>(length);
      bits[values[place]] = code & ((1u << length) - 1);
    }
  }
}

Codes random_codes(Random& random, bool ac) {
  Codes codes;
  const int shape = random.below(40);
  if (shape == 0) return codes;  // sixteen zero counts
  if (shape <= 8) return standard_codes(ac, random.chance(50));
  Bytes symbols = alphabet(ac, /*odd=*/random.chance(10));
  for (size_t i = symbols.size(); i > 1; --i) {
    std::swap(symbols[i - 1], symbols[random.below(static_cast<int>(i))]);
  }
  const int most = static_cast<int>(symbols.size());
  const int n = shape == 9 ? 1 : random.chance(30) ? most : random.between(1, most);
  symbols.resize(n);
  if (ac && random.chance(95)) {  // a block has to end
    std::replace(symbols.begin(), symbols.end(), uint8_t{0}, symbols[0]);
    symbols[random.chance(50) ? 0 : random.below(n)] = 0;
  }
  for (const int length : random_lengths(random, n)) ++codes.counts[length];
  codes.values = symbols;
  if (shape == 10) ++codes.counts[random.between(1, 16)];              // more codes than values, or than fit
  if (shape == 11) codes.values[random.below(n)] = random.below(256);  // twice, or of no meaning
  codes.assign();
  return codes;
}

Codes standard_codes(bool ac, bool chroma) {
  static const auto tables = [] {
    std::array<Codes, 4> found;
    jpeg_compress_struct jpeg;
    jpeg_error_mgr errors;
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    for (int i = 0; i < 4; ++i) {
      const JHUFF_TBL& table = i < 2 ? *jpeg.dc_huff_tbl_ptrs[i] : *jpeg.ac_huff_tbl_ptrs[i - 2];
      int total = 0;
      for (int length = 1; length <= 16; ++length) total += found[i].counts[length] = table.bits[length];
      found[i].values.assign(table.huffval, table.huffval + total);
      found[i].assign();
    }
    jpeg_destroy_compress(&jpeg);
    return found;
  }();
  return tables[2 * ac + chroma];
}

void BitWriter::put(uint32_t bits, int count) {
  for (int i = count - 1; i >= 0; --i) {
    held_ = held_ << 1 | (bits >> i & 1);
    if (++count_ < 8) continue;
    bytes.push_back(static_cast<uint8_t>(held_));
    if (bytes.back() == 0xFF) bytes.push_back(0);
    held_ = 0;
    count_ = 0;
  }
}

void BitWriter::align() {
  while (count_ > 0) put(1, 1);
}

void BitWriter::marker(uint8_t code) {
  align();
  bytes.insert(bytes.end(), {0xFF, code});
}
