#!/bin/sh
# Everything that needs a GPU, in under ten minutes: build for this GPU, tests, compute-sanitizer, timings.
#
#     bench/gpu.sh [OUT]        JSON and logs go to OUT (default: build/gpu); the table is printed last
#
# Needs nvcc, a C++ compiler, the libjpeg-turbo headers (CMAKE_PREFIX_PATH may name their folder) and a Python with
# torch, pybind11, cmake, ninja, pytest; PYTHON names it (default: python3). Installs nothing, uses no network.
set -u
cd "$(dirname "$0")/.."
out=${1:-${OUT:-build/gpu}}
mkdir -p "$out"
out=$(cd "$out" && pwd)
PYTHON=${PYTHON:-python3}
export PYTHONPATH=".:tests:${PYTHONPATH:-}" PYTHONUNBUFFERED=1 FKDX_CUDA=1 FKDX_CUDA_ARCHS=${FKDX_CUDA_ARCHS:-native} FKDX_REQUIRE_CUDA=1
export FKDX_BUILD_DIR=${FKDX_BUILD_DIR:-build/gpu-extension}
failed=

# step NAME SECONDS CMD...: run with a limit, log to OUT/NAME.log, say how it went
step() {
    name=$1 limit=$2
    shift 2
    start=$(date +%s)
    if timeout "$limit" "$@" >"$out/$name.log" 2>&1; then state=ok; else state=FAILED failed="$failed $name"; fi
    printf '%-12s %-6s %4d s   %s\n' "$name" "$state" $(($(date +%s) - start)) "$(tail -n 1 "$out/$name.log")" | cut -c1-150
}

check="$out/gpu_check"
sources="csrc/base/cuda.cu csrc/loss/loss_cuda.cu csrc/batch/prepare_cuda.cu csrc/batch/topk_cuda.cu csrc/base/cpu.cpp"
sources="$sources csrc/loss/entries.cpp csrc/loss/loss_cpu.cpp csrc/loss/loss_scalar.cpp csrc/loss/loss_avx2.cpp"
sources="$sources csrc/loss/loss_avx512.cpp csrc/batch/prepare_cpu.cpp csrc/batch/prepare_scalar.cpp"
sources="$sources csrc/batch/prepare_avx2.cpp csrc/batch/prepare_avx512.cpp"
flags="-std=c++17 -O2 -arch=native -lineinfo -Icsrc -Xcompiler -ffp-contract=fast,-Wno-psabi --threads 0"

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader || failed="$failed gpu"
nvcc $flags tests/native/gpu_check.cu $sources -o "$check" >"$out/native.log" 2>&1 &
step build 240 "$PYTHON" setup.py -q build_ext --inplace
wait
step check 30 "$check"
step tests 200 "$PYTHON" -m pytest -q -m gpu tests/test_gpu.py tests/test_pool.py tests/test_loader_mixed.py -p no:cacheprovider
if command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck initcheck synccheck; do
        step $tool 40 compute-sanitizer --tool $tool --error-exitcode 1 "$check" quick
    done
fi
step loss 150 "$PYTHON" bench/loss.py --device cuda --json "$out/loss.json"
step batch 60 "$PYTHON" bench/batch.py --device cuda --json "$out/batch.json"
step images 30 "$PYTHON" - "$out/images" <<'PY'
import pathlib, sys
import numpy as np
from images import photo
from PIL import Image

rng = np.random.default_rng(0)
for i in range(512):
    path = pathlib.Path(sys.argv[1], f"class{i % 8}", f"{i}.jpg")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(photo(rng, 375, 500)).save(path, quality=90)
PY
bf16="--device cuda --precision bfloat16 --batch-size 256"
step generate 60 "$PYTHON" bench/generate.py --images "$out/images" --teacher resnet50 --count 100 $bf16
step train 90 "$PYTHON" bench/train.py --images "$out/images" --student resnet50 --batch 256 --threads "$(nproc)"
rm -rf "$out/images"
echo
cat "$out/loss.log" "$out/batch.log" "$out/generate.log" "$out/train.log"
"$PYTHON" - "$out" <<'PY'
import json, pathlib, sys
out = pathlib.Path(sys.argv[1])
parts = {p.stem: json.loads(p.read_text()) for p in (out / "loss.json", out / "batch.json") if p.exists()}
(out / "gpu.json").write_text(json.dumps(parts, indent=1))
PY
echo
if [ -n "$failed" ]; then echo "FAILED:$failed (logs in $out)"; exit 1; fi
echo "all steps ok; numbers in $out/gpu.json"
