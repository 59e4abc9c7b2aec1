// SPDX-License-Identifier: Apache-2.0
#include "image/jpeg.h"

#include <jerror.h>

#include <algorithm>
#include <cstring>

#include "base/check.h"
#include "image/jpeg_internals.h"

namespace fkdx {
namespace {

constexpr uint64_t kMaxPixels =
    178956970;  // twice Pillow's MAX_IMAGE_PIXELS, from where on Pillow refuses too
constexpr int kMaxScans = 100;
constexpr long kMaxMemory = 256L << 20;
constexpr int kMarkerTrace = 1;  // the level at which libjpeg tells of each marker

// Fancy upsampling mixes a pixel with neighbours up to two pixels away, and treats the edges of what it
// decodes as edges of the image. So much more is decoded at each side.
constexpr int kMargin = 4;

// libjpeg-turbo's conversion of colours stores around the cache where a row starts at a multiple of 32 bytes,
// and the resize would have to fetch the pixels from memory again.
constexpr size_t kMisalign = 16;

// Pixels around a box from whose units its own are made.
constexpr int kContext = 2;

// Pillow's CMYK (which Adobe stores inverted) to RGB.
void convert_cmyk(const uint8_t* cmyk, int width, uint8_t* rgb) {
  for (int x = 0; x < width; ++x, cmyk += 4, rgb += 3) {
    const int white = cmyk[3];
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - cmyk[c]) * white + 128;
      rgb[c] = static_cast<uint8_t>(std::max(0, white - ((product + (product >> 8)) >> 8)));
    }
  }
}

}  // namespace

JpegReader::JpegReader() {
  jpeg_.err = jpeg_std_error(&errors_.base);
  errors_.base.error_exit = on_error;
  errors_.base.emit_message = on_message;
  errors_.base.output_message = [](j_common_ptr) {};
  progress_.progress_monitor = on_progress;
  guarded([this] { create(); });
}

void JpegReader::create() {
  jpeg_create_decompress(&jpeg_);
  jpeg_.mem->max_memory_to_use = kMaxMemory;
  jpeg_.progress = &progress_;
  jpeg_.client_data = this;
}

JpegReader::~JpegReader() { jpeg_destroy_decompress(&jpeg_); }

void JpegReader::on_error(j_common_ptr jpeg) {
  auto* errors = reinterpret_cast<Errors*>(jpeg->err);
  if (errors->base.msg_code == JERR_NO_BACKING_STORE) {
    std::snprintf(errors->text, sizeof(errors->text), "decoding needs more than %ld MiB inside libjpeg",
                  kMaxMemory >> 20);
  } else {
    errors->base.format_message(jpeg, errors->text);
  }
  longjmp(errors->escape, kFailed);
}

void JpegReader::on_message(j_common_ptr jpeg, int level) {
  auto* errors = reinterpret_cast<Errors*>(jpeg->err);
  const int code = errors->base.msg_code;
  if (level == kMarkerTrace && code != JTRC_PARMLESS_MARKER && code != JTRC_UNKNOWN_IDS) {
    errors->in_scan = code == JTRC_SOS_PARAMS;
  }
  if (level >= 0) return;
  if (is_harmless(reinterpret_cast<j_decompress_ptr>(jpeg))) {
    ++errors->harmless;
  } else if (!errors->allow_warnings) {
    on_error(jpeg);
  }
}

// Whether a warning is about something that every decoder reads over, so that it can change no pixel.
bool JpegReader::is_harmless(j_decompress_ptr jpeg) {
  const auto* errors = reinterpret_cast<const Errors*>(jpeg->err);
  switch (errors->base.msg_code) {
    case JWRN_ADOBE_XFORM:     // an unknown transform of colours: the usual one is taken
    case JWRN_JFIF_MAJOR:      // a version other than 1.x
    case JWRN_NOT_SEQUENTIAL:  // parameters that mean nothing in a sequential scan
      return true;
    case JWRN_EXTRANEOUS_DATA:  // bytes between markers, or behind the last pixel
      return !errors->in_scan || jpeg->output_scanline >= jpeg->output_height;
    default:
      return false;
  }
}

void JpegReader::on_progress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= kMaxScans) return;
  auto* errors = reinterpret_cast<Errors*>(jpeg->err);
  std::snprintf(errors->text, sizeof(errors->text), "more than %d scans", kMaxScans);
  longjmp(errors->escape, kFailed);
}

// Puts our Huffman decoder, and our transform, in the place of libjpeg-turbo's where they can do the work.
void JpegReader::take_over() {
  took_over_ = internals_fit() && huffman_.start(jpeg_);
  if (!took_over_) return;
  replace_decode_mcu(&jpeg_, on_unit);
  if (unit_rows_.start(jpeg_, &huffman_)) replace_decompress_row(&jpeg_, on_row);
  for (int i = 0; i < box_count_; ++i) {
    const Box& box = boxes_[i];
    huffman_.want(std::max(box.top - kContext, 0), std::max(box.left - kContext, 0),
                  box.top + box.height + kContext, box.left + box.width + kContext);
  }
  if (entries_.size == 0 || !huffman_.can_save()) return;
  const bool fit = EntryPoints::fit(entries_, data_, size_) && points_.read(entries_, huffman_.facts(data_));
  entry_use_ = fit ? EntryUse::kUsed : EntryUse::kMisfit;
  if (fit) huffman_.enter_at(&points_, data_, entries_.proved ? *entries_.proved : UINT32_MAX);
}

boolean JpegReader::on_unit(j_decompress_ptr jpeg, JBLOCKROW* blocks) {
  auto* reader = static_cast<JpegReader*>(jpeg->client_data);
  if (!reader->huffman_.decode_unit(blocks)) longjmp(reader->errors_.escape, kGaveUp);
  return TRUE;
}

int JpegReader::on_row(j_decompress_ptr jpeg, JSAMPIMAGE planes) {
  auto* reader = static_cast<JpegReader*>(jpeg->client_data);
  if (!reader->unit_rows_.read(*jpeg, planes)) longjmp(reader->errors_.escape, kGaveUp);
  return end_row(jpeg);
}

// Runs a step of C code; false if the Huffman decoder gave up. Nothing with a destructor may live in a step:
// errors leave it by longjmp.
template <typename Step>
bool JpegReader::guarded(Step step) {
  const int escape = setjmp(errors_.escape);
  if (escape == 0) {
    step();
    return true;
  }
  jpeg_abort(reinterpret_cast<j_common_ptr>(&jpeg_));
  check<ImageError>(escape == kGaveUp, "jpeg: ", errors_.text);
  return false;
}

ImageSize JpegReader::open(const uint8_t* data, size_t size, Strictness strictness) {
  check<ImageError>(size > 0, "jpeg: empty file");
  errors_.allow_warnings = strictness.allow_warnings;
  entry_use_ = EntryUse::kNone;
  whole_file_ = strictness.whole_file;
  data_ = data;
  size_ = size;
  read_header();
  check_header();
  return {static_cast<int>(jpeg_.image_height), static_cast<int>(jpeg_.image_width)};
}

// A fresh libjpeg object for every image: a used one keeps its tables, and a file that lacks one would be
// decoded by its neighbour's.
void JpegReader::read_header() {
  errors_.in_scan = false;
  errors_.harmless = 0;
  guarded([this] {
    jpeg_destroy_decompress(&jpeg_);
    create();
    jpeg_mem_src(&jpeg_, data_, size_);
    jpeg_read_header(&jpeg_, TRUE);
  });
}

void JpegReader::check_header() {
  check<ImageError>(uint64_t{jpeg_.image_height} * jpeg_.image_width <= kMaxPixels, "jpeg: size, got ",
                    jpeg_.image_width, " x ", jpeg_.image_height, ", expected at most ", kMaxPixels,
                    " pixels");
  check<ImageError>(jpeg_.data_precision == 8, "jpeg: bits of a sample, got ", jpeg_.data_precision,
                    ", expected 8");
  const int components = jpeg_.num_components;
  check<ImageError>(components == 1 || components == 3 || components == 4, "jpeg: components, got ",
                    components, ", expected 1, 3 or 4");
}

void JpegReader::set_wanted(const Box* boxes, int count, CodedEntryPoints entries) {
  boxes_ = boxes;
  box_count_ = count;
  entries_ = entries;
}

Pixels JpegReader::read(const Box& region, const Box* boxes, int count, CodedEntryPoints entries) {
  Pixels pixels;
  set_wanted(boxes, count, whole_file_ ? CodedEntryPoints{} : entries);
  if (decode(region, /*fast=*/true, &pixels)) {
    if (entry_use_ == EntryUse::kUsed && entries_.proved) *entries_.proved = huffman_.proved();
    return pixels;
  }
  if (entry_use_ == EntryUse::kUsed) {
    entry_use_ = EntryUse::kMisfit;
    entries_ = {};
    read_header();
    if (decode(region, /*fast=*/true, &pixels)) return pixels;
  }
  read_header();
  return read_plain(region);
}

Pixels JpegReader::read_plain(const Box& region) {
  Pixels pixels;
  decode(region, /*fast=*/false, &pixels);
  return pixels;
}

std::vector<uint8_t> JpegReader::make_entry_points(double share, uint32_t least_step) {
  std::vector<EntryPoint> states;
  bool whole = false;
  ScanFacts scan{};
  set_wanted(nullptr, 0, {});
  guarded([this, &whole, &scan, &states] {
    jpeg_start_decompress(&jpeg_);
    if (jpeg_has_multiple_scans(&jpeg_) || size_ > UINT32_MAX) return;
    take_over();
    if (!took_over_) return;
    scan = huffman_.facts(data_);
    whole = huffman_.walk(data_, &states);
  });
  jpeg_abort_decompress(&jpeg_);
  if (!whole) return {};
  return code_entry_points(data_, scan, states, share, least_step);
}

// `fast` tries our Huffman decoder; false if it gave up.
bool JpegReader::decode(const Box& region, bool fast, Pixels* pixels) {
  const bool cmyk = jpeg_.num_components == 4;
  took_over_ = false;
  JDIMENSION left = static_cast<JDIMENSION>(std::max(region.left - kMargin, 0));
  JDIMENSION width = std::min<JDIMENSION>(region.left + region.width + kMargin, jpeg_.image_width) - left;
  const bool started = guarded([this, cmyk, fast, &left, &width, top = static_cast<JDIMENSION>(region.top)] {
    jpeg_.out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(&jpeg_);
    if (jpeg_has_multiple_scans(&jpeg_) || (internals_fit() && is_lossless(jpeg_))) {
      left = 0;  // block smoothing looks further than the margin, and lossless images cannot be cropped
      return;
    }
    jpeg_crop_scanline(&jpeg_, &left, &width);
    if (fast) take_over();
    if (top > 0) jpeg_skip_scanlines(&jpeg_, top);
  });
  if (!started) return false;
  const ptrdiff_t stride = (ptrdiff_t{3} * jpeg_.output_width + 63) / 64 * 64;
  const int first_row = static_cast<int>(jpeg_.output_scanline);
  const int rows = region.top + region.height - first_row;
  first_pixel_ = pixels_.reserve(static_cast<size_t>(rows) * stride + kMisalign + kOverread) + kMisalign;
  uint8_t* data = first_pixel_;
  data += (region.top - first_row) * stride + 3 * (region.left - ptrdiff_t{left});
  *pixels = {data, {region.height, region.width}, stride};
  row_.reserve(size_t{4} * jpeg_.output_width);  // of RGB or CMYK
  return cmyk ? read_cmyk_rows(rows, stride) : read_rows(rows, stride);
}

bool JpegReader::read_rows(int count, ptrdiff_t stride) {
  rows_.resize(count);
  for (int y = 0; y < count; ++y) rows_[y] = first_pixel_ + y * stride;
  return guarded([this, count] {
    for (int y = 0; y < count;) y += static_cast<int>(jpeg_read_scanlines(&jpeg_, &rows_[y], count - y));
    finish();
  });
}

bool JpegReader::read_cmyk_rows(int count, ptrdiff_t stride) {
  return guarded([this, count, stride] {
    JSAMPROW row = row_.data();
    for (int y = 0; y < count; ++y) {
      jpeg_read_scanlines(&jpeg_, &row, 1);
      convert_cmyk(row, static_cast<int>(jpeg_.output_width), first_pixel_ + y * stride);
    }
    finish();
  });
}

// Reads the rest of the file where that is asked for. Several scans were read to their end before the first
// pixel.
void JpegReader::finish() {
  if (took_over_ && !(whole_file_ ? huffman_.finish() : huffman_.settle())) longjmp(errors_.escape, kGaveUp);
  if (whole_file_ && !took_over_) {
    JSAMPROW row = row_.data();
    // jpeg_skip_scanlines from within an image may read for ever.
    while (jpeg_.output_scanline < jpeg_.output_height) jpeg_read_scanlines(&jpeg_, &row, 1);
    jpeg_finish_decompress(&jpeg_);
  }
  jpeg_abort_decompress(&jpeg_);
}

void JpegReader::read_coefficients() {
  guarded([this] {
    jpeg_read_coefficients(&jpeg_);
    jpeg_abort_decompress(&jpeg_);
  });
}

void JpegReader::read_units(const Box* boxes, int count, CodedEntryPoints entries) {
  set_wanted(boxes, count, entries);
  guarded([this] {
    jpeg_start_decompress(&jpeg_);
    if (!jpeg_has_multiple_scans(&jpeg_)) take_over();
    JBLOCK unit[D_MAX_BLOCKS_IN_MCU] = {};
    JBLOCKROW blocks[D_MAX_BLOCKS_IN_MCU];
    for (int i = 0; i < D_MAX_BLOCKS_IN_MCU; ++i) blocks[i] = &unit[i];
    for (unsigned left = took_over_ ? jpeg_.MCUs_per_row * jpeg_.MCU_rows_in_scan : 0; left > 0; --left) {
      if (!huffman_.decode_unit(blocks)) break;
    }
    jpeg_abort_decompress(&jpeg_);
  });
}

}  // namespace fkdx
