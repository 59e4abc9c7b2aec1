// SPDX-License-Identifier: Apache-2.0
// Constants of the inverse DCT by Loeffler, Ligtenberg and Moschytz (ICASSP 1989) as libjpeg has them: times
// 2^kConstantBits; the first pass keeps kPass1Bits of them.
#pragma once

namespace fkdx::idct_constants {

constexpr int kConstantBits = 13, kPass1Bits = 2;
constexpr int k0_298 = 2446, k0_390 = 3196, k0_541 = 4433, k0_765 = 6270, k0_899 = 7373, k1_175 = 9633,
              k1_501 = 12299, k1_847 = 15137, k1_961 = 16069, k2_053 = 16819, k2_562 = 20995, k3_072 = 25172;

}  // namespace fkdx::idct_constants
