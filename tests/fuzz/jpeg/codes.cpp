// SPDX-License-Identifier: Apache-2.0
#include "codes.h"

#include <algorithm>
#include <cstdio>

#include <jpeglib.h>

namespace {

// How many of n codes have each length: the leaves of a complete tree but for the last, for no code may be
// all ones.
std::array<uint8_t, 17> random_counts(Random& random, int n) {
  const int depth = random.below(3);  // 0: split any leaf, 1: mostly the deepest, 2: always the deepest
  std::array<int, 17> leaves{1};
  const auto deepest = [&](int most) {
    while (leaves[most] == 0) --most;
    return most;
  };
  for (int total = 1; total <= n;) {
    int length = 0;
    if (depth == 2 || (depth == 1 && random.chance(70))) {
      length = deepest(15);
    } else {
      for (int leaf = random.below(total); leaf >= leaves[length]; ++length) leaf -= leaves[length];
    }
    if (length == 16) continue;
    --leaves[length];
    leaves[length + 1] += 2;
    ++total;
  }
  --leaves[deepest(16)];
  std::array<uint8_t, 17> counts{};
  for (int length = 1; length <= 16; ++length) counts[length] = static_cast<uint8_t>(leaves[length]);
  return counts;
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
  const int shape = random.below(400);
  if (shape < 4) return codes;  // sixteen zero counts
  if (shape >= 320) return standard_codes(ac, random.chance(50));
  Bytes symbols = alphabet(ac, /*odd=*/random.chance(4));
  for (size_t i = symbols.size(); i > 1; --i) {
    std::swap(symbols[i - 1], symbols[random.below(static_cast<int>(i))]);
  }
  const int most = static_cast<int>(symbols.size());
  const int n = shape < 12 ? 1 : random.chance(30) ? most : random.between(1, most);
  symbols.resize(n);
  if (ac && random.chance(95)) {  // a block has to end
    std::replace(symbols.begin(), symbols.end(), uint8_t{0}, symbols[0]);
    symbols[random.chance(50) ? 0 : random.below(n)] = 0;
  }
  codes.counts = random_counts(random, n);
  codes.values = symbols;
  if (shape == 12) ++codes.counts[random.between(1, 16)];              // more codes than values, or than fit
  if (shape == 13) codes.values[random.below(n)] = random.below(256);  // twice, or of no meaning
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
