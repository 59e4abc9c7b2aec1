// SPDX-License-Identifier: Apache-2.0
#include "image/jpeg_internals.h"

#ifdef FKDX_BUNDLED_JPEG
static_assert(LIBJPEG_TURBO_VERSION_NUMBER == FKDX_BUNDLED_JPEG,
              "the headers are not those of the bundled libjpeg-turbo");
#endif

#if __has_include(<jpegint.h>) && LIBJPEG_TURBO_VERSION_NUMBER < 4000000
#include <jpegint.h>
#define FKDX_JPEG_INTERNALS 1
#endif

#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <type_traits>

namespace fkdx {

#ifdef FKDX_JPEG_INTERNALS
static_assert(std::is_same_v<decltype(jpeg_entropy_decoder::decode_mcu), DecodeMcu>);
static_assert(std::is_same_v<decltype(jpeg_d_coef_controller::decompress_data), DecompressRow>);
static_assert(std::is_same_v<decltype(jpeg_decomp_master::first_iMCU_col), JDIMENSION>);
static_assert(std::is_same_v<decltype(jpeg_decomp_master::last_iMCU_col), JDIMENSION>);

namespace {

// A grey image of 8 x 64: eight blocks of a DC and an AC code of one bit each, which mean 0 and the block's
// end.
struct Trial {
  static constexpr int kBlocks = 8;
  static constexpr unsigned kLeft = 24, kWidth = 16;  // a crop of blocks 3 and 4

  struct Errors {
    jpeg_error_mgr base;
    jmp_buf escape;
  };

  jpeg_decompress_struct jpeg{};
  Errors errors{};
  int calls = 0, rows = 0;
  DecompressRow decompress_row = nullptr;
  uint8_t file[160]{};
  size_t size = 0;

  void put(std::initializer_list<int> bytes, int zeros = 0) {
    for (int byte : bytes) file[size++] = static_cast<uint8_t>(byte);
    size += zeros;
  }

  void write_file() {
    put({0xFF, 0xD8, 0xFF, 0xDB, 0, 67, 0});
    std::memset(file + size, 1, 64);
    size += 64;
    put({0xFF, 0xC0, 0, 11, 8, 0, 8, 0, 8 * kBlocks, 1, 1, 0x11, 0});
    put({0xFF, 0xC4, 0, 20, 0x00, 1}, 16);
    put({0xFF, 0xC4, 0, 20, 0x10, 1}, 16);
    put({0xFF, 0xDA, 0, 8, 1, 1, 0, 0, 63, 0}, kBlocks * 2 / 8);
    put({0xFF, 0xD9});
  }

  static void on_error(j_common_ptr jpeg) { longjmp(reinterpret_cast<Errors*>(jpeg->err)->escape, 1); }

  static boolean on_mcu(j_decompress_ptr jpeg, JBLOCKROW*) {
    ++static_cast<Trial*>(jpeg->client_data)->calls;
    return TRUE;
  }

  static int on_row(j_decompress_ptr jpeg, JSAMPIMAGE planes) {
    auto* trial = static_cast<Trial*>(jpeg->client_data);
    ++trial->rows;
    return trial->decompress_row(jpeg, planes);
  }

  // Reads where the columns are before anything is written.
  bool fits() {
    write_file();
    jpeg.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = on_error;
    errors.base.emit_message = [](j_common_ptr, int) {};
    if (setjmp(errors.escape)) return false;
    jpeg_create_decompress(&jpeg);
    jpeg.client_data = this;
    jpeg_mem_src(&jpeg, file, size);
    jpeg_read_header(&jpeg, TRUE);
    jpeg_start_decompress(&jpeg);
    JDIMENSION left = kLeft, width = kWidth;
    jpeg_crop_scanline(&jpeg, &left, &width);
    const Columns columns = wanted_columns(jpeg);
    if (columns.first != kLeft / 8 || columns.last != (kLeft + kWidth) / 8 - 1) return false;
    if (is_lossless(jpeg)) return false;
    replace_decode_mcu(&jpeg, on_mcu);
    decompress_row = decompress_row_of(jpeg);
    replace_decompress_row(&jpeg, on_row);
    uint8_t pixels[8 * kBlocks];
    JSAMPROW row = pixels;
    jpeg_read_scanlines(&jpeg, &row, 1);
    return calls == kBlocks && rows == 1 && row[0] == 128;
  }

  ~Trial() { jpeg_destroy_decompress(&jpeg); }
};

}  // namespace

bool internals_fit() {
  static const bool fit = Trial().fits();
  return fit;
}

Columns wanted_columns(const jpeg_decompress_struct& jpeg) {
  return {jpeg.master->first_iMCU_col, jpeg.master->last_iMCU_col};
}

void replace_decode_mcu(j_decompress_ptr jpeg, DecodeMcu decode_mcu) {
  jpeg->entropy->decode_mcu = decode_mcu;
}

DecompressRow decompress_row_of(const jpeg_decompress_struct& jpeg) { return jpeg.coef->decompress_data; }

void replace_decompress_row(j_decompress_ptr jpeg, DecompressRow decompress_row) {
  jpeg->coef->decompress_data = decompress_row;
}

int end_row(j_decompress_ptr jpeg) {
  ++jpeg->output_iMCU_row;
  if (++jpeg->input_iMCU_row < jpeg->total_iMCU_rows) return JPEG_ROW_COMPLETED;
  jpeg->inputctl->finish_input_pass(jpeg);
  return JPEG_SCAN_COMPLETED;
}

bool is_lossless(const jpeg_decompress_struct& jpeg) {
#if LIBJPEG_TURBO_VERSION_NUMBER >= 3000000
  return jpeg.master->lossless;
#else
  (void)jpeg;
  return false;
#endif
}

#else

bool internals_fit() { return false; }
Columns wanted_columns(const jpeg_decompress_struct&) { return {}; }
void replace_decode_mcu(j_decompress_ptr, DecodeMcu) {}
DecompressRow decompress_row_of(const jpeg_decompress_struct&) { return nullptr; }
void replace_decompress_row(j_decompress_ptr, DecompressRow) {}
int end_row(j_decompress_ptr) { return JPEG_SUSPENDED; }
bool is_lossless(const jpeg_decompress_struct&) { return false; }

#endif

}  // namespace fkdx
