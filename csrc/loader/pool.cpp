// SPDX-License-Identifier: Apache-2.0
#include "loader/pool.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"

namespace fkdx {
namespace {

constexpr int kReadAhead = 256;  // images that are read ahead after one that a thread had to wait for

// Threads started within this scope never run signal handlers: those belong to the main thread.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before_);
  }
  ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

 private:
  sigset_t before_;
};

// As `top -H` shows it, or a debugger.
void name_this_thread(const char* name) {
#ifdef __APPLE__
  pthread_setname_np(name);
#else
  pthread_setname_np(pthread_self(), name);
#endif
}

}  // namespace

Pool::Pool(int threads, int64_t cache_bytes)
    : thread_count_(static_cast<size_t>(threads)), owner_(::getpid()), cache_(cache_bytes) {
  check<std::invalid_argument>(threads >= 1 && threads <= 1024, "Pool: threads, got ", threads,
                               ", expected 1..1024");
  check<std::invalid_argument>(cache_bytes >= 0, "Pool: cache, got ", cache_bytes,
                               " bytes, expected 0 or more");
  const SignalsBlocked blocked;
  try {
    for (int i = 0; i < threads; ++i) workers_.emplace_back(&Pool::run, this);
    workers_.emplace_back(&Pool::read_ahead, this);
  } catch (...) {
    close();
    throw std::runtime_error(
        message("the system does not let this process start ", threads, " threads; use fewer: threads=1"));
  }
}

Pool::~Pool() { close(); }

void Pool::delete_in_owner(Pool* pool) {
  if (pool->in_owner()) delete pool;
}

bool Pool::in_owner() const { return ::getpid() == owner_; }

void Pool::check_process() const {
  check<std::runtime_error>(in_owner(), "Pool: used after fork, got process ", ::getpid(), ", expected ",
                            owner_,
                            " (threads do not survive a fork: make the loader in the process that uses it)");
}

void Pool::submit(std::shared_ptr<Batch> batch, bool urgent) {
  check_process();
  const std::lock_guard<std::mutex> lock(mutex_);
  check<std::runtime_error>(!closed_, "Pool: submit, got a closed pool");
  if (batch->images.empty()) return;
  urgent ? queue_.push_front(std::move(batch)) : queue_.push_back(std::move(batch));
  work_.notify_all();
}

bool Pool::wait(Batch& batch, double seconds) {
  check_process();
  std::unique_lock<std::mutex> lock(mutex_);
  return batch.finished.wait_for(lock, std::chrono::duration<double>(seconds),
                                 [&] { return batch.done == batch.images.size(); });
}

void Pool::cancel(Batch& batch) {
  check_process();
  std::unique_lock<std::mutex> lock(mutex_);
  drop(batch);
  batch.finished.wait(lock, [&] { return batch.done == batch.images.size(); });
}

void Pool::close() {
  if (!in_owner()) return;
  const std::lock_guard<std::mutex> alone(closing_);
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
    while (!queue_.empty()) drop(*queue_.front());
  }
  work_.notify_all();
  for (std::thread& worker : workers_) {
    if (worker.joinable()) worker.join();
  }
}

void Pool::drop(Batch& batch) {
  for (size_t i = batch.next; i < batch.images.size(); ++i) batch.images[i].state = State::kCancelled;
  batch.done += batch.images.size() - batch.next;
  batch.next = batch.images.size();
  batch.finished.notify_all();
  const auto found =
      std::find_if(queue_.begin(), queue_.end(), [&](const auto& queued) { return queued.get() == &batch; });
  if (found != queue_.end()) queue_.erase(found);
}

std::vector<int> Pool::in_state(const Batch& batch, State state) const {
  check_process();
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<int> found;
  for (size_t i = 0; i < batch.images.size(); ++i) {
    if (batch.images[i].state == state) found.push_back(static_cast<int>(i));
  }
  return found;
}

Stages Pool::stages() const {
  check_process();
  const std::lock_guard<std::mutex> lock(mutex_);
  return stages_;
}

void Pool::run() {
  name_this_thread("fkdx image pool");
  Worker worker(&reader_, &cache_, &proved_);
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    const auto start = std::chrono::steady_clock::now();
    work_.wait(lock, [&] { return closed_ || !queue_.empty(); });
    if (closed_) return;
    stages_.wait_ns += std::chrono::nanoseconds(std::chrono::steady_clock::now() - start).count();
    const std::shared_ptr<Batch> batch = queue_.front();
    Image* image = &batch->images[batch->next++];
    if (batch->next == batch->images.size()) queue_.pop_front();
    lock.unlock();
    Stages spent;
    const State state = worker.process(batch->view, batch->rows, image, &spent);
    lock.lock();
    image->state = state;
    stages_.add(spent);
    if (spent.cold && std::exchange(to_read_ahead_, kReadAhead) == 0) work_.notify_all();
    if (++batch->done == batch->images.size()) batch->finished.notify_all();
  }
}

// Asks the system for the images of all batches, so that a disk has many reads to do at once while the other
// threads decode. A thread of its own, because opening a file may wait, too.
void Pool::read_ahead() {
  name_this_thread("fkdx read-ahead");
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    std::shared_ptr<Batch> batch;
    work_.wait(lock, [&] { return closed_ || (to_read_ahead_ > 0 && (batch = batch_to_read_ahead())); });
    if (closed_) return;
    --to_read_ahead_;
    const Image& image = batch->images[batch->next_ahead++];
    lock.unlock();
    if (!image.held && !cache_.find(image.index)) reader_.read_ahead(image.where);
    lock.lock();
  }
}

std::shared_ptr<Batch> Pool::batch_to_read_ahead() {
  for (const std::shared_ptr<Batch>& batch : queue_) {
    batch->next_ahead = std::max(batch->next_ahead, batch->next);
    if (batch->next_ahead < batch->images.size()) return batch;
  }
  return nullptr;
}

}  // namespace fkdx
