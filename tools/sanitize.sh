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

# glibc frees the thread-local memory of threads that have ended, under a lock that TSan cannot see.
echo race:dl_deallocate_tls >"$folder/suppressions"
reports=$PWD/$folder/report  # pytest would keep to itself what they say as they end it
rm -f "$reports".*
# Sanitizers keep freed memory, so tests of memory are left out; TSan cannot follow threads of a forked child.
set -- --deselect tests/loader/test_pool.py::test_memory_stays_flat --deselect tests/image/test_crops.py::test_errors_leak_nothing "$@"
if [ "$sanitizers" = thread ]; then
    set -- --deselect tests/loader/test_pool.py::test_fork --deselect tests/loader/test_pool.py::test_workers_of_a_data_loader "$@"
fi
status=0
# The runtimes must be loaded first, and libstdc++ with them, or they miss C++ exceptions.
env LD_PRELOAD="$(c++ -print-file-name=$runtime) $(c++ -print-file-name=libstdc++.so)" \
    ASAN_OPTIONS="detect_leaks=0:log_path=$reports" UBSAN_OPTIONS="halt_on_error=1:log_path=$reports" \
    TSAN_OPTIONS="halt_on_error=1:die_after_fork=0:suppressions=$PWD/$folder/suppressions:log_path=$reports" \
    PYTHONPATH="$PWD/$folder/package" OMP_NUM_THREADS=1 FKDX_CUDA=0 \
    "$venv/bin/pytest" -q -p no:cacheprovider --timeout 1200 "$@" || status=$?
for report in "$reports".*; do
    if [ -s "$report" ]; then cat "$report" >&2; test $status != 0 || status=1; fi
done
exit $status
