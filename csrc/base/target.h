// SPDX-License-Identifier: Apache-2.0
// Functions for CPUs that have more instructions than the rest of the program may use. GCC and clang spell it
// differently:
//
//   FKDX_BEGIN_TARGET("avx2,fma")
//   ...
//   FKDX_END_TARGET
#pragma once

#define FKDX_PRAGMA(text) _Pragma(#text)

#ifdef __clang__
#define FKDX_BEGIN_TARGET(features) \
  FKDX_PRAGMA(clang attribute push(__attribute__((target(features))), apply_to = function))
#define FKDX_END_TARGET FKDX_PRAGMA(clang attribute pop)
#else
#define FKDX_BEGIN_TARGET(features) FKDX_PRAGMA(GCC push_options) FKDX_PRAGMA(GCC target(features))
#define FKDX_END_TARGET FKDX_PRAGMA(GCC pop_options)
#endif
