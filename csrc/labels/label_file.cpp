// SPDX-License-Identifier: Apache-2.0
#include "labels/label_file.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <tuple>

#include "base/check.h"
#include "base/crc32c.h"
#include "labels/key.h"

namespace fkdx {
namespace {

constexpr size_t kEntrySealed = offsetof(IndexEntry, crc);
constexpr int kSealed = 1, kInRange = 2;  // bits of known_
constexpr uint64_t kSpare = 16;           // TopkRecords may read this far behind a block

// Memory for one decoded crop.
class CropBuffer {
 public:
  explicit CropBuffer(const Layout& layout) : ids_(layout.id_count()), values_(layout.kept) {
    if (layout.ratios()) {
      arrays.ratios = ratios_;
    } else {
      arrays.boxes = boxes_;
    }
    arrays.ids = ids_.data();
    arrays.values = values_.data();
    if (layout.kind == Kind::kTopkLogits) arrays.tails = &tail_;
    if (!layout.two_views()) return;
    arrays.partners = &partner_;
    arrays.operations = &operation_;
    arrays.lambdas = &lambda_;
    arrays.mix_boxes = boxes_ + 8;
    if (layout.ratios()) {
      arrays.partner_ratios = ratios_ + 4;
    } else {
      arrays.partner_boxes = boxes_ + 4;
    }
  }
  CropArrays arrays;

 private:
  std::vector<int32_t> ids_;
  std::vector<float> values_;
  int32_t boxes_[12];
  float ratios_[8];
  float tail_, lambda_;
  uint32_t partner_;
  uint8_t operation_;
};

uint32_t key_start(const uint8_t* keys, uint64_t image) {
  uint32_t start;
  std::memcpy(&start, keys + 4 * image, 4);
  return start;
}

}  // namespace

template <typename... Parts>
void LabelFile::expect(bool ok, const Parts&... parts) const {
  if (!ok) throw FormatError(message("LabelFile: ", parts..., ", ", path()));
}

void LabelFile::refuse(uint64_t image, const std::string& what) const {
  throw FormatError(
      message("LabelFile: image ", image, " ('", printable_key(key(image)), "'): ", what, ", ", path()));
}

uint32_t seal(const void* id, const IndexEntry& entry, std::string_view key, const uint8_t* block,
              uint64_t bytes) {
  uint32_t crc = crc32c(0, id, sizeof(Preamble::id));
  crc = crc32c(crc, &entry, kEntrySealed);
  crc = crc32c(crc, key.data(), key.size());
  return crc32c(crc, block, bytes);
}

LabelFile::LabelFile(const std::string& path, Io io) : storage_(path, io) {
  const uint64_t size = storage_.size();
  expect(size >= sizeof(Preamble) + sizeof(Footer), "size, got ", size, ", expected at least ",
         sizeof(Preamble) + sizeof(Footer), " bytes; this is no label file, or the rest of one");
  expect(size <= kMaxFile, "size, got ", size, ", expected at most ", kMaxFile, " bytes");
  storage_.read(0, sizeof(Preamble), reinterpret_cast<uint8_t*>(&preamble_));
  storage_.read(size - sizeof(Footer), sizeof(Footer), reinterpret_cast<uint8_t*>(&footer_));
  expect(preamble_.magic == kMagic,
         "magic, got other bytes, expected those that a label file (.fkdl) begins with");
  expect(preamble_.crc == crc32c(0, &preamble_, offsetof(Preamble, crc)),
         "CRC of the preamble does not hold");
  expect(preamble_.major == kMajor, "version, got ", preamble_.major, ", expected ", kMajor);
  layout_ = {Kind(preamble_.kind),
             Encoding(preamble_.encoding),
             ValueType(preamble_.value_type),
             preamble_.classes,
             preamble_.kept,
             preamble_.required};
  layout_.check("LabelFile: " + path);
  plain_ = record_fields(layout_, 0, 0);
  topk_ = std::make_unique<TopkRecords>(layout_, plain_);
  expect(preamble_.crops <= kMaxCrops, "crops, got ", preamble_.crops, ", expected at most ", kMaxCrops);
  const bool sized = preamble_.mix_size >= 1 && preamble_.mix_size <= 65535;
  expect(layout_.two_views() ? sized : preamble_.mix_size == 0, "mix size, got ", preamble_.mix_size);
  expect(preamble_.zero == 0 && preamble_.zero2 == 0, "reserved bytes of the preamble, expected zero");
  open_parts();
}

void LabelFile::open_parts() {
  expect(footer_.magic == kEndMagic, "end of the file, expected a footer; the file is incomplete");
  expect(footer_.crc == crc32c(0, &footer_, offsetof(Footer, crc)), "CRC of the footer does not hold");
  expect(footer_.length == storage_.size(), "size, got ", storage_.size(), ", expected ", footer_.length);
  expect(footer_.id == preamble_.id, "id of preamble and footer, expected equal");
  expect(footer_.zero == 0, "reserved bytes of the footer, expected zero");
  // Every size is bounded before it is added, so that no sum wraps.
  const uint64_t end = storage_.size() - sizeof(Footer);
  const Footer& f = footer_;
  expect(f.header >= sizeof(Preamble) && f.header <= end && f.header % kAlign == 0, "offset of the header");
  expect(f.header_bytes <= kMaxHeader && f.header_bytes <= end, "size of the header");
  expect(f.index == align64(f.header + f.header_bytes) && f.index <= end, "offset of the index");
  expect(f.images <= UINT32_MAX && f.images <= (end - f.index) / sizeof(IndexEntry), "number of images");
  expect(f.keys == align64(f.index + f.images * sizeof(IndexEntry)) && f.keys <= end, "offset of the keys");
  expect(f.keys_bytes >= 4 * (f.images + 1) && f.keys_bytes <= end, "size of the keys");
  expect(align64(f.keys + f.keys_bytes) == end, "end of the keys");

  index_.offset = f.index, index_.bytes = f.keys - f.index, index_.crc = f.index_crc, index_.name = "index";
  keys_.offset = f.keys, keys_.bytes = end - f.keys, keys_.crc = f.keys_crc, keys_.name = "keys";
  std::string padded(f.index - f.header, '\0');
  storage_.read(f.header, padded.size(), reinterpret_cast<uint8_t*>(padded.data()));
  expect(crc32c(0, padded.data(), padded.size()) == f.header_crc, "CRC of the header does not hold");
  header_ = padded.substr(0, f.header_bytes);
  known_ = std::make_unique<std::atomic<uint8_t>[]>((f.images + 3) / 4);
}

// ---- index and keys ---------------------------------------------------------------------------------------

const uint8_t* LabelFile::bytes(const Part& part) const {
  if (storage_.data()) return storage_.data() + part.offset;
  std::call_once(part.once, [&] {
    std::unique_ptr<uint8_t[]> loaded(new uint8_t[part.bytes]);
    storage_.read(part.offset, part.bytes, loaded.get());
    part.loaded = std::move(loaded);
  });
  return part.loaded.get();
}

const uint8_t* LabelFile::checked_bytes(const Part& part) const {
  const uint8_t* data = bytes(part);
  expect(crc32c(0, data, part.bytes) == part.crc, "CRC of the ", part.name,
         " does not hold; the file is damaged");
  return data;
}

const IndexEntry* LabelFile::checked_index() const {
  std::call_once(index_once_, [this] {
    checked_bytes(index_);
    storage_.forget(index_.offset, index_.bytes);
  });
  return reinterpret_cast<const IndexEntry*>(bytes(index_));
}

void LabelFile::check_keys() const {
  std::call_once(keys_once_, [this] {
    checked_bytes(keys_);
    check_key_order();
    storage_.forget(keys_.offset, keys_.bytes);
  });
}

void LabelFile::forget() const { storage_.forget(0, storage_.size()); }

void LabelFile::check_key_order() const {
  const uint8_t* starts = bytes(keys_);
  const uint64_t text = footer_.keys_bytes - 4 * (images() + 1);
  expect(key_start(starts, 0) == 0 && key_start(starts, images()) == text,
         "key starts, expected to cover the keys");
  for (uint64_t i = 0; i < images(); ++i) {
    const uint64_t begin = key_start(starts, i), next = key_start(starts, i + 1);
    expect(next > begin && next - begin <= kMaxKey && next <= text, "start of key ", i);
    expect(i == 0 || key(i - 1) < key(i), "order of keys ", i - 1, " and ", i);
    if (!valid_key(key(i))) refuse(i, "the key is not a clean relative path in UTF-8");
  }
}

std::string_view LabelFile::key(uint64_t image) const {
  const uint8_t* starts = bytes(keys_);
  const uint64_t table = 4 * (images() + 1);
  const uint64_t begin = key_start(starts, image), end = key_start(starts, image + 1);
  expect(begin < end && end - begin <= kMaxKey && end <= footer_.keys_bytes - table, "start of key ", image);
  return {reinterpret_cast<const char*>(starts) + table + begin, static_cast<size_t>(end - begin)};
}

int64_t LabelFile::find(std::string_view wanted) const {
  check_keys();
  uint64_t low = 0, high = images();
  while (low < high) {
    const uint64_t middle = low + (high - low) / 2;
    if (key(middle) < wanted) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < images() && key(low) == wanted ? static_cast<int64_t>(low) : -1;
}

// ---- blocks -----------------------------------------------------------------------------------------------

IndexEntry LabelFile::entry(uint64_t image) const {
  check<std::out_of_range>(image < images(), "LabelFile: image, got ", image, ", expected less than ",
                           images(), ", ", path());
  IndexEntry entry;
  std::memcpy(&entry, bytes(index_) + image * sizeof(IndexEntry), sizeof(IndexEntry));
  return entry;
}

Block LabelFile::block(uint64_t image, std::vector<uint8_t>* scratch) const {
  Block block;
  block.entry = entry(image);
  const IndexEntry& e = block.entry;
  const bool sized = e.height > 0 && e.width > 0;
  const bool partner = layout_.two_views() && e.crops == 0;
  const bool plausible =
      e.crops <= kMaxCrops && (preamble_.crops == 0 || e.crops == preamble_.crops || partner) &&
      (layout_.ratios() || sized || e.crops == 0) && (e.extra == 0 || layout_.required & kExtraOperations);
  if (!plausible) refuse(image, "its index entry is damaged");
  const bool plain = layout_.encoding == Encoding::kPlain;
  block.fields = plain ? plain_ : record_fields(layout_, e.height, e.width);
  block.size = block_size(block.fields, e.crops, e.extra);
  const bool fits = e.offset >= sizeof(Preamble) && e.offset <= footer_.header && e.offset % kAlign == 0 &&
                    block.size.bytes <= footer_.header - e.offset;
  if (!fits) refuse(image, "its block lies outside the blocks");

  const auto [known_bits, shift] = known(image);
  if (storage_.data()) {
    block.data = storage_.data() + e.offset;
    if (known_bits->load(std::memory_order_relaxed) & kSealed << shift) return block;
  } else {
    scratch->resize(block.size.bytes + kSpare);
    storage_.read(e.offset, block.size.bytes, scratch->data());
    block.data = scratch->data();
  }
  if (seal(preamble_.id.data(), e, key(image), block.data, block.size.bytes) != e.crc) {
    refuse(image, "the CRC does not hold; its labels are damaged");
  }
  known_bits->fetch_or(static_cast<uint8_t>(kSealed << shift), std::memory_order_relaxed);
  return block;
}

Block LabelFile::checked_block(uint64_t image, std::vector<uint8_t>* scratch) const {
  const Block block = this->block(image, scratch);
  const auto [known_bits, shift] = known(image);
  if (storage_.data() && known_bits->load(std::memory_order_relaxed) & kInRange << shift) return block;
  check_all_crops(image, block);
  known_bits->fetch_or(static_cast<uint8_t>(kInRange << shift), std::memory_order_relaxed);
  return block;
}

void LabelFile::expect_image(uint64_t image) const {
  __builtin_prefetch(storage_.data() + index_.offset + image * sizeof(IndexEntry));
  __builtin_prefetch(known(image).first);
}

Block LabelFile::find_crops(uint64_t image, const int64_t* crops, size_t count,
                            std::vector<uint8_t>* scratch) const {
  const Block block = this->block(image, scratch);
  for (size_t i = 0; i < count; ++i) {
    check<std::out_of_range>(crops[i] >= 0 && crops[i] < int64_t{block.entry.crops},
                             "LabelFile: crop of image ", image, ", got ", crops[i], ", expected less than ",
                             block.entry.crops, ", ", path());
    const uint64_t begin = block.fields.stride * static_cast<uint64_t>(crops[i]);
    __builtin_prefetch(block.data + begin / 8);
    const uint64_t end = begin + block.fields.stride - 1, read = begin + block.fields.values.at;
    __builtin_prefetch(block.data + std::max(end / 8, read / 8 + kSpare - 1));
  }
  __builtin_prefetch(block.data + block.size.flips);
  return block;
}

void LabelFile::read_crops(uint64_t image, const Block& block, const int64_t* crops, size_t count,
                           const CropArrays& out) const {
  const CropBounds bounds{block.entry.height, block.entry.width, preamble_.mix_size, images()};
  if (topk_->read(block.fields, bounds, block.data, block.size.flips, crops, count, out)) return;
  for (size_t i = 0; i < count; ++i) {
    const CropArrays crop = out.from(i, layout_);
    decode_crop(layout_, block.fields, block.data, block.size.flips, static_cast<uint32_t>(crops[i]), crop);
    if (!in_range(layout_, bounds, crop)) {
      refuse(image, message("crop ", crops[i], ": ", range_fault(layout_, bounds, crop)));
    }
  }
}

void LabelFile::check_all_crops(uint64_t image, const Block& block) const {
  CropBuffer buffer(layout_);
  const CropBounds bounds{block.entry.height, block.entry.width, preamble_.mix_size, images()};
  for (uint32_t crop = 0; crop < block.entry.crops; ++crop) {
    decode_crop(layout_, block.fields, block.data, block.size.flips, crop, buffer.arrays);
    if (!in_range(layout_, bounds, buffer.arrays)) {
      refuse(image, message("crop ", crop, ": ", range_fault(layout_, bounds, buffer.arrays)));
    }
  }
}

void LabelFile::verify() const {
  const IndexEntry* index = checked_index();
  check_keys();
  std::vector<uint64_t> order(images());
  std::iota(order.begin(), order.end(), 0);
  const auto place = [index](uint64_t image) {  // empty blocks come first where several begin
    return std::tuple(index[image].offset, index[image].crops, index[image].extra);
  };
  std::sort(order.begin(), order.end(), [&](uint64_t a, uint64_t b) { return place(a) < place(b); });
  uint64_t end = sizeof(Preamble);
  std::vector<uint8_t> scratch;
  for (uint64_t image : order) {
    const Block block = checked_block(image, &scratch);
    if (block.entry.offset != end)
      refuse(image, message("its block, got offset ", block.entry.offset, ", expected ", end));
    end += block.size.bytes;
  }
  expect(end == footer_.header, "end of the blocks, got ", end, ", expected ", footer_.header);
}

}  // namespace fkdx
