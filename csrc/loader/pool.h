// SPDX-License-Identifier: Apache-2.0
// Threads that work on batches, one image at a time, in the order of submission.
#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "loader/work.h"

namespace fkdx {

class Pool;

// One batch under way. After wait() returned true, the caller may read everything in it.
struct Batch {
  Batch(View view_, Rows rows_, std::vector<Image> images_)
      : view(std::move(view_)), rows(rows_), images(std::move(images_)) {}

  const View view;
  const Rows rows;
  std::vector<Image> images;

 private:
  friend class Pool;
  size_t next = 0;        // first image that no thread has taken
  size_t next_ahead = 0;  // first image that the system has not been asked for
  size_t done = 0;
  std::condition_variable finished;
};

// All methods may be called from any thread of the process that made the pool. Threads do not survive a fork:
// in a child they throw std::runtime_error, but close() does nothing, and the destructor must not run there
// (condition variables would wait for threads that do not exist): see delete_in_owner.
class Pool {
 public:
  Pool(int threads, int64_t cache_bytes);
  ~Pool();  // close()
  Pool(const Pool&) = delete;
  Pool& operator=(const Pool&) = delete;

  // Urgent batches go before all others. Throws std::runtime_error once closed.
  void submit(std::shared_ptr<Batch> batch, bool urgent = false);

  // True as soon as no thread works on the batch any more and none will.
  bool wait(Batch& batch, double seconds);

  // Images that no thread has taken become kCancelled; returns once no thread touches the batch.
  void cancel(Batch& batch);

  // The batch's images in this state, now.
  std::vector<int> in_state(const Batch& batch, State state) const;

  // Cancels everything and joins the threads. May be called again.
  void close();

  // Runs pool's destructor in its own process and leaks it in a forked child.
  static void delete_in_owner(Pool* pool);

  // Throws std::runtime_error in a forked child, where the threads are not.
  void check_process() const;

  bool in_owner() const;
  int threads() const { return static_cast<int>(thread_count_); }
  int64_t cache_bytes() const { return cache_.bytes(); }
  Stages stages() const;

 private:
  void run();
  void read_ahead();
  std::shared_ptr<Batch> batch_to_read_ahead();  // needs the lock
  void drop(Batch& batch);                       // needs the lock

  const size_t thread_count_;
  const int owner_;  // process id
  Reader reader_;
  Cache cache_;
  ProvedPoints proved_;
  std::mutex closing_;
  mutable std::mutex mutex_;
  std::condition_variable work_;
  std::deque<std::shared_ptr<Batch>> queue_;
  bool closed_ = false;
  int to_read_ahead_ =
      0;  // images; 0 until a thread has had to wait for a disk, because it would be wasted work
  Stages stages_;
  std::vector<std::thread> workers_;
};

}  // namespace fkdx
