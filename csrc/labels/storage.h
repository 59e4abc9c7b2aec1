// SPDX-License-Identifier: Apache-2.0
// The bytes of a file: mapped, read when asked for, or all in memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace fkdx {

enum class Io { kMmap, kPread, kPreload };

// Throws std::invalid_argument for other names than "mmap", "pread" and "preload".
Io io_named(const std::string& name);

// Reading is safe from many threads. A mapped file that somebody truncates kills the process when its missing
// pages are touched (SIGBUS); with kPread the same is a FormatError, with kPreload it goes unnoticed.
class Storage {
 public:
  Storage(const std::string& path, Io io);
  ~Storage();
  Storage(const Storage&) = delete;
  Storage& operator=(const Storage&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }
  // All bytes, or null with kPread.
  const uint8_t* data() const { return data_; }
  // Copies bytes [offset, offset + size), which must lie inside the file.
  void read(uint64_t offset, size_t size, uint8_t* out) const;
  // A map lets go of these bytes: they stay in the page cache, and come back when they are looked at.
  void forget(uint64_t offset, uint64_t size) const;

 private:
  std::string path_;
  int file_ = -1;
  uint64_t size_ = 0;
  const uint8_t* data_ = nullptr;
  bool mapped_ = false;
  std::unique_ptr<uint8_t[]> loaded_;
};

}  // namespace fkdx
