#!/bin/sh
# Everything that needs a GPU, in under ten minutes: build for this GPU, check, time, test, sanitize.
#
#     bench/gpu.sh [OUT [STEP...]]    all steps, or some: build check loss batch tests generate train
#                                     memcheck racecheck initcheck synccheck
#
# OUT (default: build/gpu) gets log.txt, one JSON file a benchmark, and gpu.json with all numbers beside their
# goals, the table that is printed last. A step that fails, hangs or lacks something costs no other its result: each
# has a limit, and all together SECONDS_IN_ALL (default: 570). Two calls are safer than one; the build is kept:
#
#     bench/gpu.sh build/gpu build check loss batch generate train
#     bench/gpu.sh build/gpu tests memcheck racecheck initcheck synccheck
#
# Needs nvcc, a C++ compiler, the libjpeg-turbo headers and a Python with torch, numpy, Pillow, pybind11, cmake, ninja,
# setuptools, PyYAML, tqdm; some steps also timm, torchvision, safetensors, pytest. PYTHON names it (default:
# python3). Installs nothing and needs no network. Where the headers are missing, unpack Debian's packages on another
# machine of the same kind (Ubuntu's are libjpeg-turbo8 and libjpeg-turbo8-dev), bring the folder, and name it:
#
#     apt-get download libjpeg62-turbo libjpeg62-turbo-dev
#     for package in libjpeg62*.deb; do dpkg -x "$package" libjpeg; done
#     LIBJPEG=$PWD/libjpeg bench/gpu.sh
set -u
cd "$(dirname "$0")/.."
root=$(pwd)
out=${1:-build/gpu}
[ $# -gt 0 ] && shift
wanted=" $* "
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
PYTHON=${PYTHON:-python3}
export PATH="$(dirname "$(command -v "$PYTHON")"):$PATH:/usr/local/cuda/bin" PYTHONUNBUFFERED=1
export PYTHONPATH="$root:$root/tests${PYTHONPATH:+:$PYTHONPATH}"
export FKDX_CUDA=1 FKDX_CUDA_ARCHS="${FKDX_CUDA_ARCHS:-native}" FKDX_REQUIRE_CUDA=1
export FKDX_BUILD_DIR="${FKDX_BUILD_DIR:-build/gpu-extension}"
if [ -n "${LIBJPEG:-}" ]; then
    LIBJPEG=$(cd "$LIBJPEG" && pwd) || exit 2
    libraries=$LIBJPEG/usr/lib/$(uname -m)-linux-gnu
    export CMAKE_INCLUDE_PATH="$LIBJPEG/usr/include" CPATH="$LIBJPEG/usr/include:$LIBJPEG/usr/include/$(uname -m)-linux-gnu"
    export CMAKE_LIBRARY_PATH="$libraries" LD_LIBRARY_PATH="$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
fi
ends=$(($(date +%s) + ${SECONDS_IN_ALL:-570}))
failed=

# lacking WORD...: those that are neither a module of this Python nor a program here
lacking() {
    for word; do
        "$PYTHON" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$word') is None)" 2>/dev/null ||
            command -v "$word" >/dev/null || printf '%s ' "$word"
    done
}

# wants NAME...: whether one of these steps was asked for
wants() {
    [ "$wanted" = "  " ] && return 0
    for name; do
        case $wanted in *" $name "*) return 0 ;; esac
    done
    return 1
}

# step NAME SECONDS "NEEDS" CMD...: run with a limit, log to OUT/log.txt, say how it went
step() {
    name=$1 limit=$2 needs=$3
    shift 3
    wants "$name" || return
    start=$(date +%s)
    left=$((ends - start))
    [ "$limit" -lt "$left" ] || limit=$left
    printf '\n==== %s\n' "$name" >>"$out/log.txt"
    lacks=$(lacking $needs)
    if [ -n "$lacks" ]; then
        state=ABSENT
        echo "not here: $lacks" >>"$out/log.txt"
    elif [ "$limit" -le 0 ]; then
        state=LATE
        echo "no time was left" >>"$out/log.txt"
    elif timeout -k 5 "$limit" "$@" >>"$out/log.txt" 2>&1; then
        state=ok
    else
        [ $? -eq 124 ] && state=SLOW || state=FAILED
    fi
    [ $state = ok ] || failed="$failed $name"
    printf '%-10s %-6s %4d s   %s\n' "$name" $state $(($(date +%s) - start)) "$(tail -n 1 "$out/log.txt")" | cut -c1-150
}

native() {
    timeout 200 nvcc -std=c++17 -O2 -arch=native -lineinfo -Icsrc -Xcompiler -ffp-contract=fast,-Wno-psabi \
        tests/native/gpu_check.cu csrc/base/*.c* csrc/loss/*.c* csrc/batch/*.c* -o "$1"
}

# 512 pictures under 2048 names, so that an epoch is long
pictures() {
    "$PYTHON" - "$1" <<'PY'
import os, pathlib, sys
import numpy as np
from images import photo
from PIL import Image

rng = np.random.default_rng(0)
for i in range(512):
    path = pathlib.Path(sys.argv[1], f"class{i % 8}", f"{i}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(rng, 375, 500)).save(path, quality=90)
    for again in range(1, 4):
        os.link(path, path.with_name(f"{i + 512 * again}.jpg"))
PY
}

: >"$out/log.txt"
nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || failed="$failed gpu"
check=$FKDX_BUILD_DIR/gpu_check
mkdir -p "$FKDX_BUILD_DIR"
if wants check; then native "$check" >"$work/native.log" 2>&1 & fi
if wants generate train; then pictures "$work/images" >"$work/pictures.log" 2>&1 & fi
step build 200 "nvcc cmake ninja pybind11 setuptools" "$PYTHON" setup.py -q build_ext --inplace
wait
cat "$work"/*.log >>"$out/log.txt" 2>/dev/null
step check 30 "" "$check"
step loss 180 torch "$PYTHON" bench/loss.py --device cuda --json "$out/loss.json"
step batch 60 torch "$PYTHON" bench/batch.py --device cuda --json "$out/batch.json"
step tests 240 "pytest timm torchvision" "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider \
    --continue-on-collection-errors $(grep -rl "mark\.gpu" tests --include="test_*.py")
step generate 90 timm "$PYTHON" bench/generate.py --images "$work/images" --count 400 --turns 2 --teacher resnet50 \
    --device cuda --precision bfloat16 --batch-size 256 --json "$out/generate.json"
step train 120 "timm torchvision" "$PYTHON" bench/train.py --images "$work/images" --stored 50 --student resnet50 \
    --batch 256 --threads "$(nproc)" --json "$out/train.json"
for tool in memcheck racecheck initcheck synccheck; do
    step $tool 60 compute-sanitizer compute-sanitizer --tool $tool --error-exitcode 1 "$check" quick
done
echo
"$PYTHON" bench/gpu_table.py "$out"
echo
if [ -n "$failed" ]; then echo "FAILED:$failed (see $out/log.txt)"; exit 1; fi
echo "all steps ok; numbers in $out/gpu.json"
