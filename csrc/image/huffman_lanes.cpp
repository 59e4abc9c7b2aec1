// SPDX-License-Identifier: Apache-2.0
// What is wanted of a row, decoded from two entry points at once: where one decoder waits for a table or for
// a branch that was foretold wrongly, the other one goes on.
#include <algorithm>
#include <cstring>

#include "image/huffman.h"

#define FKDX_INLINE __attribute__((always_inline))

namespace fkdx {

// Decodes the units from the last point before `unit` to the first one behind what is wanted there, where
// that can be done from two points. False: give up.
bool HuffmanDecoder::decode_run(uint32_t unit) {
  const uint32_t entry = entry_to(unit);
  if (restart_interval_ > 0 || (entry <= at_ && at_ < limit_)) return true;
  if (!leave()) return false;
  const uint32_t first = std::max(entry, at_);
  const uint32_t last = points_->first_behind(std::max(end_of_run(unit), first + 1));
  const uint32_t middle = points_->first_behind(first + (last - first) / 2);
  if (first == middle || middle >= last || last >= units_ || last > proved_) return true;
  if (!start_lane(first, middle, &lanes_[0]) || !start_lane(middle, last, &lanes_[1])) return true;
  const size_t unit_size = size_t(blocks_in_unit_) * kCoefficients;
  run_.blocks.resize((last - first) * unit_size);
  std::memset(run_.blocks.data(), 0, run_.blocks.size() * sizeof(JCOEF));
  lanes_[0].at.out = run_.blocks.data();
  lanes_[1].at.out = &run_.blocks[(middle - first) * unit_size];
  if (!decode_lanes(&lanes_[0].at, &lanes_[1].at)) return false;
  if (!end_lane(lanes_[0], middle) || !end_lane(lanes_[1], last)) return false;
  run_.first = first;
  run_.last = at_ = limit_ = last;
  run_checked_ = true;
  return true;
}

// False: these data are for the ordinary way, which also finds out what is wrong with them.
bool HuffmanDecoder::start_lane(uint32_t first, uint32_t last, Lane* lane) {
  const EntryPoint& point = points_->before(first);
  const uint8_t* from = file_ + point.byte;
  const uint8_t* to = end_before(last);
  if (to <= from || to > file_end_ || to - from > kChunk) return false;
  uint8_t* clean = lane->clean;
  while (from < to) {
    const auto* escape = static_cast<const uint8_t*>(std::memchr(from, 0xFF, to - from));
    const ptrdiff_t some = (escape ? escape + 1 : to) - from;
    std::memcpy(clean, from, some);
    clean += some;
    from += some;
    if (!escape) break;
    if (from == to || *from != 0) return false;
    ++from;
  }
  std::memset(clean, 0, 2 * kBlockBytes);
  lane->at.clean_end = clean;
  lane->at.bits = {0, 0, lane->clean};
  refill(&lane->at.bits);
  lane->at.bits.window <<= point.bit;
  lane->at.bits.count -= point.bit;
  std::copy_n(point.dc, EntryPoint::kComponents, lane->at.dc);
  lane->at.block = 0;
  lane->at.left = static_cast<int>(last - first) * blocks_in_unit_;
  return true;
}

bool HuffmanDecoder::end_lane(const Lane& lane, uint32_t last) const {
  const EntryPoint& point = points_->before(last);
  return 8 * (lane.at.clean_end - lane.at.bits.next) + lane.at.bits.count ==
             static_cast<int>((8 - point.bit) % 8) &&
         std::equal(lane.at.dc, lane.at.dc + components_, point.dc);
}

FKDX_INLINE inline bool HuffmanDecoder::begin_block(Cursor* at) const {
  if (8 * (at->clean_end - at->bits.next) + at->bits.count < 0) return false;
  const Block& block = blocks_[at->block];
  refill(&at->bits);
  const Symbol first = next_symbol(*block.dc, &at->bits);
  if (first.step != 0) return false;
  const int dc = at->dc[block.component] += first.value;
  if (dc >= kMaxDc || dc < -kMaxDc) return false;
  at->out[0] = static_cast<JCOEF>(dc);
  at->k = 0;
  return true;
}

// One look into the table: one or two coefficients. Whether the block goes on.
FKDX_INLINE inline bool HuffmanDecoder::step(const Table& table, Cursor* at) {
  const Pair pair = pair_at(table, at->bits.window);
  int k = at->k + pair.first_step;
  int total = pair.first_total;
  at->step = pair.first_step;
  if (k < kCoefficients) at->out[kNaturalOrder[k]] = static_cast<JCOEF>(pair.first_value);
  bool on = k < kCoefficients - 1;
  if (on) {
    k += pair.second_step;
    total = pair.total;
    at->step = pair.second_step;
    if (k < kCoefficients) at->out[kNaturalOrder[k]] = static_cast<JCOEF>(pair.second_value);
    on = k < kCoefficients - 1;
  }
  at->k = k;
  at->bits.window <<= total;
  at->bits.count -= total;
  refill(&at->bits);
  return on;
}

bool HuffmanDecoder::decode_lanes(Cursor* first, Cursor* second) const {
  Cursor a = *first, b = *second;  // copies, which stay in registers
  bool sound = begin_block(&a) && begin_block(&b);
  const Table* table_a = blocks_[0].ac;
  const Table* table_b = table_a;
  // Whether there is another block.
  const auto next_block = [this, &sound](Cursor* at, const Table** table) FKDX_INLINE {
    sound = at->k == kCoefficients - 1 || at->step == kEndOfBlock;
    at->block = at->block + 1 == blocks_in_unit_ ? 0 : at->block + 1;
    *table = blocks_[at->block].ac;
    at->out += kCoefficients;
    if (--at->left == 0 || !sound) return false;
    sound = begin_block(at);
    return sound;
  };
  while (sound) {
    if (!step(*table_a, &a) && !next_block(&a, &table_a)) break;
    if (!step(*table_b, &b) && !next_block(&b, &table_b)) break;
  }
  while (sound && a.left > 0 && (step(*table_a, &a) || next_block(&a, &table_a))) continue;
  while (sound && b.left > 0 && (step(*table_b, &b) || next_block(&b, &table_b))) continue;
  *first = a;
  *second = b;
  return sound;
}

}  // namespace fkdx
