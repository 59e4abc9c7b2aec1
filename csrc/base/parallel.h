// SPDX-License-Identifier: Apache-2.0
// A loop over independent items, shared by the calling thread and helpers that stay.
#pragma once

#include <cstdint>
#include <functional>

namespace fkdx {

using Range = std::function<void(int64_t begin, int64_t end)>;

// Calls work(begin, end) for pieces that cover 0 ... items - 1, on this thread and at most threads - 1
// helpers, and returns when all are done; rethrows the error of the first piece that failed. Which thread
// takes which piece is chance. Helpers start when first wanted and sleep between calls; after a fork the
// child starts its own. Of several callers at a time one gets the helpers, the others work alone.
void parallel(int64_t items, int64_t threads, const Range& work);

}  // namespace fkdx
