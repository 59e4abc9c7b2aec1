// SPDX-License-Identifier: Apache-2.0
// Huffman tables of every shape, and bits written by them.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "random.h"

using Bytes = std::vector<uint8_t>;

struct Codes {
  std::array<uint8_t, 17> counts{};  // of the codes of each length
  Bytes values;

  // Of each symbol; length 0 where it has no code.
  std::array<uint8_t, 256> lengths{};
  std::array<uint32_t, 256> bits{};

  void assign();  // lengths and bits from counts and values
};

// A table for DC (sizes) or AC (runs and sizes): flat, deep, with 16-bit codes, of one code, empty, illegal.
Codes random_codes(Random& random, bool ac);

// Annex K's, which decoders take where a file defines none.
Codes standard_codes(bool ac, bool chroma);

class BitWriter {
 public:
  void put(uint32_t bits, int count);
  void align();  // fills up with ones
  void marker(uint8_t code);
  Bytes bytes;

 private:
  uint32_t held_ = 0;
  int count_ = 0;
};
