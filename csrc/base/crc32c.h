// SPDX-License-Identifier: Apache-2.0
// CRC-32C (Castagnoli): the checksum of label files and data indexes.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fkdx {

// Extends `crc` (0 to begin) by `size` bytes. Uses the CPU's instruction where the selected variant has it.
uint32_t crc32c(uint32_t crc, const void* data, size_t size);

}  // namespace fkdx
