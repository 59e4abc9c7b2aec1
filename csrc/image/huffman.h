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
  // Units of a row, both ends included.
  struct Columns {
    unsigned first;
    unsigned last;
  };

  // Prepares for the entropy-coded data that `jpeg`, started and with all of it in memory, is about to read.
  // False: this kind of scan (progressive, arithmetic, several scans) is libjpeg-turbo's.
  bool start(const jpeg_decompress_struct& jpeg, Columns wanted);

  // Decodes the next unit into zeroed blocks, or skips it where blocks is null or its column is not wanted.
  // False: give up.
  bool decode_unit(JBLOCKROW* blocks);

  // Decodes what is left of the scan. False: give up, or something else than the end of the image follows.
  bool finish();

 private:
  static constexpr int kIndexBits = 10;

  // A code of `length` bits; 0: unknown, or too long for the table.
  struct Code {
    uint8_t length;
    uint8_t value;  // run and size of AC, size of DC
  };

  // A code and the number behind it: `total` bits that lead `step` coefficients further; 0: none.
  struct Symbol {
    uint8_t total;
    uint8_t step;
    int16_t value;
  };
  static constexpr Symbol kBroken = {1, 255, 0};  // leads out of the block, and is no end of it

  // A symbol and, where the bits hold that too, the one behind it. Otherwise the second is the first again,
  // no step further on: to store both is right in any case.
  struct Pair {
    uint8_t total;  // bits of both
    uint8_t first_total;
    uint8_t first_step;
    uint8_t second_step;
    int16_t first_value;
    int16_t second_value;

    static Pair of(Symbol one) { return {one.total, one.total, one.step, 0, one.value, one.value}; }
  };

  struct Table {
    Pair pairs[1 << kIndexBits];      // of AC, by the next bits
    Symbol symbols[1 << kIndexBits];  // by the next bits, where code and number fit
    Code codes[1 << kIndexBits];      // by the next bits, where the code fits
    uint32_t ends[18];                // of the codes of each length, as 16 bits
    int32_t offsets[17];              // from a code to its value's place
    uint8_t values[256];
    JHUFF_TBL source;
    bool filled;  // from source; zeroed memory equals a table without any code
    bool ac;

    void fill(const JHUFF_TBL& huffman, bool is_ac);
    void fill_pairs();
    Symbol symbol_of(Code code, uint64_t window) const;
    Symbol long_symbol(uint64_t window) const;
  };

  struct Block {
    const Table* dc;
    const Table* ac;
    int component;
  };

  // The bits to come, from the highest one down. The lower bits of `window`, behind `count`, may hold the
  // first ones of `next` already.
  struct Bits {
    uint64_t window;
    int count;
    const uint8_t* next;  // in clean_
  };

  static void refill(Bits* bits);
  static Symbol next_symbol(const Table& table, Bits* bits);
  static Pair pair_at(const Table& table, uint64_t window);
  template <bool kStore>
  bool decode_blocks(JBLOCKROW* blocks);
  template <bool kStore>
  static bool decode_block(Bits* bits, const Block& block, int* dc, JCOEF* out);
  void begin_interval();
  bool supply(Bits* bits);
  ptrdiff_t unread(const Bits& bits) const { return 8 * (clean_end_ - bits.next) + bits.count; }
  // Whether a marker follows the bits that fill up the last byte. Before a block there were bytes for the
  // longest one, or all up to the marker: if it is not in sight behind the block, whole bytes are left over.
  bool used_up() const { return at_marker_ && unread(bits_) < 8; }
  bool restart();

  // The longest block takes 16 + 11 bits of DC and 63 times 16 + 10 bits of AC: 209 bytes, and 8 are read
  // ahead.
  static constexpr int kBlockBytes = 224;
  static constexpr int kChunk = 4096;

  // Entropy-coded bytes without the zeros that escape 0xFF, a chunk at a time, up to the next marker; zeros
  // behind it.
  uint8_t clean_[kBlockBytes + kChunk + 2 * kBlockBytes];
  const uint8_t* clean_end_;
  bool at_marker_;  // clean_ ends where a marker stands
  const uint8_t* next_;
  const uint8_t* end_;

  Bits bits_;
  int dc_[MAX_COMPS_IN_SCAN];
  Block blocks_[D_MAX_BLOCKS_IN_MCU];
  int blocks_in_unit_;
  Columns wanted_;
  unsigned columns_;
  unsigned column_;
  unsigned rows_left_;
  unsigned restart_interval_;
  unsigned units_to_restart_;
  int next_restart_;
  Table dc_tables_[NUM_HUFF_TBLS]{};
  Table ac_tables_[NUM_HUFF_TBLS]{};
};

}  // namespace fkdx
