// SPDX-License-Identifier: Apache-2.0
#include "loader/reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/check.h"

namespace fkdx {
namespace {

constexpr int64_t kLargestImage = int64_t{256} << 20;

timespec change_of(const struct stat& facts) {
#ifdef __APPLE__
  return facts.st_mtimespec;
#else
  return facts.st_mtim;
#endif
}

}  // namespace

class Reader::File {
 public:
  // O_NONBLOCK: opening a pipe must not wait for its writer; it has no meaning for regular files.
  explicit File(const std::string& path)
      : path_(path), fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
    check_os(fd_ >= 0, "read: cannot open ", path);
  }
  ~File() { ::close(fd_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  int64_t size() const {
    struct stat facts;
    check_os(::fstat(fd_, &facts) == 0, "read: cannot stat ", path_);
    check<ImageError>(S_ISREG(facts.st_mode), "read: not a regular file, ", path_);
    return facts.st_size;
  }

  // Size and time of the last change, in nanoseconds.
  std::pair<int64_t, int64_t> stamp() const {
    struct stat facts;
    check_os(::fstat(fd_, &facts) == 0, "read: cannot stat ", path_);
    const timespec changed = change_of(facts);
    return {facts.st_size, changed.tv_sec * int64_t{1000000000} + changed.tv_nsec};
  }

  // A length of 0: to the end. macOS has no such call.
  void read_ahead([[maybe_unused]] int64_t offset, [[maybe_unused]] int64_t length) const {
#if defined(POSIX_FADV_WILLNEED)
    ::posix_fadvise(fd_, offset, length, POSIX_FADV_WILLNEED);
#endif
  }

  void read(int64_t offset, int64_t length, Bytes* bytes) const {
    check<ImageError>(length > 0, "read: empty file, ", path_);
    check<ImageError>(length <= kLargestImage, "read: too large for an image, got ", length,
                      " bytes, expected at most ", kLargestImage, ", ", path_);
    bytes->resize(static_cast<size_t>(length));
    int64_t done = 0;
    while (done < length) {
      const ssize_t got =
          ::pread(fd_, bytes->data() + done, static_cast<size_t>(length - done), offset + done);
      if (got < 0 && errno == EINTR) continue;
      check_os(got >= 0, "read: cannot read ", path_);
      check<ImageError>(got > 0, "read: file ends early, got ", done, " bytes at offset ", offset,
                        ", expected ", length, ", ", path_);
      done += got;
    }
  }

 private:
  const std::string path_;
  const int fd_;
};

void Reader::read(const Location& where, Bytes* bytes) {
  if (where.length >= 0) {
    shard(where.path)->read(where.offset, where.length, bytes);
    return;
  }
  const File file(where.path);
  file.read(0, file.size(), bytes);
}

void Reader::read_ahead(const Location& where) noexcept {
  try {
    const auto file = where.length >= 0 ? shard(where.path) : std::make_shared<File>(where.path);
    file->read_ahead(where.offset, std::max<int64_t>(where.length, 0));
  } catch (const std::exception&) {  // read() will meet it again
  }
}

std::shared_ptr<Reader::File> Reader::shard(const std::string& path) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = open_.find(path);
  if (found != open_.end()) {
    recent_.splice(recent_.begin(), recent_, found->second.place);
    check_stamp(path, *found->second.file);
    return found->second.file;
  }
  auto file = std::make_shared<File>(path);
  check_stamp(path, *file);
  if (open_.size() >= max_open_) {
    open_.erase(recent_.back());
    recent_.pop_back();
  }
  recent_.push_front(path);
  open_[path] = {file, recent_.begin()};
  return file;
}

void Reader::check_stamp(const std::string& path, const File& file) {
  const auto stamp = file.stamp();
  const bool same = stamps_.emplace(path, stamp).first->second == stamp;
  check<std::runtime_error>(same, "read: the file has changed since this loader opened it; start again, ",
                            path);
}

std::shared_ptr<const Bytes> Cache::find(int64_t image) const {
  if (budget_ == 0) return nullptr;
  const std::lock_guard<std::mutex> lock(mutex_);
  const auto found = kept_.find(image);
  return found == kept_.end() ? nullptr : found->second;
}

void Cache::keep(int64_t image, const Bytes& bytes) {
  if (budget_ == 0) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  const int64_t size = static_cast<int64_t>(bytes.size());
  if (used_ + size > budget_ || kept_.count(image) != 0) return;
  kept_[image] = std::make_shared<const Bytes>(bytes);
  used_ += size;
}

int64_t Cache::bytes() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return used_;
}

}  // namespace fkdx
