// SPDX-License-Identifier: Apache-2.0
// Prints whether the library that is linked keeps its internals where the header says.
#include <cstdio>

#include "image/jpeg_internals.h"

int main() { std::printf("%s\n", fkdx::internals_fit() ? "fit" : "differ"); }
