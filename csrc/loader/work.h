// SPDX-License-Identifier: Apache-2.0
// The work of one batch: for every image, which rows of the caller's arrays it fills and how.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <vector>

#include "image/crops.h"
#include "image/random_boxes.h"
#include "loader/reader.h"

namespace fkdx {

// Where the boxes of a batch come from. All but kPixels are resolved into pixels once the image's size is
// known.
enum class BoxRule {
  kPixels,  // as given
  kRatios,  // shares of the image (top, left, height, width), every edge rounded as PIL rounds it
  kRandom,  // drawn on the fly
  kCentre,  // resize the shorter side, then cut the centre: validation
};

// How all images of a batch are looked at.
struct View {
  int size = 224;
  Interpolation interpolation = Interpolation::kBilinear;
  ResampleRule resample = ResampleRule::kPillow12;
  Strictness strictness = {};
  BoxRule box_rule = BoxRule::kPixels;
  int resize = 256;                           // kCentre: the shorter side
  std::shared_ptr<const RandomCrops> random;  // kRandom
};

// The caller's arrays, one row a crop. The caller keeps them alive until the batch has finished or was
// cancelled.
struct Rows {
  uint8_t* images;      // (B, size, size, 3), written
  Box* boxes;           // read for kPixels, written for kRatios and kRandom
  uint8_t* flips;       // read, but written for kRandom
  const float* ratios;  // (B, 4), kRatios only
};

enum class State : uint8_t { kWaiting, kDone, kForeign, kFailed, kCancelled };

// One image of the batch: rows [first, first + count).
struct Image {
  Location where;                     // names it in errors even where nothing is read from there
  std::shared_ptr<const Bytes> held;  // its encoded bytes, where the caller has read them already
  int64_t index = 0;                  // names it in the cache
  ImageSize expected{0, 0};           // what its boxes were made for; zero where nobody knows
  CodedEntryPoints entries;           // the caller keeps their memory as long as that of the rows
  int first = 0;
  int count = 0;
  uint64_t stream = 0;     // kRandom
  int64_t first_crop = 0;  // kRandom

  State state = State::kWaiting;
  ImageSize size{0, 0};
  bool warned = false;                   // libjpeg said something that changes no pixel
  std::exception_ptr error;              // kFailed
  std::shared_ptr<const Bytes> encoded;  // kForeign: not a JPEG, left to the caller
};

// Nanoseconds and counts, summed over the threads of a pool.
struct Stages {
  int64_t read_ns = 0, decode_ns = 0, resize_ns = 0, wait_ns = 0;
  int64_t images = 0, crops = 0, bytes = 0;
  int64_t warned = 0;   // images of which libjpeg said something that changes no pixel
  int64_t entered = 0;  // images that were read from entry points
  int64_t cold = 0;     // images whose bytes a thread had to wait for
  int64_t misfits = 0;  // images whose entry points were not theirs, so that they were read without
  void add(const Stages& other);
};

// How far the entry points of each image have been proved, see CodedEntryPoints. Thread-safe.
class ProvedPoints {
 public:
  uint32_t of(int64_t image) const;
  void raise(int64_t image, uint32_t units);

 private:
  mutable std::mutex mutex_;
  std::vector<uint32_t> units_;  // by image, up to the last one that has any
};

// What one thread needs to do such work. Not thread-safe, but what it is given may be shared.
class Worker {
 public:
  Worker(Reader* reader, Cache* cache, ProvedPoints* proved)
      : reader_(reader), cache_(cache), proved_(proved) {}

  // Fills the rows of the image, or sets its error or its encoded bytes; never throws. The caller sets the
  // state.
  State process(const View& view, const Rows& rows, Image* image, Stages* spent);

 private:
  std::shared_ptr<const Bytes> fetch(const Image& image);
  void decode(const View& view, const Rows& rows, const Bytes& bytes, Image* image);
  void decode_from(CodedEntryPoints entries, const View& view, const Rows& rows, const Bytes& bytes,
                   Image* image);

  Reader* reader_;
  Cache* cache_;
  ProvedPoints* proved_;
  std::shared_ptr<Bytes> buffer_ = std::make_shared<Bytes>();
  CropDecoder decoder_;
};

// Shares of an image to pixels: each edge on its own, half to even, as PIL.Image.crop does.
Box pixel_box(const float ratios[4], ImageSize image);

}  // namespace fkdx
