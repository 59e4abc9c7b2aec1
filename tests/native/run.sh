#!/bin/sh
# Run the shared loop, and the CUDA kernels on the CPU: run.sh [plain | address,undefined | thread] [SEED]
set -eu
cd "$(dirname "$0")/../.."
sanitizers=${1:-plain}
seed=${2:-$(date +%s | tail -c 6)}
out=$(mktemp -d)
trap 'rm -rf "$out"' EXIT
flags="-std=c++17 -g -Wall -Wextra -Wno-psabi -Wno-unknown-pragmas -ffp-contract=fast -Icsrc -Itests/native"
quick=
case $sanitizers in
plain) flags="$flags -O2" ;;
thread)  # above -O0 gcc moves loads ahead of their condition; at -O0 vectors are not contracted to FMA, scalars say fma
    flags="$flags -O0 -fsanitize=thread" quick=quick
    export FKDX_CPU=scalar
    ;;
*) flags="$flags -O2 -fsanitize=$sanitizers -fno-sanitize-recover=all" ;;
esac
common="csrc/base/cpu.cpp csrc/base/parallel.cpp"
# shellcheck disable=SC2086
${CXX:-c++} $flags tests/native/parallel.cpp csrc/base/parallel.cpp -lpthread -o "$out/parallel"
"$out/parallel"
for room in loss batch; do
    # shellcheck disable=SC2086
    ${CXX:-c++} $flags "tests/native/${room}_kernels.cpp" csrc/$room/*.cpp $common -lpthread -o "$out/$room"
    ASAN_OPTIONS=detect_stack_use_after_return=0 "$out/$room" "$seed" $quick
done
