# `make demo` and `make test` do everything; each sets up what it needs, once.
VENV   ?= .venv
PYTHON ?= python3
BIN     = $(VENV)/bin
PYTEST  = $(BIN)/python -m pytest -n 2 --dist worksteal
NATIVE  = $(shell find csrc cmake -type f) CMakeLists.txt setup.py fkdx/_version.py

# Development builds compile the CUDA part for one target only; `pip install .` builds them all.
export FKDX_CUDA_ARCHS ?= $(shell nvidia-smi >/dev/null 2>&1 && echo native || echo 90-real)
export FKDX_BUILD_DIR  ?= build/dev

.PHONY: demo test quick faults trust fuzz-labels fuzz-jpeg sanitize neon macos build wheel docs site fmt clean
demo: build            ## draw scenes, train a teacher, store its labels, train students
	$(BIN)/python -m fkdx demo

test: build            ## linters and all tests
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format --dry-run -Werror
	$(PYTEST)

quick: build           ## the linter and all tests but the slow ones: about two minutes on two cores
	$(BIN)/ruff check .
	$(PYTEST) -m "not slow"

faults: build          ## cut, flip and kill label files and jobs, and fill their disk: a quarter of an hour
	FKDX_FAULTS=full $(BIN)/python -m pytest tests/labels/test_faults.py tests/generate/test_faults.py --timeout 3600

SECONDS ?= 600
trust: build           ## damage, kills and planted bugs for SECONDS; goes on where it was broken off (needs clang-19)
	PYTHONPATH=.:tests $(BIN)/python -m trust $(SECONDS)

SANITIZE = clang++-19 -std=c++17 -O1 -g -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Icsrc
fuzz-labels:           ## fuzz the reader of label files for ten minutes (needs clang-19, libclang-rt-19-dev)
	mkdir -p build/fuzz/label_file
	$(SANITIZE) tests/fuzz/label_file.cpp csrc/labels/*.cpp csrc/base/*.cpp -ldl -o build/fuzz/label_file.bin
	build/fuzz/label_file.bin -max_total_time=600 -max_len=8192 -rss_limit_mb=1024 build/fuzz/label_file tests/fuzz/label_file

SEED ?= $(shell date +%s)
fuzz-jpeg:             ## a million random JPEG streams (or COUNT) under ASan + UBSan; SEED=1 repeats
	sh tests/fuzz/jpeg/run.sh address,undefined $(SEED) $(or $(COUNT),1000000)

SANITIZED ?= $(addprefix tests/image/test_,crops.py jpeg.py) $(addprefix tests/loader/test_,pool.py slots.py crop_loader.py bad_images.py validation_loader.py entry_points.py mixed.py) $(addprefix tests/stores/test_,stores.py index.py) tests/native/test_threads.py
sanitize: build        ## tests of native code under ASan + UBSan, then TSan: about ten minutes
	sh tools/sanitize.sh $(VENV) address,undefined $(SANITIZED)
	sh tools/sanitize.sh $(VENV) thread $(SANITIZED)
	sh tests/native/run.sh address,undefined
	sh tests/native/run.sh thread

neon: build            ## native tests of aarch64 under emulation (needs g++-aarch64-linux-gnu, qemu-user)
	FKDX_REQUIRE_NEON=1 $(BIN)/python -m pytest tests/native/test_kernels.py -k aarch64

macos: build           ## cross-compile the extension for macOS on arm64: three minutes of CPU (needs ziglang from PyPI)
	FKDX_REQUIRE_ZIG=1 $(BIN)/python -m pytest tests/native/test_macos.py --timeout 3600

build: $(VENV)/built   ## the virtual environment and the extension

wheel: build           ## the wheel for this Python in dist/, tested without compiler and sources: six minutes
	sh tools/wheel.sh $(VENV)

docs: build            ## write docs/api.md, docs/images and fkdx/_C.pyi again, all committed; then the site
	$(BIN)/python tools/api.py
	$(BIN)/python tools/figures.py
	$(BIN)/python tools/screenshot.py
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python tools/stub.py
	$(MAKE) site

site: build            ## the documentation as a site in build/site; warnings and dead links are errors
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet

fmt: build             ## format all code
	$(BIN)/ruff check --fix . && $(BIN)/ruff format .
	find csrc -name '*.h' -o -name '*.cpp' -o -name '*.cu' | xargs $(BIN)/clang-format -i

$(VENV)/installed: pyproject.toml tools/setup.sh
	sh tools/setup.sh $(PYTHON) $(VENV)
	touch $@

$(VENV)/built: $(VENV)/installed $(NATIVE)
	PATH="$(abspath $(BIN)):$$PATH" FKDX_WERROR=1 $(BIN)/pip install -q --no-build-isolation --no-deps -e .
	touch $@

clean:                 ## remove what was built; `rm -r .venv` removes the installation too
	rm -rf build dist *.egg-info fkdx/_C*.so $(VENV)/built
