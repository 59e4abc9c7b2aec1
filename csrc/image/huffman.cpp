// SPDX-License-Identifier: Apache-2.0
#include "image/huffman.h"

#include <algorithm>
#include <cstring>

namespace fkdx {
// libjpeg-turbo has checked the table when it started the scan.
void HuffmanDecoder::Table::fill(const JHUFF_TBL& huffman, bool is_ac) {
  if (filled && std::memcmp(source.bits, huffman.bits, sizeof(source.bits)) == 0 &&
      std::memcmp(source.huffval, huffman.huffval, sizeof(source.huffval)) == 0) {
    return;
  }
  source = huffman;
  filled = true;
  ac = is_ac;
  std::memcpy(values, huffman.huffval, sizeof(values));
  std::memset(codes, 0, sizeof(codes));
  std::memset(symbols, 0, sizeof(symbols));
  uint32_t code = 0;
  int place = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    offsets[length] = place - static_cast<int>(code);
    for (int i = 0; i < huffman.bits[length]; ++i, ++code, ++place) {
      if (length > kIndexBits) continue;
      const int free_bits = kIndexBits - length;
      const Code one{static_cast<uint8_t>(length), values[place]};
      std::fill_n(codes + (code << free_bits), 1 << free_bits, one);
      fill_symbols(one, code << free_bits, free_bits);
    }
    ends[length] = code << (16 - length);
  }
  ends[17] = ~0u;
  if (ac) fill_pairs();
}

// Of a code that the table holds: `bits` begin with it, and free_bits of them are behind it.
void HuffmanDecoder::Table::fill_symbols(Code code, uint32_t bits, int free_bits) {
  const int size = ac ? code.value & 15 : code.value;
  const bool broken = size > (ac ? kMaxAcSize : kMaxDcSize);
  if (size > free_bits && !broken) return;
  const int rest = broken ? free_bits : free_bits - size;
  for (uint32_t at = bits; at < bits + (1u << free_bits); at += 1u << rest) {
    std::fill_n(symbols + at, 1 << rest, symbol_of(code, uint64_t{at} << (64 - kIndexBits)));
  }
}

void HuffmanDecoder::Table::fill_pairs() {
  constexpr uint32_t kMask = (1 << kIndexBits) - 1;
  for (uint32_t bits = 0; bits <= kMask; ++bits) {
    const Symbol first = symbols[bits];
    const Symbol second = symbols[(bits << first.total) & kMask];
    const int total = first.total + second.total;
    const bool both = (total <= kIndexBits) & (first.step < kEndOfBlock) & (second.total > 0);
    Pair pair = Pair::of(first);
    pair.total = static_cast<uint8_t>(both ? total : first.total);
    pair.second_step = both ? second.step : 0;
    pair.second_value = both ? second.value : first.value;
    pairs[bits] = pair;
  }
}

// A code that is too long for the table.
HuffmanDecoder::Symbol HuffmanDecoder::Table::long_symbol(uint64_t window) const {
  const uint32_t bits = static_cast<uint32_t>(window >> 48);
  int length = kIndexBits + 1;
  while (bits >= ends[length]) ++length;
  if (length > 16) return kBroken;
  const int place = static_cast<int>(bits >> (16 - length)) + offsets[length];
  return symbol_of({static_cast<uint8_t>(length), values[place]}, window);
}

// Makes sure that the next block can be read without a look at the end. False: more was read than is there.
// Only where less than a block is left: there is room for a chunk behind no more than that.
bool HuffmanDecoder::supply(Bits* bits) {
  if (at_stop_) return unread(*bits) >= 0;
  const ptrdiff_t kept = clean_end_ - bits->next;
  moved_out_ += bits->next - clean_;
  std::memmove(clean_, bits->next, kept);
  bits->next = clean_;
  uint8_t* to = clean_ + kept;
  for (ptrdiff_t room = kChunk; room > 0 && !at_stop_;) {
    const ptrdiff_t some = std::min(room, end_ - next_);
    const void* escape = some > 0 ? std::memchr(next_, 0xFF, some) : nullptr;
    const ptrdiff_t plain = escape ? static_cast<const uint8_t*>(escape) - next_ : some;
    std::memcpy(to, next_, plain);
    to += plain;
    next_ += plain;
    room -= plain;
    if (!escape && next_ < end_) continue;  // the chunk is full
    if (next_ == end_ && end_ < file_end_) {
      at_stop_ = true;
      break;
    }
    if (end_ - next_ < 2) return false;  // the file ends without a marker
    if (next_[1] == 0) {
      *to++ = 0xFF;
      next_ += 2;
      --room;
    } else if (next_[1] == 0xFF) {
      if (end_ - next_ > 2 && next_[2] == 0) return false;  // libjpeg-turbo makes something of this
      ++next_;                                              // filling before a marker
    } else {
      at_stop_ = true;
    }
  }
  clean_end_ = to;
  std::memset(to, 0, 2 * kBlockBytes);
  return unread(*bits) >= 0;
}

template <bool kStore>
inline bool HuffmanDecoder::decode_block(Bits* state, const Block& block, int* dc, JCOEF* out) {
  Bits bits = *state;  // a copy, which stays in registers
  refill(&bits);
  const Symbol first = next_symbol(*block.dc, &bits);
  if (first.step != 0) return false;
  *dc += first.value;
  if (*dc >= kMaxDc || *dc < -kMaxDc) return false;
  if (kStore) out[0] = static_cast<JCOEF>(*dc);
  int k = 0;
  int step = 0;
  const auto inside = [&](int value) {
    k += step;
    if (kStore && k < kCoefficients) out[kNaturalOrder[k]] = static_cast<JCOEF>(value);
    return k < kCoefficients - 1;
  };
  const auto another = [&] {
    const Pair pair = pair_at(*block.ac, bits.window);
    step = pair.first_step;
    const bool both = inside(pair.first_value);
    const int total = both ? pair.total : pair.first_total;
    bits.window <<= total;
    bits.count -= total;
    step = both ? pair.second_step : step;
    return both && inside(pair.second_value);
  };
  while (another()) {
    refill(&bits);
    if (!another()) break;
  }
  *state = bits;
  return k == kCoefficients - 1 || step == kEndOfBlock;
}

template <bool kStore>
bool HuffmanDecoder::decode_blocks(JBLOCKROW* blocks) {
  Bits bits = bits_;
  for (int i = 0; i < blocks_in_unit_; ++i) {
    if (clean_end_ - bits.next < kBlockBytes && !supply(&bits)) return false;
    int dc = dc_[blocks_[i].component];
    if (!decode_block<kStore>(&bits, blocks_[i], &dc, kStore ? *blocks[i] : nullptr)) return false;
    dc_[blocks_[i].component] = dc;
  }
  bits_ = bits;
  return unread(bits) >= 0;
}

template bool HuffmanDecoder::decode_blocks<true>(JBLOCKROW* blocks);
template bool HuffmanDecoder::decode_blocks<false>(JBLOCKROW* blocks);

}  // namespace fkdx
