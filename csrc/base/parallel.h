// SPDX-License-Identifier: Apache-2.0
// A loop over independent items on the threads that torch computes with.
#pragma once

#include <cstdint>
#include <functional>

namespace fkdx {

using Range = std::function<void(int64_t begin, int64_t end)>;

// Calls work(begin, end) for pieces that cover 0 ... items - 1, on this thread and at most threads - 1
// others, and returns when all are done; rethrows the error of the first piece that failed. Which thread
// takes which piece is chance. Without torch's threads, and in a forked child, this thread does it all.
void parallel(int64_t items, int64_t threads, const Range& work);

}  // namespace fkdx
