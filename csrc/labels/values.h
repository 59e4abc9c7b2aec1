// SPDX-License-Identifier: Apache-2.0
// Loops over values of a record, in vectors: an embedding has thousands of them.
#pragma once

#include <cstdint>

namespace fkdx {

// `count` float16 values that begin at bit `shift` (0 to 7) of `from`. Reads up to 2 bytes behind them.
void decode_halves(const uint8_t* from, uint32_t shift, uint32_t count, float* out);

// `count` codes of -128 to 127 times `scale`; reads up to a byte behind them.
void decode_codes(const uint8_t* from, uint32_t shift, uint32_t count, float scale, float* out);

bool all_finite(const float* values, uint32_t count);

}  // namespace fkdx
