#!/bin/sh
# Build a second extension with sanitizers and run tests with it: sanitize.sh VENV SANITIZERS TESTS...
# SANITIZERS is "address,undefined" or "thread". Any report of a sanitizer is a failure.
set -eu
venv=$1 sanitizers=$2
shift 2
folder=build/sanitize-$(echo "$sanitizers" | tr , -)
if [ "$sanitizers" = thread ]; then runtime=libtsan.so; else runtime=libasan.so; fi

PATH="$PWD/$venv/bin:$PATH" FKDX_SANITIZE=$sanitizers FKDX_CUDA=0 FKDX_BUILD_DIR=$folder/cmake \
    "$venv/bin/python" setup.py -q build --build-base "$folder/base" --build-lib "$folder/package"

# The runtimes must be loaded first, and libstdc++ with them, or they miss C++ exceptions.
export LD_PRELOAD="$(c++ -print-file-name=$runtime) $(c++ -print-file-name=libstdc++.so)"
export ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=halt_on_error=1 TSAN_OPTIONS=halt_on_error=1:die_after_fork=0
export PYTHONPATH="$PWD/$folder/package" OMP_NUM_THREADS=1 FKDX_CUDA=0
# Sanitizers keep freed memory, so tests of memory are left out; TSan cannot follow threads of a forked child.
set -- --deselect tests/loader/test_pool.py::test_memory_stays_flat --deselect tests/image/test_crops.py::test_errors_leak_nothing "$@"
if [ "$sanitizers" = thread ]; then
    set -- --deselect tests/loader/test_pool.py::test_fork --deselect tests/loader/test_pool.py::test_workers_of_a_data_loader "$@"
fi
exec "$venv/bin/pytest" -q -p no:cacheprovider --timeout 1200 "$@"
