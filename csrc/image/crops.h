// SPDX-License-Identifier: Apache-2.0
// Crops of one image, exactly as Pillow makes them: decode once, cut boxes, resize, flip.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace fkdx {

struct ImageSize {
  int height;
  int width;
};

// Pixels of the decoded image, EXIF orientation ignored.
struct Box {
  int32_t top;
  int32_t left;
  int32_t height;
  int32_t width;
};

enum class Interpolation { kBilinear, kBicubic };

// Pillow <= 12 resizes rows before columns; Pillow 13 columns first where the height shrinks by more than
// twice as many pixels as the width. Results differ by at most a few units of the last bit.
enum class ResampleRule { kPillow12, kPillow13 };

// What of a JPEG is refused besides what no decoder could read. Warnings of libjpeg that can change no pixel
// (an unknown JFIF version, bytes between markers) are never refused, but counted.
struct Strictness {
  bool allow_warnings = false;  // accept what libjpeg calls corrupt but decodes somehow
  bool whole_file = false;      // read on behind the boxes, so that a cut file is refused whatever the boxes
};

// Coded entry points of an image (image/entry_points.h), somebody else's memory; empty where it has none.
struct CodedEntryPoints {
  const uint8_t* data = nullptr;
  size_t size = 0;
  // Of how many units, from the start of the scan, this process has proved the points by reading up to them:
  // those alone are used, and a decode proves what it reads beyond them. Null: somebody trusts them all.
  uint32_t* proved = nullptr;
};

// What became of an image's entry points: there were none or nearly all of the data are needed, they were
// used, or they are not those of the image, which was decoded without them.
enum class EntryUse { kNone, kUsed, kMisfit };

// What to make of one image: count crops of size x size pixels.
struct CropSpec {
  const Box* boxes;
  const uint8_t* flips;  // 1: mirror left and right after the resize
  int count;
  int size;
  Interpolation interpolation = Interpolation::kBilinear;
  ResampleRule rule = ResampleRule::kPillow12;
  Strictness strictness = {};
  CodedEntryPoints entries = {};
};

// Shorter side resized to `resize`, then the centre size x size cut out, padded with black where it is too
// small: torchvision's Resize(resize) and CenterCrop(size).
struct ValidationSpec {
  int resize;
  int size;
  Interpolation interpolation = Interpolation::kBilinear;
  ResampleRule rule = ResampleRule::kPillow12;
  Strictness strictness = {};
  CodedEntryPoints entries = {};
};

// Packed 8-bit RGB, rows `stride` bytes apart.
struct Pixels {
  const uint8_t* data;
  ImageSize size;
  ptrdiff_t stride;
};

// Nanoseconds spent since the decoder was made.
struct StageTimes {
  uint64_t decode = 0;
  uint64_t resize = 0;
};

// Whether the bytes start as a JPEG file does. Everything else is Pillow's to decode.
bool is_jpeg(const uint8_t* data, size_t size);

// One a thread: it keeps libjpeg's state and its buffers from image to image.
//
// Bad images and boxes outside the image throw ImageError; its text has the reason, the caller adds the path.
// Refused before any pixel is decoded: more than 178,956,970 pixels (where Pillow refuses), more than 100
// scans, more than 256 MiB inside libjpeg. See docs/images.md.
class CropDecoder {
 public:
  CropDecoder();
  ~CropDecoder();
  CropDecoder(const CropDecoder&) = delete;
  CropDecoder& operator=(const CropDecoder&) = delete;

  // Reads the header only.
  ImageSize read_size(const uint8_t* data, size_t size);

  // Decodes the rows and columns that the boxes need; out is [count, size, size, 3].
  void decode_crops(const uint8_t* data, size_t size, const CropSpec& spec, uint8_t* out);

  // out is [size, size, 3].
  void decode_validation(const uint8_t* data, size_t size, const ValidationSpec& spec, uint8_t* out);

  // The same for pixels that are decoded already.
  void resize_crops(const Pixels& image, const CropSpec& spec, uint8_t* out);
  void resize_validation(const Pixels& image, const ValidationSpec& spec, uint8_t* out);

  // Pixels of a box as they are; out is [box.height, box.width, 3]. `plain`: by libjpeg-turbo alone, the
  // judge.
  void decode_box(const uint8_t* data, size_t size, const Box& box, Strictness strictness, bool plain,
                  uint8_t* out, CodedEntryPoints entries = {});

  // Entry points of a sound baseline JPEG, at least least_step MCUs apart, as many as fit into `share` of its
  // bytes; empty for every other image.
  std::vector<uint8_t> make_entry_points(const uint8_t* data, size_t size, double share, uint32_t least_step);

  // What became of the entry points of the last image.
  EntryUse entry_use() const;

  // Decodes the union of the boxes by libjpeg-turbo alone and drops it, for benchmarks.
  void decode_region_only(const uint8_t* data, size_t size, const CropSpec& spec);

  // Entropy decoding alone, for benchmarks and profiles: of the whole image, or of the boxes' units (MCUs).
  void decode_coefficients_only(const uint8_t* data, size_t size);
  void read_units_only(const uint8_t* data, size_t size, const CropSpec& spec);

  const StageTimes& times() const;

  // Warnings about the last image, a JPEG, that can change no pixel.
  int harmless_warnings() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fkdx
