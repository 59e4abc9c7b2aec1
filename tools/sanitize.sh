#!/bin/sh
# Build the extension with sanitizers beside the usual one and run tests with it: sanitize.sh VENV SANITIZERS TESTS...
# SANITIZERS is "address,undefined" or "thread". Any report makes it fail.
set -eu
venv=$1 sanitizers=$2
shift 2
folder=build/sanitize-$(echo "$sanitizers" | tr , -)
if [ "$sanitizers" = thread ]; then runtime=libtsan.so; else runtime=libasan.so; fi

PATH="$PWD/$venv/bin:$PATH" FKDX_SANITIZE=$sanitizers FKDX_CUDA=0 FKDX_BUILD_DIR=$folder/cmake \
    "$venv/bin/python" setup.py -q build --build-base "$folder/base" --build-lib "$folder/package"

# The runtimes must come first in the process; libstdc++ with them, or they cannot see C++ exceptions.
export LD_PRELOAD="$(c++ -print-file-name=$runtime) $(c++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 TSAN_OPTIONS=halt_on_error=1:die_after_fork=0
export PYTHONPATH="$PWD/$folder/package" OMP_NUM_THREADS=1 FKDX_CUDA=0
# Sanitizers keep freed memory, so its amount says nothing; TSan cannot follow threads that a forked child starts.
set -- --deselect tests/loader/test_pool.py::test_memory_stays_flat --deselect tests/image/test_crops.py::test_errors_leak_nothing "$@"
if [ "$sanitizers" = thread ]; then set -- --deselect tests/loader/test_pool.py::test_fork "$@"; fi
exec "$venv/bin/pytest" -q -p no:cacheprovider --timeout 1200 "$@"
