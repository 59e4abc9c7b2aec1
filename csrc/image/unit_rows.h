// SPDX-License-Identifier: Apache-2.0
// Rows of units (MCUs) to samples, in place of libjpeg-turbo's loop over them. A block is transformed soon
// after its code has been read: the CPU does that while it waits for the codes of the next ones. Units that
// nobody wants are passed over.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>

#include "image/huffman.h"
#include "image/idct.h"
#include "image/jpeg_internals.h"

namespace fkdx {

class UnitRows {
 public:
  // For the scan that `huffman` is about to read. False: the transform of this one is libjpeg-turbo's.
  bool start(const jpeg_decompress_struct& jpeg, HuffmanDecoder* huffman);

  // Fills the planes of the next row of units. False: the Huffman decoder gave up.
  bool read(const jpeg_decompress_struct& jpeg, JSAMPIMAGE planes);

 private:
  // Where a block of a unit goes.
  struct Place {
    int component;
    int left, top;                // in the unit, in blocks
    int last_width, last_height;  // blocks that the last unit of a row, a column, has of the component
    unsigned width;               // samples of the component that a unit is wide
    const uint16_t* quantisation;
  };

  // What idct_ takes of a block that has been read. It waits until the next one has been read too, because
  // the CPU cannot forward single coefficients to a load of a vector.
  struct Waiting {
    JCOEF* coefficients;  // null: none
    const uint16_t* quantisation;
    JSAMPARRAY rows;
    size_t column;
  };

  static void on_block(void* rows, int i);
  Waiting transform_of(int i);
  void transform(const Waiting& block) const;

  Idct idct_ = nullptr;
  HuffmanDecoder* huffman_ = nullptr;
  Columns columns_{};
  unsigned units_;  // a row
  int blocks_in_unit_ = 0;
  Place places_[D_MAX_BLOCKS_IN_MCU];
  Waiting waiting_{};
  int turn_ = 0;
  JBLOCKROW block_rows_[2][D_MAX_BLOCKS_IN_MCU];
  alignas(64) JBLOCK blocks_[2][D_MAX_BLOCKS_IN_MCU]{};  // of two units in turn; zeros before they are read
  JSAMPLE outside_[DCTSIZE];                             // for what the planes have no room for
  JSAMPROW outside_rows_[DCTSIZE];
  // Of the unit that is being read:
  JSAMPIMAGE planes_ = nullptr;
  unsigned unit_ = 0;  // its number in its row
  bool last_row_ = false;
};

}  // namespace fkdx
