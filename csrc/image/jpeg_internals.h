// SPDX-License-Identifier: Apache-2.0
// The parts of libjpeg-turbo that its public header does not show, for our Huffman decoder to stand in.
#pragma once

#include <cstddef>
#include <cstdio>  // jpeglib.h needs FILE

#include <jpeglib.h>

namespace fkdx {

using DecodeMcu = boolean (*)(j_decompress_ptr jpeg, JBLOCKROW* blocks);
using DecompressRow = int (*)(j_decompress_ptr jpeg, JSAMPIMAGE planes);

// Whether the parts can be used: this build has their header (not every distribution ships it), and the
// library that runs keeps them where the header says. A shared library may be another version than its header
// was; the bundled one cannot. Tried out on a small image, once.
bool internals_fit();

// Units of a row, both ends included.
struct Columns {
  unsigned first;
  unsigned last;
};

// All below: of a started decompression, and only where the internals fit.
Columns wanted_columns(const jpeg_decompress_struct& jpeg);
void replace_decode_mcu(j_decompress_ptr jpeg, DecodeMcu decode_mcu);

// The method that fills the planes of a row of units; what replaces it returns end_row().
DecompressRow decompress_row_of(const jpeg_decompress_struct& jpeg);
void replace_decompress_row(j_decompress_ptr jpeg, DecompressRow decompress_row);
int end_row(j_decompress_ptr jpeg);

// Whether a file is of the lossless process, which libjpeg-turbo knows from 3.0 on and which cannot be
// cropped.
bool is_lossless(const jpeg_decompress_struct& jpeg);

}  // namespace fkdx
