// SPDX-License-Identifier: Apache-2.0
// Baseline Huffman decoding, faster than libjpeg-turbo's: the larger part of the time of a decode goes there.
//
// It stands in for libjpeg-turbo on sound data alone: whatever is odd (a bad code, a missing restart marker,
// data that ends early) makes it give up, and libjpeg-turbo decodes the image again and says what is wrong.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>  // jpeglib.h needs FILE
#include <cstring>
#include <vector>

#include <jpeglib.h>

#include "image/entry_points.h"

namespace fkdx {

constexpr int kCoefficients = 64;

// Where the coefficients of a block lie, in the order of the scan. The last step may lead past the end
// of the block.
struct NaturalOrder {
  uint8_t at[kCoefficients + 160];

  constexpr NaturalOrder() : at() {
    constexpr uint8_t kOrder[kCoefficients] = {
        0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
        41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
        30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};
    for (int i = 0; i < kCoefficients + 160; ++i) at[i] = i < kCoefficients ? kOrder[i] : kCoefficients - 1;
  }
};
inline constexpr NaturalOrder kNaturalOrder;

class HuffmanDecoder {
 public:
  // Prepares for the entropy-coded data that `jpeg`, started and with all of it in memory, is about to read.
  // False: this kind of scan (progressive, arithmetic, several scans) is libjpeg-turbo's.
  bool start(const jpeg_decompress_struct& jpeg);

  // What the headers of the file, which begins at `file`, say of the scan.
  ScanFacts facts(const uint8_t* file) const;

  // From here on decodes little more than the units that are wanted. The points live as long as the scan is
  // read; they are of the file that begins at `file`. Those behind unit `proved` are compared, but not used.
  void enter_at(const EntryPoints* points, const uint8_t* file, uint32_t proved);

  // The last unit up to which points have been given as proved or were right when they were reached.
  uint32_t proved() const { return proved_; }

  // Marks the units that hold these pixels as wanted; none is after start().
  void want(unsigned top, unsigned left, unsigned bottom, unsigned right);

  // Whether enough units are not wanted, before the last one that is, for entry points to pay.
  bool can_save() const;

  // Called with the number of a block in its unit as soon as the block is whole.
  using OnBlock = void (*)(void* context, int block);

  // Decodes the next unit into zeroed blocks where it is wanted and blocks is not null; otherwise whether it
  // is read at all shows later. False: give up.
  bool decode_unit(JBLOCKROW* blocks, OnBlock on_block = nullptr, void* context = nullptr);

  // To be called behind the last unit: everything up to it has been sound. False: give up.
  bool settle();

  // Decodes what is left of the scan. False: give up, or something else than the end of the image follows.
  bool finish();

  // The same from the start of the scan, with the state before every unit but the first.
  bool walk(const uint8_t* file, std::vector<EntryPoint>* states);

 private:
  static constexpr int kIndexBits = 10;
  static constexpr int kLast = kCoefficients - 1;
  static constexpr uint8_t kEndOfBlock = 96;  // a step that leads further than two runs can
  static constexpr uint8_t kNoSymbol = 160;   // and one that leads further than that
  static_assert(kLast - 1 + 2 * 16 < kEndOfBlock && kLast - 1 + kEndOfBlock < kNoSymbol);
  static_assert(kLast - 1 + kNoSymbol < sizeof(NaturalOrder));
  static constexpr int kMaxDc = 1 << 15;
  static constexpr int kMaxDcSize = 11;  // bits of a value; what takes more is libjpeg-turbo's to refuse
  static constexpr int kMaxAcSize = 10;

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
  static constexpr Symbol kBroken = {1, kNoSymbol, 0};

  // What the next bits begin with: a symbol and, of AC, the one behind it if its head, the code with the
  // number's sign, is among them too. Otherwise the second is the first again, no step further on: to store
  // both is right in any case.
  struct Pair {
    uint8_t total;  // bits of both; 0: not in the table
    uint8_t rest;   // 64 less them
    uint8_t first_step;
    uint8_t step;  // of both
    int16_t first_value;
    int16_t second_base;  // the second value less all the bits of both, taken for a number

    static Pair of(Symbol one, uint64_t window) {
      Pair pair{one.total, static_cast<uint8_t>(64 - one.total), one.step, one.step, one.value, 0};
      pair.second_base = static_cast<int16_t>(one.value - pair.second_value(window));
      return pair;
    }
    int16_t second_value(uint64_t window) const {
      return static_cast<int16_t>(second_base + static_cast<int>(window >> (rest & 63)));
    }
  };

  struct Table {
    Pair pairs[1 << kIndexBits];  // by the next bits
    Code codes[1 << kIndexBits];  // by the next bits, where the code fits
    uint32_t ends[18];            // of the codes of each length, as 16 bits
    int32_t offsets[17];          // from a code to its value's place
    uint8_t values[256];
    JHUFF_TBL source;
    bool filled;  // from source; zeroed memory equals a table without any code
    bool ac;

    void fill(const JHUFF_TBL& huffman, bool is_ac);
    void fill_code(Code code, uint32_t bits, uint8_t* heads);
    void pair_up(const uint8_t* heads);
    Symbol symbol_of(Code code, uint64_t window) const;
    Symbol rare_symbol(uint64_t window) const;
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
    uint32_t count;
    const uint8_t* next;  // in clean_
  };

  // At least 56 bits afterwards: enough for the longest symbol, one more entry of a table of AC, which takes
  // less than the index for its codes, and the index of the next one.
  static void refill(Bits* bits) {
    uint64_t bytes;
    std::memcpy(&bytes, bits->next, sizeof(bytes));
    bits->window |= __builtin_bswap64(bytes) >> bits->count;
    bits->next += (63 - bits->count) >> 3;
    bits->count |= 56;
  }
  static_assert(56 - (16 + kMaxDcSize) - (kIndexBits - 1 + kMaxAcSize) >= kIndexBits);

  static bool decode_dc(const Table& table, Bits* bits, int* dc);
  static bool end_block(const Table& table, uint64_t before, int k, Bits* bits, JCOEF* out);
  template <bool kStore>
  static bool decode_block(Bits* bits, const Block& block, int* dc, JCOEF* out);
  template <bool kStore>
  bool decode_blocks(JBLOCKROW* blocks, OnBlock on_block, void* context);
  template <bool kStore>
  bool read_unit(JBLOCKROW* blocks = nullptr, OnBlock on_block = nullptr, void* context = nullptr);
  bool go_to(uint32_t unit);
  bool seek(uint32_t unit);
  bool arrived();
  bool leave();
  const uint8_t* end_before(uint32_t unit) const;
  uint32_t end_of_run(uint32_t unit) const;
  uint32_t entry_to(uint32_t unit) const { return points_->last_before(std::min(unit, proved_)); }
  void begin_interval();
  void append_states(const uint8_t* file, const std::vector<EntryPoint>& clean,
                     std::vector<EntryPoint>* states) const;
  bool supply(Bits* bits);
  ptrdiff_t unread(const Bits& bits) const { return 8 * (clean_end_ - bits.next) + ptrdiff_t{bits.count}; }
  // Whether a marker follows the bits that fill up the last byte. Before a block there were bytes for the
  // longest one, or all up to the marker: if it is not in sight behind the block, whole bytes are left over.
  bool used_up() const { return at_stop_ && unread(bits_) < 8; }
  bool restart();

  // The longest block takes 16 + 11 bits of DC and 63 times 16 + 10 bits of AC: 209 bytes, and 8 are read
  // ahead.
  static constexpr int kBlockBytes = 224;
  static constexpr int kChunk = 4096;

  // Entropy-coded bytes without the zeros that escape 0xFF, a chunk at a time, up to the next marker; zeros
  // behind it.
  uint8_t clean_[kBlockBytes + kChunk + 2 * kBlockBytes];
  const uint8_t* clean_end_;
  bool at_stop_;  // clean_ ends where a marker stands, or at end_ where a point is
  const uint8_t* next_;
  const uint8_t* end_;
  const uint8_t* interval_;  // first byte behind the last restart marker
  uint64_t moved_out_;       // bytes since then that clean_ holds no more

  Bits bits_;
  int dc_[MAX_COMPS_IN_SCAN];
  Block blocks_[D_MAX_BLOCKS_IN_MCU];
  int blocks_in_unit_;
  unsigned columns_;                   // units a row
  unsigned unit_height_, unit_width_;  // in pixels
  uint32_t units_;
  uint32_t unit_;                // that decode_unit is asked for next
  uint32_t at_;                  // that bits_ stand before
  uint32_t limit_;               // whose state, that of a point, is checked on arrival; units_: none
  std::vector<uint8_t> wanted_;  // by unit
  const EntryPoints* points_;
  uint32_t proved_;  // the last unit whose point is proved; units_: all are
  const uint8_t* file_;
  const uint8_t* file_end_;
  int components_;
  unsigned restart_interval_;
  unsigned units_to_restart_;
  int next_restart_;
  Table dc_tables_[NUM_HUFF_TBLS]{};
  Table ac_tables_[NUM_HUFF_TBLS]{};
};

// The signed number behind a code: below half of its range it means minus its complement.
inline HuffmanDecoder::Symbol HuffmanDecoder::Table::symbol_of(Code code, uint64_t window) const {
  const int size = ac ? code.value & 15 : code.value;
  const int run = code.value >> 4;
  if (code.length == 0 || size > (ac ? kMaxAcSize : kMaxDcSize)) return kBroken;
  const uint64_t number = window << code.length;
  const int value = static_cast<int>(number >> 1 >> (63 - size));
  const int negative = static_cast<int>(~number >> 63);
  const int step = !ac ? 0 : size == 0 && run != 15 ? kEndOfBlock : run + 1;
  return {static_cast<uint8_t>(code.length + size), static_cast<uint8_t>(step),
          static_cast<int16_t>(value - (-negative & ((1 << size) - 1)))};
}

// What `pairs` does not hold.
inline HuffmanDecoder::Symbol HuffmanDecoder::Table::rare_symbol(uint64_t window) const {
  const Code code = codes[window >> (64 - kIndexBits)];
  return code.length > 0 ? symbol_of(code, window) : long_symbol(window);
}

}  // namespace fkdx
