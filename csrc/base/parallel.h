// SPDX-License-Identifier: Apache-2.0
// A loop over independent items, cut into as many parts as threads are wanted.
#pragma once

#include <algorithm>
#include <cstdint>
#include <exception>
#include <thread>
#include <vector>

namespace fkdx {

// Calls work(begin, end) for parts that cover 0 ... items - 1, one of them on this thread; rethrows the error
// of the first part that failed. Threads live as long as the call, so that a fork at any other time is safe.
template <typename Work>
void parallel(int64_t items, int64_t threads, const Work& work) {
  const int64_t parts = std::max<int64_t>(1, std::min(threads, items));
  std::vector<std::exception_ptr> errors(parts);
  const auto run = [&](int64_t part) {
    try {
      work(items * part / parts, items * (part + 1) / parts);
    } catch (...) {
      errors[part] = std::current_exception();
    }
  };
  std::vector<std::thread> helpers;
  for (int64_t part = 1; part < parts; ++part) helpers.emplace_back(run, part);
  run(0);
  for (std::thread& helper : helpers) helper.join();
  for (const std::exception_ptr& error : errors) {
    if (error) std::rethrow_exception(error);
  }
}

}  // namespace fkdx
