// SPDX-License-Identifier: Apache-2.0
// Reads the encoded bytes of an image: a whole file, or a range of a shard. Plain pread, so that a file that
// shrinks under us is an error and never a signal.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace fkdx {

// Where the encoded bytes of an image lie.
struct Location {
  std::string path;
  int64_t offset = 0;
  int64_t length = -1;  // -1: the whole file
};

using Bytes = std::vector<uint8_t>;

// Thread-safe. Files read whole are closed at once; shards stay open, the least recently used is closed
// first.
class Reader {
 public:
  explicit Reader(int max_open_shards = 64) : max_open_(max_open_shards) {}

  // Throws std::system_error with the path, or ImageError for what is not a regular file, is empty or ends
  // early.
  void read(const Location& where, Bytes* bytes);

  // Asks the system to begin to read this into its cache. Never throws: read() will say what is wrong.
  void read_ahead(const Location& where) noexcept;

 private:
  class File;
  std::shared_ptr<File> shard(const std::string& path);
  void check_stamp(const std::string& path, const File& file);  // needs the lock

  const size_t max_open_;
  std::mutex mutex_;
  std::list<std::string> recent_;  // most recently used first
  struct Open {
    std::shared_ptr<File> file;
    std::list<std::string>::iterator place;
  };
  std::unordered_map<std::string, Open> open_;
  // Size and time of every shard when it was first opened: one that changes later is refused.
  std::unordered_map<std::string, std::pair<int64_t, int64_t>> stamps_;
};

// Encoded images kept in memory, first come, first kept, until the budget is full: every epoch reads every
// image once, so throwing one out for another would win nothing. Thread-safe.
class Cache {
 public:
  explicit Cache(int64_t budget_bytes) : budget_(budget_bytes) {}

  std::shared_ptr<const Bytes> find(int64_t image) const;
  void keep(int64_t image, const Bytes& bytes);
  int64_t bytes() const;

 private:
  const int64_t budget_;
  int64_t used_ = 0;
  mutable std::mutex mutex_;
  std::unordered_map<int64_t, std::shared_ptr<const Bytes>> kept_;
};

}  // namespace fkdx
