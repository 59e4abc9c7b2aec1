// SPDX-License-Identifier: Apache-2.0
// torch's threads belong to an OpenMP runtime and spin for a while after each of its operations. Threads of
// our own would wait until those give up their cores, so the loop asks the same runtime for its team.
#include "base/parallel.h"

#include <dlfcn.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>

namespace fkdx {
namespace {

constexpr int64_t kPiecesPerThread = 8;  // the share of a thread that comes late is done by the others

struct Job {
  const Range& work;
  const int64_t items, pieces;
  std::atomic<int64_t> next{0};
  std::mutex mutex{};  // of what follows
  int64_t failed_piece = 0;
  std::exception_ptr error{};

  // Takes pieces until none is left.
  void run() {
    for (int64_t piece, all = pieces; (piece = next.fetch_add(1)) < all;) {
      try {
        work(items * piece / all, items * (piece + 1) / all);
      } catch (...) {
        const std::lock_guard<std::mutex> lock(mutex);
        if (error && failed_piece < piece) continue;
        failed_piece = piece;
        error = std::current_exception();
      }
    }
  }
};

// Runs task(data) on every thread of a team: what gcc, and clang too, make of `#pragma omp parallel`.
using Team = void (*)(void (*task)(void* data), void* data, unsigned threads, unsigned flags);

// A child has none of its parent's threads, and a team would wait for them for ever.
std::atomic<bool> forked{false};
const int watched = pthread_atfork(nullptr, nullptr, [] { forked = true; });

// The runtime that torch has loaded; not a second one, whose threads would compete with it. Null: none.
Team find_team() {
  static const Team team = reinterpret_cast<Team>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return watched == 0 && !forked ? team : nullptr;
}

}  // namespace

void parallel(int64_t items, int64_t threads, const Range& work) {
  const int64_t hands = std::min(threads, items);
  const Team team = hands > 1 ? find_team() : nullptr;
  if (!team) return work(0, items);
  Job job{work, items, std::min(items, hands * kPiecesPerThread)};
  team([](void* data) { static_cast<Job*>(data)->run(); }, &job, static_cast<unsigned>(hands), 0);
  if (job.error) std::rethrow_exception(job.error);
}

}  // namespace fkdx
