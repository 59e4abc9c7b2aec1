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
  std::memset(pairs, 0, sizeof(pairs));
  uint8_t heads[1 << kIndexBits];  // see fill_code; too many where these bits hold none
  std::memset(heads, kIndexBits + 1, sizeof(heads));
  uint32_t code = 0;
  int place = 0;
  for (int length = 1; length <= 16; ++length, code <<= 1) {
    offsets[length] = place - static_cast<int>(code);
    for (int i = 0; i < huffman.bits[length]; ++i, ++code, ++place) {
      if (length <= kIndexBits) {
        fill_code({static_cast<uint8_t>(length), values[place]}, code << (kIndexBits - length), heads);
      }
    }
    ends[length] = code << (16 - length);
  }
  ends[17] = ~0u;
  if (ac) pair_up(heads);
}

// All bits that begin with a code, of which `bits` are the first. heads: bits of its code and its number's
// sign.
void HuffmanDecoder::Table::fill_code(Code code, uint32_t bits, uint8_t* heads) {
  const int free_bits = kIndexBits - code.length;
  const uint32_t count = 1u << free_bits;
  std::fill_n(codes + bits, count, code);
  const Symbol one = symbol_of(code, 0);
  const int size = std::max(one.total - code.length, 0);
  const int head = code.length + (size > 0);
  if (head > kIndexBits) return;
  if (one.step <= kEndOfBlock) std::memset(heads + bits, head, count);
  Pair pair = Pair::of(one);
  pair.shift = static_cast<uint8_t>(63 - std::max(one.total - kIndexBits, 0));
  for (uint32_t at = 0; at < count;
       ++at) {  // what is behind the code, with zeros for what is behind the index
    const int number = static_cast<int>(at << (16 - free_bits) << size >> 16);
    const int value = number + (at < count / 2 ? one.value : 0);
    pair.first_value = pair.second_value = static_cast<int16_t>(value);
    pairs[bits + at] = pair;
  }
}

void HuffmanDecoder::Table::pair_up(const uint8_t* heads) {
  constexpr uint32_t kMask = (1 << kIndexBits) - 1;
  Pair singles[1 << kIndexBits];
  std::copy_n(pairs, 1 << kIndexBits, singles);
  for (uint32_t bits = 0; bits <= kMask; ++bits) {
    const Pair first = singles[bits];
    const uint32_t behind = (bits << first.total) & kMask;
    const Pair second = singles[behind];
    const bool both = (first.first_step < kEndOfBlock) & (first.total + heads[behind] <= kIndexBits);
    const int total = first.total + (both ? second.total : 0);
    pairs[bits].total = static_cast<uint8_t>(total);
    pairs[bits].shift = static_cast<uint8_t>(63 - std::max(total - kIndexBits, 0));
    pairs[bits].second_step = both ? second.first_step : uint8_t{0};
    pairs[bits].second_value = both ? second.second_value : first.second_value;
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
  if (!decode_dc(*block.dc, &bits, dc)) return false;
  if (kStore) out[0] = static_cast<JCOEF>(*dc);
  const Table& table = *block.ac;
  int k = 0;
  Pair pair{};
  uint64_t before = 0;
  const auto another = [&] {
    before = bits.window;
    pair = table.pair_at(before);
    k += pair.first_step;
    if (kStore) out[kNaturalOrder[k]] = pair.first_value;
    k += pair.second_step;
    if (kStore) out[kNaturalOrder[k]] = static_cast<JCOEF>(pair.whole_second(before));
    bits.window <<= pair.total;
    bits.count -= pair.total;
    return k < kCoefficients - 1;
  };
  while (another()) {
    refill(&bits);
    if (!another()) break;
  }
  const bool sound = end_block(table, pair, before, k, &bits, kStore ? out : nullptr);
  *state = bits;
  return sound;
}

template <bool kStore>
bool HuffmanDecoder::decode_blocks(JBLOCKROW* blocks, OnBlock on_block, void* context) {
  Bits bits = bits_;
  for (int i = 0; i < blocks_in_unit_; ++i) {
    if (clean_end_ - bits.next < kBlockBytes && !supply(&bits)) return false;
    int dc = dc_[blocks_[i].component];
    if (!decode_block<kStore>(&bits, blocks_[i], &dc, kStore ? *blocks[i] : nullptr)) return false;
    dc_[blocks_[i].component] = dc;
    if (kStore && on_block) on_block(context, i);
  }
  bits_ = bits;
  return unread(bits) >= 0;
}

template bool HuffmanDecoder::decode_blocks<true>(JBLOCKROW* blocks, OnBlock on_block, void* context);
template bool HuffmanDecoder::decode_blocks<false>(JBLOCKROW* blocks, OnBlock on_block, void* context);

}  // namespace fkdx
