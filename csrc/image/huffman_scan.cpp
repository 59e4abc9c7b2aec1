// SPDX-License-Identifier: Apache-2.0
// Which units of a scan are decoded, and from where: restart intervals, entry points.
#include <algorithm>
#include <cstring>

#include "image/huffman.h"

namespace fkdx {
namespace {

constexpr uint8_t kFirstRestart = 0xD0;  // markers, behind 0xFF
constexpr uint8_t kEndOfImage = 0xD9;
constexpr int kBlockSide = 8;
constexpr double kWorthEntering = 0.85;  // share of wanted units

// Of the bytes in [from, to) without the zeros that escape 0xFF: where byte `count` of them lies.
const uint8_t* escaped_place(const uint8_t* from, const uint8_t* to, uint64_t count) {
  while (count > 0) {
    const auto* escape = static_cast<const uint8_t*>(
        std::memchr(from, 0xFF, std::min(count, static_cast<uint64_t>(to - from))));
    if (!escape) return from + count;
    count -= escape - from + 1;
    from = escape + 2;
  }
  return from;
}

}  // namespace

bool HuffmanDecoder::start(const jpeg_decompress_struct& jpeg) {
  if (jpeg.progressive_mode || jpeg.arith_code || jpeg.comps_in_scan != jpeg.num_components) return false;
  next_ = jpeg.src->next_input_byte;
  end_ = file_end_ = next_ + jpeg.src->bytes_in_buffer;
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
  components_ = jpeg.comps_in_scan;
  unit_height_ = kBlockSide * (components_ == 1 ? 1 : jpeg.max_v_samp_factor);
  unit_width_ = kBlockSide * (components_ == 1 ? 1 : jpeg.max_h_samp_factor);
  columns_ = jpeg.MCUs_per_row;
  units_ = limit_ = columns_ * jpeg.MCU_rows_in_scan;
  unit_ = at_ = 0;
  wanted_.assign(units_, 0);
  points_ = nullptr;
  restart_interval_ = units_to_restart_ = jpeg.restart_interval;
  next_restart_ = 0;
  begin_interval();
  return true;
}

ScanFacts HuffmanDecoder::facts(const uint8_t* file) const {
  return {static_cast<uint32_t>(next_ - file), static_cast<uint32_t>(file_end_ - file), units_, columns_,
          components_};
}

void HuffmanDecoder::enter_at(const EntryPoints* points, const uint8_t* file, uint32_t proved) {
  points_ = points;
  const bool all = proved >= points->last_before(units_ - 1);
  proved_ = all ? units_ : points->last_before(proved);
  file_ = file;
  limit_ = 0;
}

void HuffmanDecoder::want(unsigned top, unsigned left, unsigned bottom, unsigned right) {
  const unsigned first = left / unit_width_, last = std::min((right - 1) / unit_width_, columns_ - 1);
  const unsigned last_row = std::min((bottom - 1) / unit_height_, units_ / columns_ - 1);
  for (unsigned row = top / unit_height_; row <= last_row; ++row) {
    std::memset(&wanted_[size_t{row} * columns_ + first], 1, last - first + 1);
  }
}

bool HuffmanDecoder::can_save() const {
  const auto last = std::find(wanted_.rbegin(), wanted_.rend(), 1);
  const auto wanted = std::count(last, wanted_.rend(), 1);
  return wanted < kWorthEntering * (wanted_.rend() - last);
}

void HuffmanDecoder::begin_interval() {
  bits_ = {0, 0, clean_};
  clean_end_ = clean_;
  at_stop_ = false;
  interval_ = next_;
  moved_out_ = 0;
  std::fill_n(dc_, MAX_COMPS_IN_SCAN, 0);
}

// Steps over a restart marker, which has to come right behind the bits that fill up the last byte.
bool HuffmanDecoder::restart() {
  if (!used_up() || end_ - next_ < 2 || next_[0] != 0xFF || next_[1] != kFirstRestart + next_restart_)
    return false;
  next_ += 2;
  begin_interval();
  next_restart_ = (next_restart_ + 1) % 8;
  units_to_restart_ = restart_interval_;
  return true;
}

bool HuffmanDecoder::decode_unit(JBLOCKROW* blocks, OnBlock on_block, void* context) {
  const uint32_t unit = unit_++;
  if (!blocks || !wanted_[unit]) return true;
  return go_to(unit) && read_unit<true>(blocks, on_block, context);
}

// Decodes the unit before which bits_ stand.
template <bool kStore>
bool HuffmanDecoder::read_unit(JBLOCKROW* blocks, OnBlock on_block, void* context) {
  if (restart_interval_ > 0 && units_to_restart_ == 0 && !restart()) return false;
  if (at_ == limit_ && !(arrived() && seek(at_))) return false;
  --units_to_restart_;
  ++at_;
  return decode_blocks<kStore>(blocks, on_block, context);
}

// Brings bits_ before a unit, from the last entry point before it where that is nearer.
bool HuffmanDecoder::go_to(uint32_t unit) {
  if (points_) {
    const uint32_t entry = entry_to(unit);
    if (entry > at_ && !leave()) return false;
    if (entry > at_ && !seek(entry)) return false;
  }
  while (at_ < unit) {
    if (!read_unit<false>()) return false;
  }
  return true;
}

// The unit behind the last of those in the same row that are wanted with this one.
uint32_t HuffmanDecoder::end_of_run(uint32_t unit) const {
  const uint32_t row_end = unit - unit % columns_ + columns_;
  const void* gap = std::memchr(&wanted_[unit], 0, row_end - unit);
  return gap ? static_cast<uint32_t>(static_cast<const uint8_t*>(gap) - wanted_.data()) : row_end;
}

// Behind the byte that holds the last bit before a unit with a point, and the zero that escapes it.
const uint8_t* HuffmanDecoder::end_before(uint32_t unit) const {
  const EntryPoint& point = points_->before(unit);
  const uint8_t* end = file_ + point.byte;
  return point.bit == 0 ? end : end + (*end == 0xFF ? 2 : 1);
}

// Makes ready to read from a point up to the first one that is not before the end of what is wanted there.
bool HuffmanDecoder::seek(uint32_t unit) {
  const EntryPoint& from = points_->before(unit);
  const uint32_t asked = unit_ > 0 ? unit_ - 1 : 0;
  limit_ = points_->first_behind(std::max(end_of_run(std::max(asked, unit)), unit + 1));
  if (limit_ > proved_) limit_ = std::max(proved_, points_->first_behind(unit + 1));
  end_ = limit_ < units_ ? end_before(limit_) : file_end_;
  next_ = file_ + from.byte;
  if (end_ < next_ || end_ > file_end_) return false;
  begin_interval();
  std::copy_n(from.dc, EntryPoint::kComponents, dc_);
  at_ = unit;
  if (restart_interval_ > 0) {
    units_to_restart_ = restart_interval_ - unit % restart_interval_;
    next_restart_ = unit / restart_interval_ % 8;
  }
  if (!supply(&bits_)) return false;
  refill(&bits_);
  bits_.window <<= from.bit;
  bits_.count -= from.bit;
  return true;
}

// Whether the state before unit limit_ is that of its point. That proves the point, because all that was read
// began at one that had been proved.
bool HuffmanDecoder::arrived() {
  if (limit_ == 0) return true;
  const EntryPoint& point = points_->before(limit_);
  if (next_ != end_ || unread(bits_) != static_cast<ptrdiff_t>((8 - point.bit) % 8)) return false;
  if (!std::equal(dc_, dc_ + components_, point.dc)) return false;
  proved_ = std::max(proved_, limit_);
  return true;
}

// Reads on to where what has been read can be checked.
bool HuffmanDecoder::leave() {
  while (at_ < limit_) {
    if (!read_unit<false>()) return false;
  }
  if (limit_ == units_) return used_up();
  if (restart_interval_ > 0 && units_to_restart_ == 0 && !restart()) return false;
  return arrived();
}

bool HuffmanDecoder::settle() { return points_ ? leave() : go_to(unit_); }

bool HuffmanDecoder::finish() { return go_to(units_) && used_up() && next_[1] == kEndOfImage; }

bool HuffmanDecoder::walk(const uint8_t* file, std::vector<EntryPoint>* states) {
  std::vector<EntryPoint> clean;  // of this interval, `byte` without escapes
  states->clear();
  while (at_ < units_) {
    if (at_ > 0) {
      if (restart_interval_ > 0 && units_to_restart_ == 0) {
        append_states(file, clean, states);
        clean.clear();
        if (!restart()) return false;
      }
      const uint64_t place = 8 * (moved_out_ + (bits_.next - clean_)) - bits_.count;
      EntryPoint& state =
          clean.emplace_back(EntryPoint{static_cast<uint32_t>(place / 8), uint32_t(place % 8), {}});
      std::copy_n(dc_, EntryPoint::kComponents, state.dc);
    }
    if (!read_unit<false>()) return false;
  }
  append_states(file, clean, states);
  return finish();
}

// Turns places among the clean bytes of an interval into places in the file.
void HuffmanDecoder::append_states(const uint8_t* file, const std::vector<EntryPoint>& clean,
                                   std::vector<EntryPoint>* states) const {
  const uint8_t* place = interval_;
  uint32_t before = 0;
  for (EntryPoint state : clean) {
    place = escaped_place(place, file_end_, state.byte - before);
    before = state.byte;
    state.byte = static_cast<uint32_t>(place - file);
    states->push_back(state);
  }
}

template bool HuffmanDecoder::read_unit<true>(JBLOCKROW* blocks, OnBlock on_block, void* context);
template bool HuffmanDecoder::read_unit<false>(JBLOCKROW* blocks, OnBlock on_block, void* context);

}  // namespace fkdx
