// SPDX-License-Identifier: Apache-2.0
// One label file: checked when opened, and every block again before a crop of it is handed out.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "labels/codec.h"
#include "labels/crop_check.h"
#include "labels/layout.h"
#include "labels/storage.h"
#include "labels/topk_records.h"

namespace fkdx {

// The CRC of an index entry: over the file's id, the entry, the key and the block.
uint32_t seal(const void* id, const IndexEntry& entry, std::string_view key, const uint8_t* block,
              uint64_t bytes);

// The checked labels of one image. Points into the file, or into the scratch memory of the caller.
struct Block {
  IndexEntry entry;
  RecordFields fields;
  BlockSize size;
  const uint8_t* data;
};

// All methods are safe from many threads. Errors: FormatError where the file is not what it claims to be.
class LabelFile {
 public:
  LabelFile(const std::string& path, Io io);

  const std::string& path() const { return storage_.path(); }
  const Layout& layout() const { return layout_; }
  const Preamble& preamble() const { return preamble_; }
  const Footer& footer() const { return footer_; }
  const std::string& header() const { return header_; }  // JSON
  uint64_t images() const { return footer_.images; }

  // The key of an image; empty parts of a damaged file are found by block() and by the checked calls below.
  std::string_view key(uint64_t image) const;
  // The image's number, or -1. Checks the keys on first use.
  int64_t find(std::string_view key) const;
  // All index entries; checks them on first use.
  const IndexEntry* checked_index() const;
  // Checks all keys on first use.
  void check_keys() const;
  // All keys after a check: where each starts, N + 1 offsets; then their text. Lives as long as the file.
  const uint8_t* checked_keys() const {
    check_keys();
    return bytes(keys_);
  }

  // The block of an image, its CRC checked (once an image, unless io is pread). `scratch` holds it with io
  // pread.
  Block block(uint64_t image, std::vector<uint8_t>* scratch) const;
  // The same, with all its crops in range, for those who read the records themselves.
  Block checked_block(uint64_t image, std::vector<uint8_t>* scratch) const;
  // Reading is two steps, so that the memory of many images is waited for at once. First crops [count] of an
  // image are found: their records are on their way into the cache. std::out_of_range where the image or a
  // crop does not exist.
  Block find_crops(uint64_t image, const int64_t* crops, size_t count, std::vector<uint8_t>* scratch) const;
  // Then they are read into the first crops of `out`, and their ranges checked.
  void read_crops(uint64_t image, const Block& block, const int64_t* crops, size_t count,
                  const CropArrays& out) const;
  // Of a map: what find_crops reads first is on its way into the cache.
  void expect_image(uint64_t image) const;
  bool mapped() const { return storage_.data() != nullptr; }

  // Lets go of the memory of all pages in the map; they come back from the file when they are used again.
  void forget() const;

  // Checks everything but the digest: parts, all blocks with all crops, no gap between blocks.
  void verify() const;

 private:
  // A part of the file: in the map, or read on first use.
  struct Part {
    uint64_t offset = 0, bytes = 0;
    uint32_t crc = 0;
    const char* name = "";
    mutable std::once_flag once;
    mutable std::unique_ptr<uint8_t[]> loaded;
  };

  // expect() for cheap texts; refuse() where the text itself costs time.
  template <typename... Parts>
  void expect(bool ok, const Parts&... parts) const;
  [[noreturn]] void refuse(uint64_t image, const std::string& what) const;
  void open_parts();
  const uint8_t* bytes(const Part& part) const;
  const uint8_t* checked_bytes(const Part& part) const;
  void check_key_order() const;
  // The known_ bits of an image, and how far they are shifted in their byte.
  std::pair<std::atomic<uint8_t>*, int> known(uint64_t image) const {
    return {&known_[image / 4], static_cast<int>(image % 4) * 2};
  }
  void check_all_crops(uint64_t image, const Block& block) const;
  IndexEntry entry(uint64_t image) const;

  Storage storage_;
  Preamble preamble_{};
  Footer footer_{};
  Layout layout_;
  RecordFields plain_;  // the fields of every image's records in the plain encoding
  std::unique_ptr<const TopkRecords> topk_;
  std::string header_;
  Part index_, keys_;
  mutable std::once_flag index_once_, keys_once_;
  // Two bits an image: its block's CRC held; all its crops are in range.
  mutable std::unique_ptr<std::atomic<uint8_t>[]> known_;
};

}  // namespace fkdx
