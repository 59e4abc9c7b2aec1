// SPDX-License-Identifier: Apache-2.0
#include "image/entry_points.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/crc32c.h"

namespace fkdx {
namespace {

constexpr size_t kHeadBytes = 15;  // before the orders of the components
constexpr int kMostZeros = 24;     // before a number
constexpr int kMostBits = 32;      // of a number with its leading one
constexpr int kMostOrder = 24;
constexpr int kFields = 1 + EntryPoint::kComponents;  // the way from point to point, and the predictors'
constexpr uint64_t kUncodable = uint64_t{1} << 40;

template <typename T>
T number_at(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

int bit_length(uint64_t value) { return value == 0 ? 0 : 64 - __builtin_clzll(value); }

class BitWriter {
 public:
  void write(int order, uint32_t value) {
    const uint64_t number = uint64_t{value} + (uint64_t{1} << order);
    const int length = bit_length(number);
    for (int bit = 2 * length - order - 2; bit >= 0; --bit) put(number >> bit & 1);
  }

  std::vector<uint8_t> bytes;

 private:
  void put(int bit) {
    if (count_++ % 8 == 0) bytes.push_back(0);
    bytes.back() = static_cast<uint8_t>(bytes.back() | bit << (7 - (count_ - 1) % 8));
  }

  size_t count_ = 0;
};

uint32_t zigzag(int64_t value) { return static_cast<uint32_t>(value < 0 ? -2 * value - 1 : 2 * value); }
int64_t signed_of(uint32_t value) { return value % 2 ? -int64_t{value / 2} - 1 : int64_t{value / 2}; }

// The point that foretells point i: the one above it, in the first row the one before it.
size_t model_of(size_t i, uint32_t per_row) { return i >= per_row ? i - per_row : i - 1; }

// Bits from the point before to point i.
int64_t way_to(const std::vector<EntryPoint>& points, size_t i) {
  return i == 0 ? 0 : static_cast<int64_t>(points[i].position() - points[i - 1].position());
}

// Every step-th state of a row, and the start of the scan.
std::vector<EntryPoint> grid_of(const ScanFacts& scan, const std::vector<EntryPoint>& states, uint32_t step) {
  std::vector<EntryPoint> points{{scan.begin, 0, {}}};
  for (uint32_t unit = 1; unit < scan.units; ++unit) {
    if (unit % scan.columns % step == 0) points.push_back(states[unit - 1]);
  }
  return points;
}

// What is coded of a point: how its way and its predictors differ from those of its model.
using Numbers = std::array<uint32_t, kFields>;

std::vector<Numbers> differences(const std::vector<EntryPoint>& points, const ScanFacts& scan,
                                 uint32_t step) {
  const uint32_t per_row = (scan.columns + step - 1) / step;
  std::vector<Numbers> all;
  for (size_t i = 1; i < points.size(); ++i) {
    const size_t model = model_of(i, per_row);
    Numbers numbers{zigzag(way_to(points, i) - way_to(points, model))};
    for (int c = 0; c < scan.components; ++c) numbers[1 + c] = zigzag(points[i].dc[c] - points[model].dc[c]);
    all.push_back(numbers);
  }
  return all;
}

// Bits that a field takes in all points.
uint64_t cost(const std::vector<Numbers>& all, int field, int order) {
  uint64_t bits = 0;
  for (const Numbers& numbers : all) {
    const int length = bit_length(uint64_t{numbers[field]} + (uint64_t{1} << order));
    if (length > kMostBits || length - order - 1 > kMostZeros) return kUncodable;
    bits += 2 * length - order - 1;
  }
  return bits;
}

}  // namespace

// Exponential Golomb codes: value + 2^order in binary, behind as many zeros as it is longer than order + 1.
class EntryPoints::BitReader {
 public:
  // Eight bytes behind `size` can be read too.
  BitReader(const uint8_t* bytes, size_t size) : bytes_(bytes), bits_(8 * size) {}

  // False: no code, or beyond the end.
  bool read(int order, uint32_t* value) {
    if (at_ >= bits_) return false;
    const uint64_t window = __builtin_bswap64(number_at<uint64_t>(bytes_ + at_ / 8)) << at_ % 8;
    const int zeros = window == 0 ? 64 : __builtin_clzll(window);
    const int length = zeros + order + 1;
    if (zeros > kMostZeros || length > kMostBits) return false;
    *value = static_cast<uint32_t>((window << zeros) >> (64 - length)) - (1u << order);
    at_ += zeros + length;
    return true;
  }

  // Whether all was read but zeros that fill up the last byte.
  bool at_end() const {
    return at_ <= bits_ && bits_ - at_ < 8 && (at_ % 8 == 0 || uint8_t(bytes_[at_ / 8] << at_ % 8) == 0);
  }

 private:
  const uint8_t* bytes_;
  size_t bits_;
  size_t at_ = 0;
};

bool EntryPoints::fit(CodedEntryPoints coded, const uint8_t* image, size_t size) {
  return coded.size > kHeadBytes &&
         crc32c(0, coded.data + 4, coded.size - 4) == number_at<uint32_t>(coded.data) &&
         number_at<uint32_t>(coded.data + 8) == size &&
         number_at<uint32_t>(coded.data + 4) == crc32c(0, image, size);
}

bool EntryPoints::read(CodedEntryPoints coded, const ScanFacts& scan) {
  const size_t head = kHeadBytes + scan.components;
  if (coded.size < head || scan.components > EntryPoint::kComponents || scan.units == 0) return false;
  columns_ = scan.columns;
  step_ = number_at<uint16_t>(coded.data + 12);
  if (step_ == 0) return false;
  per_row_ = (columns_ + step_ - 1) / step_;
  const uint8_t* orders = coded.data + kHeadBytes - 1;
  if (*std::max_element(orders, orders + 1 + scan.components) > kMostOrder) return false;
  const size_t count = size_t{scan.units / columns_} * per_row_;
  if (count - 1 > 8 * (coded.size - head)) return false;
  padded_.assign(coded.data + head, coded.data + coded.size);
  padded_.resize(padded_.size() + sizeof(uint64_t));
  BitReader bits(padded_.data(), coded.size - head);
  points_.assign(1, {scan.begin, 0, {}});
  points_.reserve(count);
  while (points_.size() < count) {
    if (!append(&bits, orders, scan)) return false;
  }
  return bits.at_end();
}

bool EntryPoints::append(BitReader* bits, const uint8_t* orders, const ScanFacts& scan) {
  const size_t model = model_of(points_.size(), per_row_);
  uint32_t number;
  if (!bits->read(orders[0], &number)) return false;
  const int64_t way = way_to(points_, model) + signed_of(number);
  const uint64_t position = points_.back().position() + way;
  if (way <= 0 || position >= uint64_t{8} * scan.size) return false;
  EntryPoint point{static_cast<uint32_t>(position / 8), static_cast<uint32_t>(position % 8), {}};
  for (int c = 0; c < scan.components; ++c) {
    if (!bits->read(orders[1 + c], &number)) return false;
    const int64_t dc = points_[model].dc[c] + signed_of(number);
    if (dc < INT16_MIN || dc > INT16_MAX) return false;
    point.dc[c] = static_cast<int16_t>(dc);
  }
  points_.push_back(point);
  return true;
}

namespace {

struct Coding {
  std::vector<Numbers> numbers;
  uint8_t orders[kFields] = {};
  uint64_t bits = 0;
};

Coding coding_of(const std::vector<EntryPoint>& points, const ScanFacts& scan, uint32_t step) {
  Coding coding{differences(points, scan, step), {}, 0};
  for (int field = 0; field <= scan.components; ++field) {
    uint64_t least = kUncodable, sum = 0;
    for (const Numbers& numbers : coding.numbers) sum += numbers[field];
    const int usual = bit_length(sum / std::max<size_t>(coding.numbers.size(), 1));  // near the best order
    for (int order = std::max(usual - 4, 0); order <= std::min(usual + 1, kMostOrder); ++order) {
      const uint64_t some = cost(coding.numbers, field, order);
      if (some < least) least = some, coding.orders[field] = static_cast<uint8_t>(order);
    }
    coding.bits += least;
  }
  return coding;
}

template <typename T>
void append(std::vector<uint8_t>* bytes, T value) {
  const auto* first = reinterpret_cast<const uint8_t*>(&value);
  bytes->insert(bytes->end(), first, first + sizeof(value));
}

std::vector<uint8_t> written(const Coding& coding, const uint8_t* image, const ScanFacts& scan,
                             uint32_t step) {
  BitWriter bits;
  for (const Numbers& numbers : coding.numbers) {
    for (int field = 0; field <= scan.components; ++field) bits.write(coding.orders[field], numbers[field]);
  }
  std::vector<uint8_t> body;
  append(&body, crc32c(0, image, scan.size));
  append(&body, scan.size);
  append(&body, static_cast<uint16_t>(step));
  body.insert(body.end(), coding.orders, coding.orders + 1 + scan.components);
  body.insert(body.end(), bits.bytes.begin(), bits.bytes.end());
  std::vector<uint8_t> whole;
  append(&whole, crc32c(0, body.data(), body.size()));
  whole.insert(whole.end(), body.begin(), body.end());
  return whole;
}

}  // namespace

std::vector<uint8_t> code_entry_points(const uint8_t* image, const ScanFacts& scan,
                                       const std::vector<EntryPoint>& states, double share,
                                       uint32_t least_step) {
  const uint32_t most_step = std::min<uint32_t>(scan.columns, UINT16_MAX);
  for (uint32_t step = std::clamp(least_step, 1u, most_step);;) {
    const Coding coding = coding_of(grid_of(scan, states, step), scan, step);
    const uint64_t bytes = kHeadBytes + scan.components + (coding.bits + 7) / 8;
    if (coding.bits < kUncodable && bytes <= share * scan.size) return written(coding, image, scan, step);
    const uint32_t per_row = (scan.columns + step - 1) / step;
    if (per_row == 1) break;
    step = (scan.columns + per_row - 2) / (per_row - 1);
  }
  return {};
}

}  // namespace fkdx
