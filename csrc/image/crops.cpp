// SPDX-License-Identifier: Apache-2.0
#include "image/crops.h"

#include <algorithm>
#include <chrono>
#include <cstring>

#include "base/check.h"
#include "image/jpeg.h"
#include "image/resample.h"

namespace fkdx {
namespace {

constexpr Strictness kLenient{/*allow_warnings=*/true, /*whole_file=*/false};

uint64_t now() {
  using namespace std::chrono;
  return duration_cast<nanoseconds>(steady_clock::now().time_since_epoch()).count();
}

// Adds the time of a scope to a counter.
class Stopwatch {
 public:
  explicit Stopwatch(uint64_t* total) : total_(total), begin_(now()) {}
  ~Stopwatch() { *total_ += now() - begin_; }

 private:
  uint64_t* total_;
  uint64_t begin_;
};

bool inside(const Box& box, const ImageSize& image) {
  return box.top >= 0 && box.left >= 0 && box.height > 0 && box.width > 0 &&
         int64_t{box.top} + box.height <= image.height && int64_t{box.left} + box.width <= image.width;
}

// The smallest box around all boxes, each of which has to lie inside the image.
Box union_of(const Box* boxes, int count, const ImageSize& image) {
  int top = image.height, left = image.width, bottom = 0, right = 0;
  for (int i = 0; i < count; ++i) {
    const Box& box = boxes[i];
    check<ImageError>(inside(box, image), "crops: box ", i, ", got (top ", box.top, ", left ", box.left,
                      ", height ", box.height, ", width ", box.width, "), expected inside the image of ",
                      image.height, " rows and ", image.width, " columns");
    top = std::min(top, box.top);
    left = std::min(left, box.left);
    bottom = std::max(bottom, box.top + box.height);
    right = std::max(right, box.left + box.width);
  }
  return {top, left, bottom - top, right - left};
}

// Python's round(a / 2), halves to even, as torchvision's CenterCrop rounds.
int half_to_even(int a) { return a / 2 + (a % 2 != 0 && (a / 2) % 2 != 0); }

// One axis of the validation crop: what is resized, and where in the output it goes.
struct CentreAxis {
  Axis axis;
  int offset;
};

CentreAxis centre_axis(int in, int shorter, const ValidationSpec& spec) {
  const int out = static_cast<int>(int64_t{spec.resize} * in / shorter);
  if (out >= spec.size) return {{in, out, half_to_even(out - spec.size), spec.size}, 0};
  return {{in, out, 0, out}, (spec.size - out) / 2};
}

}  // namespace

bool is_jpeg(const uint8_t* data, size_t size) {
  return size >= 3 && data[0] == 0xFF && data[1] == 0xD8 && data[2] == 0xFF;
}

struct CropDecoder::State {
  JpegReader jpeg;
  Resampler resampler;
  Buffer<uint8_t> copy;
  StageTimes times;

  // `pixels` is the region that starts at (top, left) of the image.
  void resize_crops(const Pixels& pixels, int top, int left, const CropSpec& spec, uint8_t* out) {
    const Stopwatch watch(&times.resize);
    const ptrdiff_t row = ptrdiff_t{3} * spec.size;
    for (int i = 0; i < spec.count; ++i, out += row * spec.size) {
      const Box& box = spec.boxes[i];
      const Box used =
          resampler.plan({box.height, spec.size, 0, spec.size}, {box.width, spec.size, 0, spec.size},
                         spec.flips[i] != 0, spec.interpolation, spec.rule);
      const ptrdiff_t y = box.top + used.top - top, x = box.left + used.left - left;
      resampler.run(pixels.data + y * pixels.stride + 3 * x, pixels.stride, out, row);
    }
  }

  // read(box) gives the pixels of a box of the image.
  template <typename Read>
  void centre_crop(const ImageSize& image, const ValidationSpec& spec, Read read, uint8_t* out) {
    const int shorter = std::min(image.height, image.width);
    const CentreAxis rows = centre_axis(image.height, shorter, spec);
    const CentreAxis columns = centre_axis(image.width, shorter, spec);
    const Box region = resampler.plan(rows.axis, columns.axis, false, spec.interpolation, spec.rule);
    const Pixels pixels = read(region);
    const Stopwatch watch(&times.resize);
    const ptrdiff_t row = ptrdiff_t{3} * spec.size;
    if (rows.axis.count < spec.size || columns.axis.count < spec.size) std::memset(out, 0, row * spec.size);
    resampler.run(pixels.data, pixels.stride, out + rows.offset * row + 3 * columns.offset, row);
  }

  Pixels read(const Box& region, const Box* boxes, int count, CodedEntryPoints entries) {
    const Stopwatch watch(&times.decode);
    return jpeg.read(region, boxes, count, entries);
  }

  // A copy with room for over-reads.
  Pixels padded(const Pixels& image, const Box& region) {
    const ptrdiff_t row = ptrdiff_t{3} * region.width;
    uint8_t* data = copy.reserve(row * region.height + kOverread);
    for (int y = 0; y < region.height; ++y) {
      std::memcpy(data + y * row, image.data + (region.top + y) * image.stride + 3 * region.left, row);
    }
    return {data, {region.height, region.width}, row};
  }
};

CropDecoder::CropDecoder() : state_(std::make_unique<State>()) {}
CropDecoder::~CropDecoder() = default;

ImageSize CropDecoder::read_size(const uint8_t* data, size_t size) {
  return state_->jpeg.open(data, size, kLenient);
}

void CropDecoder::decode_crops(const uint8_t* data, size_t size, const CropSpec& spec, uint8_t* out) {
  const Box region = union_of(spec.boxes, spec.count, state_->jpeg.open(data, size, spec.strictness));
  if (spec.count == 0) return;
  const Pixels pixels = state_->read(region, spec.boxes, spec.count, spec.entries);
  state_->resize_crops(pixels, region.top, region.left, spec, out);
}

void CropDecoder::decode_validation(const uint8_t* data, size_t size, const ValidationSpec& spec,
                                    uint8_t* out) {
  const ImageSize image = state_->jpeg.open(data, size, spec.strictness);
  const auto read = [&](const Box& region) { return state_->read(region, &region, 1, spec.entries); };
  state_->centre_crop(image, spec, read, out);
}

void CropDecoder::resize_crops(const Pixels& image, const CropSpec& spec, uint8_t* out) {
  const Box region = union_of(spec.boxes, spec.count, image.size);
  if (spec.count > 0) state_->resize_crops(state_->padded(image, region), region.top, region.left, spec, out);
}

void CropDecoder::resize_validation(const Pixels& image, const ValidationSpec& spec, uint8_t* out) {
  state_->centre_crop(
      image.size, spec, [&](const Box& region) { return state_->padded(image, region); }, out);
}

void CropDecoder::decode_box(const uint8_t* data, size_t size, const Box& box, Strictness strictness,
                             bool plain, uint8_t* out, CodedEntryPoints entries) {
  union_of(&box, 1, state_->jpeg.open(data, size, strictness));
  const Pixels pixels = plain ? state_->jpeg.read_plain(box) : state_->read(box, &box, 1, entries);
  const ptrdiff_t row = ptrdiff_t{3} * box.width;
  for (int y = 0; y < box.height; ++y) std::memcpy(out + y * row, pixels.data + y * pixels.stride, row);
}

void CropDecoder::decode_region_only(const uint8_t* data, size_t size, const CropSpec& spec) {
  const Box region = union_of(spec.boxes, spec.count, state_->jpeg.open(data, size, spec.strictness));
  if (spec.count > 0) state_->jpeg.read_plain(region);
}

void CropDecoder::decode_coefficients_only(const uint8_t* data, size_t size) {
  state_->jpeg.open(data, size, kLenient);
  state_->jpeg.read_coefficients();
}

void CropDecoder::read_units_only(const uint8_t* data, size_t size, const CropSpec& spec) {
  union_of(spec.boxes, spec.count, state_->jpeg.open(data, size, spec.strictness));
  state_->jpeg.read_units(spec.boxes, spec.count, spec.entries);
}

std::vector<uint8_t> CropDecoder::make_entry_points(const uint8_t* data, size_t size, double share,
                                                    uint32_t least_step) {
  try {
    state_->jpeg.open(data, size, {/*allow_warnings=*/false, /*whole_file=*/true});
    return state_->jpeg.make_entry_points(share, least_step);
  } catch (const ImageError&) {
    return {};
  }
}

EntryUse CropDecoder::entry_use() const { return state_->jpeg.entry_use(); }

const StageTimes& CropDecoder::times() const { return state_->times; }

int CropDecoder::harmless_warnings() const { return state_->jpeg.harmless_warnings(); }

}  // namespace fkdx
