// SPDX-License-Identifier: Apache-2.0
// Large outputs in huge pages: the kernel zeroes and maps new memory 2 MiB at a time instead of 4 KiB.
#pragma once

#include <cstddef>

namespace fkdx {

// Asks for huge pages in the whole pages of `memory`, best before it is first written. A wish: memory that is
// small, or a kernel that has none, stays as it is.
void prefer_huge_pages(void* memory, size_t bytes);

}  // namespace fkdx
