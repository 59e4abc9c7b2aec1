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
  Pair pair{};  // the same but for its first value in each half, one for each sign
  for (uint32_t at = bits; at < bits + count; ++at) {
    const uint64_t window = uint64_t{at} << (64 - kIndexBits);  // zeros for what is behind the index
    if (at == bits || at == bits + count / 2) pair = Pair::of(symbol_of(code, window), window);
    pair.first_value = pair.second_value(window);
    pairs[at] = pair;
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
    const bool both = (first.step < kEndOfBlock) & (first.total + heads[behind] <= kIndexBits);
    Pair pair = first;
    pair.total = static_cast<uint8_t>(first.total + second.total);
    pair.rest = static_cast<uint8_t>(64 - pair.total);
    pair.step = static_cast<uint8_t>(first.step + second.step);
    pair.second_base = 0;
    const int number = pair.second_value(uint64_t{bits} << (64 - kIndexBits));
    pair.second_base = static_cast<int16_t>(second.first_value - number);
    pairs[bits] = both ? pair : first;
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

// Adds the next DC code's difference to the predictor.
inline bool HuffmanDecoder::decode_dc(const Table& table, Bits* bits, int* dc) {
  Pair pair = table.pairs[bits->window >> (64 - kIndexBits)];
  refill(bits);
  if (__builtin_expect(pair.total == 0, 0)) pair = Pair::of(table.rare_symbol(bits->window), bits->window);
  if (pair.step != 0) return false;
  *dc += pair.second_value(bits->window);
  bits->window <<= pair.total & 63;
  bits->count -= pair.total;
  return *dc < kMaxDc && *dc >= -kMaxDc;
}

// The look at `before` led to k, which is past the end of the block: whether its first symbol alone ends the
// block well. If so, the second one is given back, because it belongs to the next block.
bool HuffmanDecoder::end_block(const Table& table, uint64_t before, int k, Bits* bits, JCOEF* out) {
  const Pair last = table.pairs[before >> (64 - kIndexBits)];
  if (last.total == 0 || k - last.step + last.first_step != kLast || last.step == last.first_step)
    return false;
  const Symbol first = table.rare_symbol(before);
  bits->window = before << first.total;
  bits->count += last.total - first.total;
  if (out) out[kLast] = first.value;
  return true;
}

// Between two looks into the table the CPU waits for nothing but the table: the next index is known as soon
// as the bits of this look are shifted out. Everything else, such as fetching more bits, happens in the
// meantime.
template <bool kStore>
[[gnu::always_inline]] inline bool HuffmanDecoder::decode_block(Bits* state, const Block& block, int* dc,
                                                                JCOEF* out) {
  Bits bits = *state;
  if (!decode_dc(*block.dc, &bits, dc)) return false;
  if (kStore) out[0] = static_cast<JCOEF>(*dc);
  const Table& table = *block.ac;
  unsigned k = 0;
  uint64_t before = 0;
  const auto take = [&](const Pair& pair, unsigned total) __attribute__((always_inline)) {
    const unsigned first = k + pair.first_step;
    k += pair.step;
    if (kStore) out[kNaturalOrder.at[first]] = pair.first_value;
    if (kStore) out[kNaturalOrder.at[k]] = pair.second_value(before);
    bits.window <<= total & 63;
    bits.count -= total;
    return k < kLast;
  };
  enum Found { kMore, kEnd, kRare };
  const auto look = [&](bool and_refill) __attribute__((always_inline)) {
    const Pair& pair = table.pairs[bits.window >> (64 - kIndexBits)];
    const unsigned total = pair.total;
    if (and_refill) refill(&bits);
    before = bits.window;
    if (__builtin_expect(total == 0, 0)) return kRare;
    return take(pair, total) ? kMore : kEnd;
  };
  for (;;) {
    Found found = look(/*and_refill=*/false);
    if (found == kMore) found = look(/*and_refill=*/true);
    if (found == kMore) continue;
    if (found == kEnd) break;
    refill(&bits);
    before = bits.window;
    const Pair rare = Pair::of(table.rare_symbol(before), before);
    if (!take(rare, rare.total)) break;
    refill(&bits);
  }
  if (__builtin_expect(k != kLast && k - kEndOfBlock >= kLast, 0)) {
    Bits first_only = bits;
    if (!end_block(table, before, static_cast<int>(k), &first_only, kStore ? out : nullptr)) return false;
    bits = first_only;
  }
  *state = bits;
  return true;
}

template <bool kStore>
bool HuffmanDecoder::decode_blocks(JBLOCKROW* blocks, OnBlock on_block, void* context) {
  Bits bits = bits_;
  for (int i = 0; i < blocks_in_unit_; ++i) {
    if (clean_end_ - bits.next < kBlockBytes) {
      Bits more = bits;  // a copy, so that `bits` stays in registers
      if (!supply(&more)) return false;
      refill(&more);
      bits = more;
    }
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
