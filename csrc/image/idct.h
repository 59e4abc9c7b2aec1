// SPDX-License-Identifier: Apache-2.0
// The inverse DCT of JPEG, exactly as libjpeg-turbo's accurate integer one in its vector form, even where
// coefficients are so large that sums overflow.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fkdx {

// Of 64 coefficients, in rows and at a multiple of 64 bytes, times their quantisation: 8 x 8 samples go to
// rows[0..7], from `column` on, and zeros take the place of the coefficients.
using Idct = void (*)(int16_t* coefficients, const uint16_t* quantisation, uint8_t* const* rows,
                      size_t column);

void idct_avx2(int16_t* coefficients, const uint16_t* quantisation, uint8_t* const* rows, size_t column);

// Null where this CPU lacks VNNI or VBMI, which not every one with AVX-512 has.
Idct idct_avx512();

}  // namespace fkdx
