#!/bin/sh
# Everything that needs a GPU, in two calls of 330 and 400 seconds: build for this GPU, check, time; test, sanitize.
#
#     bench/gpu.sh [OUT [STEP...]]
#
#     bench/gpu.sh build/gpu first     build check loss batch generate train
#     bench/gpu.sh build/gpu second    build tests memcheck racecheck initcheck synccheck compile
#
# Each step's name is a STEP too; without one both calls' steps are run. OUT (default: build/gpu) gets log.txt, one
# JSON file a benchmark, and gpu.json with all numbers beside their goals. A step that fails, hangs or lacks something
# costs no other its result: each has a limit, and all together SECONDS_IN_ALL (default: 330, 400 or their sum).
# The tables of steps and numbers come last, also where the script is told to end (INT, TERM). The build is kept for
# the next call. PREBUILT=1 builds nothing: the extension, and FKDX_BUILD_DIR with gpu_check, were brought along.
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
case ${1:-} in
first) set -- build check loss batch generate train; seconds=330 ;;
second) set -- build tests memcheck racecheck initcheck synccheck compile; seconds=400 ;;
*) seconds=730 ;;
esac
wanted=" $* "
mkdir -p "$out" && out=$(cd "$out" && pwd) || exit 2
work=$(mktemp -d)
now=  # the step that is under way
trap finish EXIT
trap 'exit 143' INT TERM HUP
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
ends=$(($(date +%s) + ${SECONDS_IN_ALL:-$seconds}))
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
    else
        now=$name since=$start  # for `finish`, should this script end meanwhile
        timeout -k 5 "$limit" "$@" >>"$out/log.txt" 2>&1 &
        wait $!
        case $? in
        0) state=ok ;;
        124 | 137) state=SLOW ;;
        *) state=FAILED ;;
        esac
        now=
    fi
    done_with "$name" $state "$start"
}

# done_with NAME STATE START: a line of the table of steps, shown now and once more at the end
done_with() {
    [ "$2" = ok ] || failed="$failed $1"
    last=$(tail -n 1 "$out/log.txt")
    printf '%-10s %-6s %4d s   %s\n' "$1" "$2" $(($(date +%s) - $3)) "$last" | cut -c1-150 | tee -a "$work/steps"
}

# The last words, however this script ends.
finish() {
    code=$?
    trap '' INT TERM HUP
    if [ -n "$now" ]; then
        kill ${!:-} 2>/dev/null
        wait ${!:-} 2>/dev/null
        done_with "$now" CUT "$since"
    fi
    printf '\nsteps\n'
    cat "$work/steps" 2>/dev/null
    printf '\n'
    "$PYTHON" bench/gpu_table.py "$out"
    printf '\n'
    rm -rf "$work"
    [ "$code" = 0 ] || exit "$code"
    if [ -n "$failed" ]; then echo "FAILED:$failed (see $out/log.txt)"; exit 1; fi
    echo "all steps ok; numbers in $out/gpu.json"
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

echo "card   $(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2>&1 | head -n 1)" |
    tee "$out/log.txt" "$out/card.txt"
command -v nvidia-smi >/dev/null || failed="$failed gpu"
check=$FKDX_BUILD_DIR/gpu_check
mkdir -p "$FKDX_BUILD_DIR"
if [ -n "${PREBUILT:-}" ]; then
    step build 30 "" "$PYTHON" -c "from fkdx import _C; print('brought along:', _C.build_info())"
else
    if ! [ -x "$check" ] && wants check memcheck racecheck initcheck synccheck; then
        native "$check" >"$work/native.log" 2>&1 &
    fi
    if wants generate train; then pictures "$work/images" >"$work/pictures.log" 2>&1 & fi
    step build 200 "nvcc cmake ninja pybind11 setuptools" "$PYTHON" setup.py -q build_ext --inplace
    wait
fi
if wants generate train && ! [ -d "$work/images" ]; then pictures "$work/images" >"$work/pictures.log" 2>&1; fi
cat "$work"/*.log >>"$out/log.txt" 2>/dev/null
step check 30 "" "$check"
step loss 140 torch "$PYTHON" bench/loss.py --device cuda --json "$out/loss.json"
step batch 45 torch "$PYTHON" bench/batch.py --device cuda --json "$out/batch.json"
step generate 70 timm "$PYTHON" bench/generate.py --images "$work/images" --count 400 --turns 3 --teacher resnet50 \
    --device cuda --precision bfloat16 --batch-size 256 --json "$out/generate.json"
step train 90 "timm torchvision" "$PYTHON" bench/train.py --images "$work/images" --stored 50 --student resnet50 \
    --batch 256 --threads "$(nproc)" --seconds 4 --json "$out/train.json"
pytest="$PYTHON -m pytest -v -m gpu -p no:cacheprovider --continue-on-collection-errors --durations=15"
step tests 170 "pytest timm torchvision" $pytest -k "not compile" $(grep -rl "mark\.gpu" tests)
for tool in memcheck racecheck initcheck synccheck; do
    step $tool 60 compute-sanitizer compute-sanitizer --tool $tool --error-exitcode 1 "$check" quick
done
step compile 170 "pytest timm torchvision" $pytest -k compile $(grep -rl "mark\.gpu" tests)
exit 0
