#!/bin/sh
# Run the shared loop, the CUDA kernels on the CPU, and every CPU variant of a resize:
# run.sh [plain | address,undefined | thread | aarch64] [SEED [quick [image]]], image: that program alone
# aarch64 cross-compiles all and runs it under emulation (needs g++-aarch64-linux-gnu and qemu-user).
set -eu
cd "$(dirname "$0")/../.."
sanitizers=${1:-plain}
seed=${2:-$(date +%s | tail -c 6)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c++17 -Wall -Wextra -Wno-psabi -Wno-unknown-pragmas -Wno-uninitialized -Wno-maybe-uninitialized -Itests/native/on_cpu -Icsrc -Itests/native"
cxx=${CXX:-c++} emulator='' quick=${3:-} only=${4:-}
case $sanitizers in
plain) flags="$flags -O2" ;;
aarch64) flags="$flags -O2 -Werror -static" cxx=aarch64-linux-gnu-g++ emulator='qemu-aarch64 -cpu max' quick=quick ;;
thread)  # above -O0 gcc moves loads ahead of their condition; at -O0 vectors are not contracted to FMA, scalars say fma
    flags="$flags -g -O0 -fsanitize=thread" quick=quick
    export FKDX_CPU=scalar
    ;;
*) flags="$flags -g -O2 -fsanitize=$sanitizers -fno-sanitize-recover=all" ;;
esac

# build NAME SOURCES...
build() {
    # shellcheck disable=SC2086
    $cxx $flags "$@" csrc/base/parallel.cpp -rdynamic -lpthread -ldl -o "$out/program"
}

if [ "$only" != image ]; then
    build tests/native/parallel.cpp
    $emulator "$out/program"
    for room in loss batch; do
        build -ffp-contract=fast "tests/native/${room}_kernels.cpp" csrc/$room/*.cpp csrc/base/cpu.cpp csrc/base/huge_pages.cpp
        ASAN_OPTIONS=detect_stack_use_after_return=0 $emulator "$out/program" "$seed" $quick
    done
fi
build -ffp-contract=off tests/native/image_kernels.cpp csrc/image/kernels_*.cpp csrc/image/idct_*.cpp \
    csrc/image/resample.cpp csrc/image/taps.cpp csrc/base/crc32c.cpp csrc/image/random_boxes.cpp csrc/base/cpu.cpp
$emulator "$out/program" "$seed" $quick
if [ "$sanitizers" = aarch64 ]; then qemu-aarch64 -cpu cortex-a72 "$out/program" "$seed" $quick; fi  # no dot products
