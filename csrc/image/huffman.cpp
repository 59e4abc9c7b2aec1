// SPDX-License-Identifier: Apache-2.0
#include "image/huffman.h"

#include <algorithm>
#include <cstring>

namespace fkdx {
namespace {

constexpr int kCoefficients = 64;
constexpr uint8_t kEndOfBlock = 128;  // a step out of the block
constexpr int kLongestSymbol = 31;    // bits: 16 of code, 15 of value
constexpr int kMaxDc = 1 << 15;

constexpr uint8_t kNaturalOrder[kCoefficients] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48,
    41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23,
    30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

bool has_escape(uint64_t bytes) {  // any byte 0xFF
  return ((~bytes - 0x0101010101010101u) & bytes & 0x8080808080808080u) != 0;
}

}  // namespace

HuffmanDecoder::Symbol HuffmanDecoder::symbol_of(int code, int value, bool ac) {
  const int size = ac ? value & 15 : value;
  const int run = ac ? value >> 4 : 0;
  const int step = ac && size == 0 && run != 15 ? kEndOfBlock : run + 1;
  return {static_cast<uint8_t>(code + size), static_cast<uint8_t>(code), static_cast<uint8_t>(size),
          static_cast<uint8_t>(step)};
}

// libjpeg-turbo has checked the table when it started the scan.
void HuffmanDecoder::Table::fill(const JHUFF_TBL& huffman, bool ac) {
  if (std::memcmp(source.bits, huffman.bits, sizeof(source.bits)) == 0 &&
      std::memcmp(source.huffval, huffman.huffval, sizeof(source.huffval)) == 0) {
    return;
  }
  source = huffman;
  std::memcpy(values, huffman.huffval, sizeof(values));
  std::memset(symbols, 0, sizeof(symbols));
  uint32_t code = 0;
  int place = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    offsets[length] = place - static_cast<int>(code);
    for (int i = 0; i < huffman.bits[length]; ++i, ++code, ++place) {
      if (length > kIndexBits) continue;
      const int free_bits = kIndexBits - length;
      std::fill_n(symbols + (code << free_bits), 1 << free_bits, symbol_of(length, values[place], ac));
    }
    ends[length] = code << (16 - length);
  }
  ends[17] = ~0u;
}

HuffmanDecoder::Symbol HuffmanDecoder::Table::long_code(uint32_t bits, bool ac) const {
  int length = kIndexBits + 1;
  while (bits >= ends[length]) ++length;
  if (length > 16) return {};
  return symbol_of(length, values[static_cast<int>(bits >> (16 - length)) + offsets[length]], ac);
}

bool HuffmanDecoder::start(const jpeg_decompress_struct& jpeg) {
  if (jpeg.progressive_mode || jpeg.arith_code || jpeg.comps_in_scan != jpeg.num_components) return false;
  bits_ = {0, 0, 0, jpeg.src->next_input_byte, jpeg.src->next_input_byte + jpeg.src->bytes_in_buffer};
  std::fill_n(dc_, MAX_COMPS_IN_SCAN, 0);
  blocks_in_unit_ = jpeg.blocks_in_MCU;
  for (int i = 0; i < blocks_in_unit_; ++i) {
    const int component = jpeg.MCU_membership[i];
    const jpeg_component_info& info = *jpeg.cur_comp_info[component];
    Table& dc = dc_tables_[info.dc_tbl_no];
    Table& ac = ac_tables_[info.ac_tbl_no];
    dc.fill(*jpeg.dc_huff_tbl_ptrs[info.dc_tbl_no], false);
    ac.fill(*jpeg.ac_huff_tbl_ptrs[info.ac_tbl_no], true);
    blocks_[i] = {&dc, &ac, component};
  }
  restart_interval_ = units_to_restart_ = jpeg.restart_interval;
  next_restart_ = 0;
  return true;
}

// At least 56 bits afterwards.
inline void HuffmanDecoder::refill(Bits* bits) {
  if (bits->end - bits->next >= 8) {
    uint64_t bytes;
    std::memcpy(&bytes, bits->next, sizeof(bytes));
    bytes = __builtin_bswap64(bytes);
    if (!has_escape(bytes)) {
      bits->window |= bytes >> bits->count;
      bits->next += (63 - bits->count) >> 3;
      bits->count |= 56;
      return;
    }
  }
  refill_with_escapes(bits);
}

void HuffmanDecoder::refill_with_escapes(Bits* bits) {
  for (; bits->count <= 56; bits->count += 8) {
    uint64_t byte = 0;
    if (bits->next == bits->end ||
        (*bits->next == 0xFF && (bits->end - bits->next < 2 || bits->next[1] != 0))) {
      bits->padding += 8;  // a marker, or the end
    } else {
      byte = *bits->next;
      bits->next += byte == 0xFF ? 2 : 1;
    }
    bits->window |= byte << (56 - bits->count);
  }
}

inline HuffmanDecoder::Symbol HuffmanDecoder::next_symbol(Bits* bits, const Table& table, bool ac) {
  if (bits->count < kLongestSymbol) refill(bits);
  const Symbol symbol = table.symbols[bits->window >> (64 - kIndexBits)];
  if (__builtin_expect(symbol.total != 0, 1)) return symbol;
  return table.long_code(static_cast<uint32_t>(bits->window >> 48), ac);
}

// The signed number behind the code: below half of its range it means minus its complement.
inline int HuffmanDecoder::value_of(uint64_t window, Symbol symbol) {
  const uint64_t aligned = window << symbol.code;
  const int value = static_cast<int>(aligned >> 1 >> (63 - symbol.size));
  const int negative = static_cast<int>(~aligned >> 63);
  return value - (-negative & ((1 << symbol.size) - 1));
}

inline bool HuffmanDecoder::decode_block(Bits* bits, const Block& block, int* dc, JCOEF* out) {
  const Symbol first = next_symbol(bits, *block.dc, false);
  if (first.total == 0) return false;
  *dc += value_of(bits->window, first);
  if (*dc >= kMaxDc || *dc < -kMaxDc) return false;
  bits->window <<= first.total;
  bits->count -= first.total;
  if (out) out[0] = static_cast<JCOEF>(*dc);
  const Table& ac = *block.ac;
  for (int k = 0; k < kCoefficients - 1;) {
    const Symbol symbol = next_symbol(bits, ac, true);
    if (symbol.total == 0) return false;
    const int value = value_of(bits->window, symbol);
    bits->window <<= symbol.total;
    bits->count -= symbol.total;
    k += symbol.step;
    if (k >= kCoefficients) return symbol.step == kEndOfBlock;
    if (out) out[kNaturalOrder[k]] = static_cast<JCOEF>(value);
  }
  return true;
}

bool HuffmanDecoder::decode_unit(JBLOCKROW* blocks) {
  if (restart_interval_ > 0) {
    if (units_to_restart_ == 0 && !restart()) return false;
    --units_to_restart_;
  }
  Bits bits = bits_;
  for (int i = 0; i < blocks_in_unit_; ++i) {
    int dc = dc_[blocks_[i].component];
    if (!decode_block(&bits, blocks_[i], &dc, blocks ? *blocks[i] : nullptr)) return false;
    dc_[blocks_[i].component] = dc;
  }
  bits_ = bits;
  return bits.padding <= bits.count;
}

// Steps over a restart marker, which has to come right behind the bits that fill up the last byte.
bool HuffmanDecoder::restart() {
  if (bits_.count - bits_.padding >= 8) return false;
  if (bits_.end - bits_.next < 2 || bits_.next[0] != 0xFF || bits_.next[1] != 0xD0 + next_restart_)
    return false;
  bits_ = {0, 0, 0, bits_.next + 2, bits_.end};
  std::fill_n(dc_, MAX_COMPS_IN_SCAN, 0);
  next_restart_ = (next_restart_ + 1) % 8;
  units_to_restart_ = restart_interval_;
  return true;
}

}  // namespace fkdx
