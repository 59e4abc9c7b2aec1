// SPDX-License-Identifier: Apache-2.0
// A region of one JPEG at a time, through libjpeg-turbo: exactly the pixels that a full decode gives.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <cstdio>  // jpeglib.h needs FILE
#include <string>
#include <vector>

#include <jpeglib.h>

#include "image/buffer.h"
#include "image/crops.h"
#include "image/huffman.h"
#include "image/unit_rows.h"

namespace fkdx {

class JpegReader {
 public:
  JpegReader();
  ~JpegReader();
  JpegReader(const JpegReader&) = delete;
  JpegReader& operator=(const JpegReader&) = delete;

  // Reads the header and keeps `data` until the next call. Throws ImageError.
  ImageSize open(const uint8_t* data, size_t size, Strictness strictness);

  // Decodes the pixels of `boxes`, which lie inside the image; `region` is the smallest box around them. The
  // pixels of the region are returned, its first one at the view's data, but only those of the boxes are
  // sure to be the image's. The view holds until the next call. Damage behind the region goes unseen, but for
  // Strictness::whole_file.
  // entries: read little more of the data than the boxes need, where these points fit the image.
  Pixels read(const Box& region, const Box* boxes, int count, CodedEntryPoints entries = {});

  // The same for all of the region, by libjpeg-turbo alone, without our Huffman decoder.
  Pixels read_plain(const Box& region);

  // Coded entry points of the open image; empty where it is damaged or not for our Huffman decoder.
  // share, least_step: see code_entry_points.
  std::vector<uint8_t> make_entry_points(double share, uint32_t least_step);

  // What became of the entry points that were given for the last image.
  EntryUse entry_use() const { return entry_use_; }

  // Entropy decoding of the whole image, nothing else; of the units of `boxes`, by our Huffman decoder, where
  // that can do it.
  void read_coefficients();
  void read_units(const Box* boxes, int count, CodedEntryPoints entries);

  // libjpeg's warnings about the open image that can change no pixel.
  int harmless_warnings() const { return errors_.harmless; }

 private:
  // Where guarded C code leaves by longjmp: with an error, or because the Huffman decoder gave up.
  enum Escape { kFailed = 1, kGaveUp = 2 };

  struct Errors {
    jpeg_error_mgr base;  // first, so that libjpeg's pointer is a pointer to Errors
    jmp_buf escape;
    bool allow_warnings;
    bool in_scan;  // the last marker was that of a scan, whose data follow
    int harmless;  // warnings so far
    char text[JMSG_LENGTH_MAX];
  };

  static void on_error(j_common_ptr jpeg);
  static void on_message(j_common_ptr jpeg, int level);
  static void on_progress(j_common_ptr jpeg);
  static bool is_harmless(j_decompress_ptr jpeg);
  static boolean on_unit(j_decompress_ptr jpeg, JBLOCKROW* blocks);
  static int on_row(j_decompress_ptr jpeg, JSAMPIMAGE planes);

  template <typename Step>
  bool guarded(Step step);
  void create();
  void read_header();
  void take_over();
  void finish();
  void set_wanted(const Box* boxes, int count, CodedEntryPoints entries);
  bool decode(const Box& region, bool fast, Pixels* pixels);
  void check_header();
  bool read_rows(int count, ptrdiff_t stride);
  bool read_cmyk_rows(int count, ptrdiff_t stride);

  jpeg_decompress_struct jpeg_{};
  Errors errors_{};
  jpeg_progress_mgr progress_{};
  HuffmanDecoder huffman_;
  UnitRows unit_rows_;
  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
  bool whole_file_ = false;
  bool took_over_ = false;      // our Huffman decoder reads the open image
  const Box* boxes_ = nullptr;  // that are wanted of it
  int box_count_ = 0;
  CodedEntryPoints entries_;  // of the open image
  EntryPoints points_;
  EntryUse entry_use_ = EntryUse::kNone;
  Buffer<uint8_t> pixels_;
  uint8_t* first_pixel_ = nullptr;
  Buffer<uint8_t> row_;
  std::vector<JSAMPROW> rows_;
};

}  // namespace fkdx
