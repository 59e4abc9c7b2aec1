// SPDX-License-Identifier: Apache-2.0
#include "judge.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <functional>

#include <jpeglib.h>
// After jpeglib.h
#include <jerror.h>

namespace {

struct Court {
  jpeg_error_mgr errors;  // first
  jmp_buf escape;
  const Bytes* bytes;
  Judgement* found;
};

// Whether the byte lies behind a scan's header and before the next marker, restart markers aside.
bool inside_scan(const Bytes& bytes, size_t place) {
  bool scan = false;
  for (size_t at = 2; at + 4 <= bytes.size() && at <= place;) {
    const uint8_t marker = bytes[at + 1];
    if (bytes[at] != 0xFF || marker == 0xFF || marker == 0) {
      ++at;
    } else if (marker < 0xC0 || (marker >= 0xD0 && marker <= 0xD7)) {
      at += 2;  // a restart, or nothing that a scan would end for
    } else {
      const int length = marker == 0xD8 || marker == 0xD9 ? 0 : bytes[at + 2] << 8 | bytes[at + 3];
      const bool silent =
          length == 2 && (marker == 0xC4 || marker == 0xCC || marker == 0xDB);  // no table in it
      scan = marker == 0xDA || (scan && silent);
      at += 2 + length;
      if (at > place) return false;  // cannot be: libjpeg reads a header whole
    }
  }
  return scan;
}

bool harmless(j_decompress_ptr jpeg, const Court& court) {
  // At its end libjpeg makes up a marker in a buffer of its own.
  const uint8_t *first = court.bytes->data(), *next = jpeg->src->next_input_byte;
  const bool real = std::less<>()(first, next) && !std::less<>()(first + court.bytes->size(), next);
  const size_t place = real ? next - first - 1 : court.bytes->size();
  switch (jpeg->err->msg_code) {
    case JWRN_ADOBE_XFORM:
    case JWRN_JFIF_MAJOR:
    case JWRN_NOT_SEQUENTIAL:
      return true;
    case JWRN_EXTRANEOUS_DATA:
      return (jpeg->output_height > 0 && jpeg->output_scanline == jpeg->output_height) ||
             !inside_scan(*court.bytes, place);
    default:
      return false;
  }
}

void damaged(j_common_ptr jpeg) {
  Judgement& found = *reinterpret_cast<Court*>(jpeg->err)->found;
  if (!found.reason.empty()) return;
  char text[JMSG_LENGTH_MAX];
  jpeg->err->format_message(jpeg, text);
  found.reason = text;
  found.sound_rows = found.rows;
}

void on_error(j_common_ptr jpeg) {
  damaged(jpeg);
  longjmp(reinterpret_cast<Court*>(jpeg->err)->escape, 1);
}

void on_message(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  auto* court = reinterpret_cast<Court*>(jpeg->err);
  if (harmless(reinterpret_cast<j_decompress_ptr>(jpeg), *court)) {
    ++court->found->harmless;
  } else {
    damaged(jpeg);
  }
}

void on_progress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number > 100) on_error(jpeg);
}

void to_rgb(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int i = 0; i < 3 * width; ++i) {
    const int white = cmyk[i / 3 * 4 + 3], product = (255 - cmyk[i / 3 * 4 + i % 3]) * white + 128;
    rgb[i] = static_cast<uint8_t>(std::max(0, white - ((product + (product >> 8)) >> 8)));
  }
}

// Between setjmp and longjmp: nothing here has a destructor.
void decode(jpeg_decompress_struct* jpeg, Judgement* found, uint8_t* row) {
  jpeg->out_color_space = jpeg->num_components == 4 ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(jpeg);
  for (; found->rows < found->height; ++found->rows) {
    jpeg_read_scanlines(jpeg, &row, 1);
    uint8_t* out = &found->pixels[size_t{3} * found->width * found->rows];
    if (jpeg->num_components == 4) {
      to_rgb(row, found->width, out);
    } else {
      std::copy_n(row, 3 * found->width, out);
    }
  }
  jpeg_finish_decompress(jpeg);
}

}  // namespace

Judgement judge(const Bytes& bytes) {
  Judgement found;
  Court court;
  court.bytes = &bytes;
  court.found = &found;
  jpeg_decompress_struct jpeg{};
  jpeg.err = jpeg_std_error(&court.errors);
  court.errors.error_exit = on_error;
  court.errors.emit_message = on_message;
  jpeg_progress_mgr progress{};
  progress.progress_monitor = on_progress;
  Bytes row;
  if (setjmp(court.escape) == 0) {
    jpeg_create_decompress(&jpeg);
    jpeg.mem->max_memory_to_use = 256L << 20;
    jpeg.progress = &progress;
    jpeg_mem_src(&jpeg, bytes.data(), bytes.size());
    jpeg_read_header(&jpeg, TRUE);
    const int count = jpeg.num_components;
    // libjpeg-turbo 3 opens files of 12 bits a sample, which have a function of their own to read them.
    found.header = (count == 1 || count == 3 || count == 4) && jpeg.data_precision == 8;
    found.height = static_cast<int>(jpeg.image_height);
    found.width = static_cast<int>(jpeg.image_width);
    if (found.header && int64_t{found.height} * found.width <= kJudgedPixels) {
      found.pixels.resize(size_t{3} * found.height * found.width);
      row.resize(size_t{4} * found.width);
      decode(&jpeg, &found, row.data());
      found.complete = true;
      found.sound = found.reason.empty();
    }
  }
  if (found.reason.empty()) found.sound_rows = found.rows;
  jpeg_destroy_decompress(&jpeg);
  return found;
}
