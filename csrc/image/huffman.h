// SPDX-License-Identifier: Apache-2.0
// Baseline Huffman decoding, faster than libjpeg-turbo's: the larger part of the time of a decode goes there.
//
// It stands in for libjpeg-turbo on sound data alone: whatever is odd (a bad code, a missing restart marker,
// data that ends early) makes it give up, and libjpeg-turbo decodes the image again and says what is wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>

namespace fkdx {

class HuffmanDecoder {
 public:
  // Prepares for the entropy-coded data that `jpeg`, started and with all of it in memory, is about to read.
  // False: this kind of scan (progressive, arithmetic, several scans) is libjpeg-turbo's.
  bool start(const jpeg_decompress_struct& jpeg);

  // Decodes the next unit into zeroed blocks, or skips it where blocks is null. False: give up.
  bool decode_unit(JBLOCKROW* blocks);

 private:
  static constexpr int kIndexBits = 10;

  // What a code starts: `total` bits of code and value, of which `size` are value, `step` coefficients
  // further.
  struct Symbol {
    uint8_t total;
    uint8_t code;
    uint8_t size;
    uint8_t step;
  };

  struct Table {
    Symbol symbols[1 << kIndexBits];  // by the next bits; total 0: a longer code
    uint32_t ends[18];                // of the codes of each length, as 16 bits
    int32_t offsets[17];              // from a code to its value's place
    uint8_t values[256];
    JHUFF_TBL source;

    void fill(const JHUFF_TBL& huffman, bool ac);
    Symbol long_code(uint32_t bits, bool ac) const;
  };

  struct Block {
    const Table* dc;
    const Table* ac;
    int component;
  };

  // The bits to come, from the highest one down; `padding` of them lie behind the end of the data.
  struct Bits {
    uint64_t window;
    int count;
    int padding;
    const uint8_t* next;
    const uint8_t* end;
  };

  static Symbol symbol_of(int code, int value, bool ac);
  static void refill(Bits* bits);
  static void refill_with_escapes(Bits* bits);
  static Symbol next_symbol(Bits* bits, const Table& table, bool ac);
  static int value_of(uint64_t window, Symbol symbol);
  static bool decode_block(Bits* bits, const Block& block, int* dc, JCOEF* out);
  bool restart();

  Bits bits_;
  int dc_[MAX_COMPS_IN_SCAN];
  Block blocks_[D_MAX_BLOCKS_IN_MCU];
  int blocks_in_unit_;
  unsigned restart_interval_;
  unsigned units_to_restart_;
  int next_restart_;
  Table dc_tables_[NUM_HUFF_TBLS]{};
  Table ac_tables_[NUM_HUFF_TBLS]{};
};

}  // namespace fkdx
