// SPDX-License-Identifier: Apache-2.0
// Where an inverse DCT of x86-64 puts its samples. A variant includes this inside its unnamed namespace, so
// that each has the function in its own instructions.

// Vectors of two rows of eight samples each -> eight rows of the image, from this column on.
inline void store_rows(const __m128i (&pairs)[4], uint8_t* const* rows, size_t column) {
  for (int i = 0; i < 4; ++i) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(rows[2 * i] + column), pairs[i]);
    _mm_storeh_pi(reinterpret_cast<__m64*>(rows[2 * i + 1] + column), _mm_castsi128_ps(pairs[i]));
  }
}
