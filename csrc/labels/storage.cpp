// SPDX-License-Identifier: Apache-2.0
#include "labels/storage.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace fkdx {
namespace {

// Bytes asked for at once: macOS refuses more than 2^31 - 1, and Linux gives fewer.
constexpr size_t kMostAtOnce = size_t{1} << 30;

// The file descriptor while the constructor may still throw.
struct OpenFile {
  int number;
  ~OpenFile() {
    if (number >= 0) close(number);
  }
};

}  // namespace

Io io_named(const std::string& name) {
  if (name == "mmap") return Io::kMmap;
  if (name == "pread") return Io::kPread;
  if (name == "preload") return Io::kPreload;
  throw std::invalid_argument(message("LabelFile: io, got '", name, "', expected mmap, pread or preload"));
}

Storage::Storage(const std::string& path, Io io) : path_(path) {
  OpenFile file{open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};  // a pipe is not waited for
  check_os(file.number >= 0, "LabelFile: cannot open ", path);
  struct stat facts{};
  check_os(fstat(file.number, &facts) == 0, "LabelFile: cannot stat ", path);
  check<FormatError>(S_ISREG(facts.st_mode), "LabelFile: expected a regular file, ", path);
  size_ = static_cast<uint64_t>(facts.st_size);
  file_ = file.number;
  if (io == Io::kMmap && size_ > 0) {
    void* memory = mmap(nullptr, size_, PROT_READ, MAP_SHARED, file.number, 0);
    check_os(memory != MAP_FAILED, "LabelFile: cannot map ", path, "; io='pread' needs no map");
    data_ = static_cast<const uint8_t*>(memory);
    mapped_ = true;
  } else if (io == Io::kPreload) {
    loaded_.reset(new uint8_t[size_ + 8]);
    read(0, size_, loaded_.get());
    data_ = loaded_.get();
  }
  // Only kPread reads again.
  file_ = io == Io::kPread ? std::exchange(file.number, -1) : -1;
}

Storage::~Storage() {
  if (mapped_) munmap(const_cast<uint8_t*>(data_), size_);
  if (file_ >= 0) close(file_);
}

void Storage::forget(uint64_t offset, uint64_t size) const {
  if (!mapped_) return;
  const uint64_t page = static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
  const uint64_t begin = (offset + page - 1) / page * page, end = (offset + size) / page * page;
  if (begin < end) madvise(const_cast<uint8_t*>(data_) + begin, end - begin, MADV_DONTNEED);
}

void Storage::read(uint64_t offset, size_t size, uint8_t* out) const {
  if (data_) {
    std::memcpy(out, data_ + offset, size);
    return;
  }
  for (size_t done = 0; done < size;) {
    const size_t wanted = std::min(size - done, kMostAtOnce);
    const ssize_t got = pread(file_, out + done, wanted, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    check_os(got >= 0, "LabelFile: cannot read ", path_);
    check<FormatError>(got > 0, "LabelFile: the file ends at ", offset + done, ", expected ", size_,
                       " bytes; it was cut while open, ", path_);
    done += static_cast<size_t>(got);
  }
}

}  // namespace fkdx
