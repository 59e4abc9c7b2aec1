// SPDX-License-Identifier: Apache-2.0
#include "stores/folder_walk.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <functional>
#include <memory>
#include <numeric>

#include "base/check.h"
#include "stores/canonical.h"

namespace fkdx {
namespace {

constexpr int kDeepest = 64;  // folders inside folders; more is a link that leads back

using Folder = std::unique_ptr<DIR, int (*)(DIR*)>;

// Folders that systems leave behind, the same as in fkdx/stores/store.py.
constexpr std::array kLeftBehind = {
    "lost+found", "@eaDir",    "__MACOSX", "__pycache__",        "$RECYCLE.BIN",
    "#recycle",   "#snapshot", "@Recycle", "@Recently-Snapshot", "System Volume Information"};

bool hidden(const std::string& name) {
  return name[0] == '.' || std::find(kLeftBehind.begin(), kLeftBehind.end(), name) != kLeftBehind.end();
}

// macOS's notes on other files, `._1.jpg`, are none.
bool is_image(const std::string& name) { return name.compare(0, 2, "._") != 0 && is_image_name(name); }

// The type behind an entry, links followed: a d_type.
unsigned char type_of(const Folder& folder, const dirent& entry, const std::string& path) {
  if (entry.d_type != DT_UNKNOWN && entry.d_type != DT_LNK) return entry.d_type;
  struct stat facts;
  if (fstatat(dirfd(folder.get()), entry.d_name, &facts, 0) != 0) {
    const bool to_nothing = errno == ENOENT;
    check_os(to_nothing || !is_image(entry.d_name), "images: cannot stat ", path);
    check<std::invalid_argument>(
        !is_image(entry.d_name),
        "images: got a link to nothing, expected an image file; restore its target, or remove it, ", path);
    return DT_UNKNOWN;
  }
  if (S_ISDIR(facts.st_mode)) return DT_DIR;
  return S_ISREG(facts.st_mode) ? DT_REG : DT_FIFO;
}

// Adds `count` threads, or as many as the system lets this process have.
void add_threads(int count, const std::function<void()>& work, std::vector<std::thread>* threads) {
  threads->reserve(static_cast<size_t>(std::max(0, count)));
  try {
    for (int i = 0; i < count; ++i) threads->emplace_back(work);
  } catch (const std::exception&) {
  }
}

int64_t file_size(const std::string& root, std::string_view key) {
  std::string path = root + "/";
  path += key;
  struct stat facts;
  const bool found = stat(path.c_str(), &facts) == 0;
  check_os(found || errno == ENOENT || errno == ENOTDIR, "images: cannot stat ", path);
  return found && S_ISREG(facts.st_mode) ? facts.st_size : -1;
}

}  // namespace

FolderWalk::FolderWalk(std::string root, int threads) : root_(std::move(root)) {
  list_top();
  const std::lock_guard<std::mutex> lock(mutex_);  // none ends before all are counted
  add_threads(std::max(1, threads), [this] { run(); }, &threads_);
  running_ = threads_.size();
  check<std::runtime_error>(running_ > 0,
                            "the system does not let this process start a thread; raise its limits");
}

FolderWalk::~FolderWalk() {
  stop_ = true;
  for (std::thread& thread : threads_) thread.join();
}

bool FolderWalk::wait(double seconds) {
  std::unique_lock<std::mutex> lock(mutex_);
  return done_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return running_ == 0; });
}

KeyList FolderWalk::keys() {
  if (error_) std::rethrow_exception(error_);
  // Keys below a folder are neighbours, and "name/" sorts them among the files beside it.
  std::vector<std::string>& loose = listed_.back();
  std::vector<size_t> order(folders_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [this](size_t a, size_t b) { return folders_[a] < folders_[b]; });
  std::sort(loose.begin(), loose.end());
  KeyList keys;
  auto file = loose.begin();
  for (const size_t folder : order) {
    for (; file != loose.end() && *file < folders_[folder]; ++file) keys.add(*file);
    for (const std::string& key : listed_[folder]) keys.add(key);
  }
  for (; file != loose.end(); ++file) keys.add(*file);
  return keys;
}

void FolderWalk::run() {
  try {
    for (size_t i; !stop_ && (i = next_.fetch_add(1)) < folders_.size();) {
      list(folders_[i], 1, &listed_[i]);
      std::sort(listed_[i].begin(), listed_[i].end());
    }
  } catch (...) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!error_) error_ = std::current_exception();
    stop_ = true;
  }
  const std::lock_guard<std::mutex> lock(mutex_);
  if (--running_ == 0) done_.notify_all();
}

void FolderWalk::list_top() {
  std::vector<std::string> loose;
  list("", 0, &loose);
  listed_.resize(folders_.size() + 1);
  listed_.back() = std::move(loose);
}

void FolderWalk::list(const std::string& prefix, int depth, std::vector<std::string>* keys) {
  const std::string path = root_ + "/" + prefix;
  check<std::invalid_argument>(depth < kDeepest, "images: folders, got more than ", kDeepest,
                               " inside each other, expected no link that leads back, ", path);
  const Folder folder(opendir(path.c_str()), &closedir);
  check_os(folder != nullptr, "images: cannot list ", path);
  errno = 0;
  for (const dirent* entry; !stop_ && (entry = readdir(folder.get())) != nullptr; errno = 0) {
    const std::string name = entry->d_name;
    const unsigned char type = type_of(folder, *entry, path + name);
    if (type == DT_DIR) {
      if (hidden(name)) continue;
      if (depth == 0) {
        folders_.push_back(name + "/");
      } else {
        list(prefix + name + "/", depth + 1, keys);
      }
    } else if (is_image(name)) {
      check<std::invalid_argument>(
          type == DT_REG, "images: got a pipe, a device or a socket, expected an image file; remove it, ",
          path, name);
      keys->push_back(prefix + name);
      found_.fetch_add(1, std::memory_order_relaxed);
    }
  }
  check_os(errno == 0, "images: cannot list ", path);
}

void file_sizes(const std::string& root, const KeyTable& keys, int64_t begin, int64_t end, int threads,
                int64_t* sizes) {
  std::atomic<int64_t> next{begin};
  std::mutex mutex;
  std::exception_ptr error;
  const auto work = [&] {
    try {
      for (int64_t i; (i = next.fetch_add(1)) < end;) sizes[i - begin] = file_size(root, keys.key(i));
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex);
      error = std::current_exception();
    }
  };
  std::vector<std::thread> others;
  add_threads(threads - 1, work, &others);
  work();
  for (std::thread& thread : others) thread.join();
  if (error) std::rethrow_exception(error);
}

}  // namespace fkdx
