// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

// A heap buffer that starts `offset` bytes after a 16-byte boundary and ends with its last byte.
struct Buffer {
  std::vector<char> bytes;
  char* data;

  Buffer(size_t size, size_t offset, char fill) : bytes(size + offset, fill) {
    while (reinterpret_cast<uintptr_t>(bytes.data()) % 16) bytes = std::vector<char>(size + offset, fill);
    data = bytes.data() + offset;
  }
};
