// SPDX-License-Identifier: Apache-2.0
// The shared loop under many callers: every item once, the first error, teams of this program's own threads.
#include "base/parallel.h"

#include <atomic>
#include <cstdio>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {
std::atomic<int> teams{0};
}

// In the place of torch's OpenMP runtime.
extern "C" void GOMP_parallel(void (*task)(void*), void* data, unsigned threads, unsigned) {
  ++teams;
  std::vector<std::thread> others;
  for (unsigned i = 1; i < threads; ++i) others.emplace_back(task, data);
  task(data);
  for (std::thread& other : others) other.join();
}

namespace fkdx {
namespace {

// Sums are plain integers: an item that two threads work on is a race.
bool every_item_once(int64_t items, int64_t threads) {
  std::vector<int64_t> seen(items);
  parallel(items, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) seen[i] += i + 1;
  });
  for (int64_t i = 0; i < items; ++i) {
    if (seen[i] != i + 1) return false;
  }
  return true;
}

bool first_error(int64_t items, int64_t threads, int64_t wrong) {
  try {
    parallel(items, threads, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        if (i >= wrong) throw std::out_of_range(std::to_string(i));
      }
    });
  } catch (const std::out_of_range& error) {
    return error.what() == std::to_string(wrong);
  }
  return false;
}

int call_often(int caller) {
  int failures = 0;
  for (int64_t i = 0; i < 500; ++i) {
    const int64_t items = (i * 37 + caller) % 200, threads = 1 + i % 5;
    failures += !every_item_once(items, threads);
    if (items) failures += !first_error(items, threads, i % items);
  }
  return failures;
}

}  // namespace
}  // namespace fkdx

int main() {
  std::vector<int> failures(4);
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) callers.emplace_back([&, c] { failures[c] = fkdx::call_often(c); });
  for (std::thread& caller : callers) caller.join();
  int total = fkdx::call_often(4);
  for (const int count : failures) total += count;
  std::printf("parallel: %d failures, %d teams\n", total, teams.load());
  return total != 0;
}
