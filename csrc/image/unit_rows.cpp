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
  return true;
}

bool UnitRows::read(const jpeg_decompress_struct& jpeg, JSAMPIMAGE planes) {
  planes_ = planes;
  last_row_ = jpeg.input_iMCU_row == jpeg.total_iMCU_rows - 1;
  JBLOCKROW blocks[D_MAX_BLOCKS_IN_MCU];
  for (int i = 0; i < blocks_in_unit_; ++i) blocks[i] = &blocks_[i];
  for (unit_ = 0; unit_ < units_; ++unit_) {
    const bool inside = unit_ >= columns_.first && unit_ <= columns_.last;
    if (!huffman_->decode_unit(inside ? blocks : nullptr, on_block, this)) return false;
  }
  return true;
}

void UnitRows::on_block(void* rows, int i) {
  auto& self = *static_cast<UnitRows*>(rows);
  const Place& place = self.places_[i];
  // Blocks beyond the component's edge fill up the last units; there is no room for their samples.
  if ((self.unit_ + 1 == self.units_ && place.left >= place.last_width) ||
      (self.last_row_ && place.top >= place.last_height)) {
    std::memset(self.blocks_[i], 0, sizeof(JBLOCK));
    return;
  }
  self.idct_(self.blocks_[i], place.quantisation, self.planes_[place.component] + DCTSIZE * place.top,
             size_t{self.unit_ - self.columns_.first} * place.width + DCTSIZE * place.left);
}

}  // namespace fkdx
