// SPDX-License-Identifier: Apache-2.0
#include "loader/work.h"

#include <sys/resource.h>

#include <chrono>
#include <cmath>

#include "base/check.h"

namespace fkdx {
namespace {

int64_t now_ns() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::steady_clock::now().time_since_epoch())
      .count();
}

// How often this thread has waited for anything; always 0 where the system does not say.
int64_t waits() {
#ifdef RUSAGE_THREAD
  struct rusage facts;
  if (::getrusage(RUSAGE_THREAD, &facts) == 0) return facts.ru_nvcsw;
#endif
  return 0;
}

std::string name_of(const Location& where) {
  return where.length < 0 ? where.path : message(where.path, " at offset ", where.offset);
}

// The current exception with the image's path in its text; its class stays.
std::exception_ptr with_path(const Location& where) {
  try {
    throw;
  } catch (const std::system_error&) {
    return std::current_exception();  // the reader has named the path
  } catch (const std::exception& error) {
    const std::string what = error.what();
    const std::string text = what.find(where.path) == std::string::npos ? what + ", " + name_of(where) : what;
    if (dynamic_cast<const ImageError*>(&error)) return std::make_exception_ptr(ImageError(text));
    if (dynamic_cast<const std::invalid_argument*>(&error)) {
      return std::make_exception_ptr(std::invalid_argument(text));
    }
    return std::make_exception_ptr(std::runtime_error(text));
  }
}

}  // namespace

void Stages::add(const Stages& other) {
  read_ns += other.read_ns;
  decode_ns += other.decode_ns;
  resize_ns += other.resize_ns;
  wait_ns += other.wait_ns;
  images += other.images;
  crops += other.crops;
  bytes += other.bytes;
  warned += other.warned;
  entered += other.entered;
  cold += other.cold;
  misfits += other.misfits;
}

uint32_t ProvedPoints::of(int64_t image) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return static_cast<size_t>(image) < units_.size() ? units_[image] : 0;
}

void ProvedPoints::raise(int64_t image, uint32_t units) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (units_.size() <= static_cast<size_t>(image)) units_.resize(image + 1);
  units_[image] = std::max(units_[image], units);
}

State Worker::process(const View& view, const Rows& rows, Image* image, Stages* spent) {
  const StageTimes before = decoder_.times();
  const int64_t start = now_ns();
  State state = State::kDone;
  try {
    const int64_t waits_before = waits();
    const std::shared_ptr<const Bytes> bytes = fetch(*image);
    spent->cold = waits() != waits_before;
    spent->read_ns = now_ns() - start;
    spent->bytes = static_cast<int64_t>(bytes->size());
    if (is_jpeg(bytes->data(), bytes->size())) {
      decode(view, rows, *bytes, image);
      image->warned = decoder_.harmless_warnings() > 0;
      spent->warned = image->warned;
      spent->entered = decoder_.entry_use() == EntryUse::kUsed;
      spent->misfits = decoder_.entry_use() == EntryUse::kMisfit;
    } else {
      image->encoded = bytes == buffer_ ? std::make_shared<Bytes>(*bytes) : bytes;
      state = State::kForeign;
    }
  } catch (...) {
    image->error = with_path(image->where);
    state = State::kFailed;
  }
  spent->decode_ns = static_cast<int64_t>(decoder_.times().decode - before.decode);
  spent->resize_ns = static_cast<int64_t>(decoder_.times().resize - before.resize);
  spent->images = 1;
  spent->crops = image->count;
  return state;
}

std::shared_ptr<const Bytes> Worker::fetch(const Image& image) {
  if (image.held) {
    check<ImageError>(!image.held->empty(), "read: empty image");
    return image.held;
  }
  if (auto cached = cache_->find(image.index)) return cached;
  reader_->read(image.where, buffer_.get());
  cache_->keep(image.index, *buffer_);
  return buffer_;
}

void Worker::decode(const View& view, const Rows& rows, const Bytes& bytes, Image* image) {
  CodedEntryPoints entries = image->entries;
  if (entries.size == 0) return decode_from({}, view, rows, bytes, image);
  const uint32_t before = proved_->of(image->index);
  uint32_t proved = before;
  entries.proved = &proved;
  decode_from(entries, view, rows, bytes, image);
  if (proved > before) proved_->raise(image->index, proved);
}

void Worker::decode_from(CodedEntryPoints entries, const View& view, const Rows& rows, const Bytes& bytes,
                         Image* image) {
  Box* boxes = rows.boxes + image->first;
  uint8_t* flips = rows.flips + image->first;
  uint8_t* out = rows.images + static_cast<size_t>(image->first) * view.size * view.size * 3;
  image->size = decoder_.read_size(bytes.data(), bytes.size());
  const ImageSize got = image->size, expected = image->expected;
  check<ImageError>(expected.height == 0 || (got.height == expected.height && got.width == expected.width),
                    "loader: image of another size than its labels, got ", got.height, " rows and ",
                    got.width, " columns, expected ", expected.height, " and ", expected.width);
  switch (view.box_rule) {
    case BoxRule::kPixels:
      break;
    case BoxRule::kRatios:
      for (int i = 0; i < image->count; ++i) {
        boxes[i] = pixel_box(rows.ratios + 4 * (image->first + i), image->size);
      }
      break;
    case BoxRule::kRandom:
      view.random->draw(image->stream, image->size, image->first_crop, image->count, boxes, flips);
      break;
    case BoxRule::kCentre:
      decoder_.decode_validation(
          bytes.data(), bytes.size(),
          {view.resize, view.size, view.interpolation, view.resample, view.strictness, entries}, out);
      return;
  }
  const CropSpec spec{boxes,         flips,           image->count, view.size, view.interpolation,
                      view.resample, view.strictness, entries};
  decoder_.decode_crops(bytes.data(), bytes.size(), spec, out);
}

Box pixel_box(const float ratios[4], ImageSize image) {
  const auto edge = [](double x) { return static_cast<int32_t>(std::nearbyint(x)); };
  const double top = static_cast<double>(ratios[0]) * image.height;
  const double left = static_cast<double>(ratios[1]) * image.width;
  const double bottom = top + static_cast<double>(ratios[2]) * image.height;
  const double right = left + static_cast<double>(ratios[3]) * image.width;
  return {edge(top), edge(left), edge(bottom) - edge(top), edge(right) - edge(left)};
}

}  // namespace fkdx
