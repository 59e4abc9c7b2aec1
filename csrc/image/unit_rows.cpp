// SPDX-License-Identifier: Apache-2.0
#include "image/unit_rows.h"

#include <cstring>

#include "base/cpu.h"

namespace fkdx {

bool UnitRows::start(const jpeg_decompress_struct& jpeg, HuffmanDecoder* huffman) {
  idct_ = choose<Idct>(nullptr, FKDX_ON_X86(idct_avx2), FKDX_ON_X86(idct_avx512()));
  huffman_ = huffman;
  columns_ = wanted_columns(jpeg);
  units_ = jpeg.MCUs_per_row;
  blocks_in_unit_ = 0;
  const bool rows_of_one_unit = jpeg.comps_in_scan > 1 || jpeg.cur_comp_info[0]->v_samp_factor == 1;
  if (!idct_ || jpeg.dct_method != JDCT_ISLOW || !rows_of_one_unit) return false;
  for (int c = 0; c < jpeg.comps_in_scan; ++c) {
    const jpeg_component_info& info = *jpeg.cur_comp_info[c];
    if (!info.component_needed || !info.quant_table) return false;
    for (int i = 0; i < info.MCU_blocks; ++i) {
      places_[blocks_in_unit_++] = {info.component_index,      i % info.MCU_width,
                                    i / info.MCU_width,        info.last_col_width,
                                    info.last_row_height,      static_cast<unsigned>(info.MCU_sample_width),
                                    info.quant_table->quantval};
    }
  }
  std::memset(blocks_, 0, sizeof(blocks_));
  for (int turn = 0; turn < 2; ++turn) {
    for (int i = 0; i < blocks_in_unit_; ++i) block_rows_[turn][i] = &blocks_[turn][i];
  }
  for (JSAMPROW& row : outside_rows_) row = outside_;
  waiting_ = {};
  return true;
}

bool UnitRows::read(const jpeg_decompress_struct& jpeg, JSAMPIMAGE planes) {
  planes_ = planes;
  last_row_ = jpeg.input_iMCU_row == jpeg.total_iMCU_rows - 1;
  for (unit_ = 0; unit_ < units_; ++unit_) {
    const bool inside = unit_ >= columns_.first && unit_ <= columns_.last;
    if (!huffman_->decode_unit(inside ? block_rows_[turn_] : nullptr, on_block, this)) return false;
  }
  transform(waiting_);
  waiting_ = {};
  return true;
}

void UnitRows::on_block(void* rows, int i) {
  auto& self = *static_cast<UnitRows*>(rows);
  const Waiting before = self.waiting_;
  self.waiting_ = self.transform_of(i);
  self.turn_ ^= i + 1 == self.blocks_in_unit_;
  self.transform(before);
}

inline UnitRows::Waiting UnitRows::transform_of(int i) {
  const Place& place = places_[i];
  // Blocks beyond the component's edge fill up the last units; there is no room for their samples.
  const bool outside = (unit_ + 1 == units_ && place.left >= place.last_width) ||
                       (last_row_ && place.top >= place.last_height);
  if (outside) return {blocks_[turn_][i], place.quantisation, outside_rows_, 0};
  return {blocks_[turn_][i], place.quantisation, planes_[place.component] + DCTSIZE * place.top,
          size_t{unit_ - columns_.first} * place.width + DCTSIZE * place.left};
}

inline void UnitRows::transform(const Waiting& block) const {
  if (block.coefficients) idct_(block.coefficients, block.quantisation, block.rows, block.column);
}

}  // namespace fkdx
