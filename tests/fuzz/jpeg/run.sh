#!/bin/sh
# Build the fuzzer of JPEG streams and run it: run.sh [plain | address,undefined] [SEED [COUNT [FIRST]]]
# Streams that are judged otherwise than by libjpeg-turbo are kept in build/fuzz/jpeg. libjpeg-turbo is the pinned one
# after `make build`, else the system's, or what the compiler's options in JPEG say.
set -eu
cd "$(dirname "$0")/../../.."
sanitizers=${1:-address,undefined} seed=${2:-$(date +%s | tail -c 6)} count=${3:-20000} first=${4:-0}
folder=build/fuzz/jpeg
program=$folder/$sanitizers
pinned=build/dev/libjpeg
if [ -f $pinned/build/libjpeg.a ]; then
    JPEG=${JPEG:--I$pinned/source/src -I$pinned/build $pinned/build/libjpeg.a}
fi
mkdir -p "$folder"
flags="-std=c++17 -g -O2 -Wall -Wextra -Icsrc -Itests/fuzz/jpeg -ffp-contract=off -Wno-uninitialized -Wno-maybe-uninitialized"
if [ "$sanitizers" != plain ]; then flags="$flags -fsanitize=$sanitizers -fno-sanitize-recover=all"; fi
# shellcheck disable=SC2086
${CXX:-c++} $flags tests/fuzz/jpeg/*.cpp csrc/image/crops.cpp csrc/image/entry_points.cpp \
    csrc/image/huffman.cpp csrc/image/huffman_scan.cpp csrc/image/idct_*.cpp csrc/image/jpeg.cpp csrc/base/crc32c.cpp \
    csrc/image/jpeg_internals.cpp csrc/image/resample.cpp csrc/image/taps.cpp csrc/image/unit_rows.cpp csrc/image/kernels_*.cpp csrc/base/cpu.cpp ${JPEG:--ljpeg} -o "$program"
exec "$program" "$seed" "$count" "$first" "$folder"
