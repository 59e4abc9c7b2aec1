// SPDX-License-Identifier: Apache-2.0
#include "base/parallel.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>

#include "base/signals.h"

namespace fkdx {
namespace {

constexpr int64_t kPiecesPerThread = 8;  // the share of a helper that wakes late is done by the others
constexpr int kLooks = 64;               // for work, before a helper goes to sleep

struct Job {
  const Range& work;
  const int64_t items, pieces;
  std::atomic<int64_t> next{0};
  std::mutex mutex{};  // of what follows
  int64_t failed_piece = 0;
  std::exception_ptr error{};

  // Takes pieces until none is left.
  void run() {
    for (int64_t piece; (piece = next.fetch_add(1)) < pieces;) {
      try {
        work(items * piece / pieces, items * (piece + 1) / pieces);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (error && failed_piece < piece) continue;
        failed_piece = piece;
        error = std::current_exception();
      }
    }
  }
};

class Helpers {
 public:
  // Runs the job on this thread and at most `wanted` helpers.
  void share(Job& job, int64_t wanted) {
    if (taken_.exchange(true)) return job.run();
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      hire(wanted);
      job_ = &job;
      seats_ = wanted;
    }
    come_.notify_all();
    job.run();
    {
      std::unique_lock<std::mutex> lock(mutex_);
      seats_ = 0;  // who wakes only now goes back to sleep
      gone_.wait(lock, [&] { return working_ == 0; });
    }
    taken_ = false;
  }

 private:
  void hire(int64_t wanted) {
    const SignalsBlocked blocked;
    try {
      for (; hired_ < wanted; ++hired_) std::thread(&Helpers::serve, this).detach();
    } catch (const std::system_error&) {  // the system has no more threads: the work takes longer
    }
  }

  void serve() {
    for (;;) {
      for (int i = 0; i < kLooks && seats_ == 0; ++i) std::this_thread::yield();
      std::unique_lock<std::mutex> lock(mutex_);
      come_.wait(lock, [&] { return seats_ > 0; });
      --seats_;
      ++working_;
      lock.unlock();
      job_->run();
      lock.lock();
      if (--working_ == 0) gone_.notify_one();
    }
  }

  std::atomic<bool> taken_{false};  // by a caller
  std::mutex mutex_;
  std::condition_variable come_, gone_;
  Job* job_ = nullptr;
  int64_t hired_ = 0, working_ = 0;
  std::atomic<int64_t> seats_{0};  // for helpers that may still join
};

// Never destroyed: helpers may sleep in it while the process ends. A forked child has none of its parent's
// threads and finds locks in any state, so it makes its helpers anew in the same place.
Helpers* const helpers = [] {
  pthread_atfork(nullptr, nullptr, [] { new (helpers) Helpers; });
  return new Helpers;
}();

}  // namespace

void parallel(int64_t items, int64_t threads, const Range& work) {
  const int64_t hands = std::max<int64_t>(1, std::min(threads, items));
  if (hands == 1) return work(0, items);
  Job job{work, items, std::min(items, hands * kPiecesPerThread)};
  helpers->share(job, hands - 1);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fkdx
