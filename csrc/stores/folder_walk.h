// SPDX-License-Identifier: Apache-2.0
// All image files under a folder, listed by several threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "stores/key_table.h"

namespace fkdx {

// The threads begin with the constructor and end with wait(), or, having dropped what is left, with the
// destructor. Folders whose name begins with a dot, and those that systems leave behind, are not entered.
class FolderWalk {
 public:
  FolderWalk(std::string root, int threads);
  ~FolderWalk();
  FolderWalk(const FolderWalk&) = delete;
  FolderWalk& operator=(const FolderWalk&) = delete;

  // Images found so far.
  int64_t found() const { return found_.load(std::memory_order_relaxed); }
  // True once everything is listed.
  bool wait(double seconds);
  // All keys, sorted, after wait() returned true. Throws std::system_error where a folder cannot be read,
  // std::invalid_argument for an image that is no file (a pipe, a link to nothing).
  KeyList keys();

 private:
  void run();
  void list_top();
  void list(const std::string& prefix, int depth, std::vector<std::string>* keys);

  const std::string root_;
  std::atomic<int64_t> found_{0};
  std::atomic<bool> stop_{false};
  std::vector<std::string> folders_;              // "name/", of the first level
  std::vector<std::vector<std::string>> listed_;  // [folders + 1], the last: images beside the folders
  std::atomic<size_t> next_{0};
  std::mutex mutex_;
  std::condition_variable done_;
  size_t running_ = 0;
  std::exception_ptr error_;
  std::vector<std::thread> threads_;
};

// sizes[i] = bytes of the file root/key i, or -1 where there is none; on several threads. Throws
// std::system_error for other faults than that.
void file_sizes(const std::string& root, const KeyTable& keys, int64_t begin, int64_t end, int threads,
                int64_t* sizes);

}  // namespace fkdx
