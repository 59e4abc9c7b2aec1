#!/bin/sh
# Create the project's virtual environment: setup.sh PYTHON VENV. Called by the Makefile.
# As root it installs missing system packages with apt; otherwise it says in one line which to install.
set -eu
python=$1
venv=$2

stop() {
    echo "setup: $1" >&2
    exit 1
}

# need WHAT "TEST" DEBIAN-PACKAGES...: if the test fails, install the packages or print how to.
need() {
    what=$1 test=$2
    shift 2
    if sh -c "$test" >/dev/null 2>&1; then return; fi
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "setup: installing $what ($*)"
        apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null || true
        if sh -c "$test" >/dev/null 2>&1; then return; fi
    fi
    stop "missing $what; install it with: sudo apt-get install $*"
}

need "Python 3.11 or newer" "$python -c 'import sys; sys.exit(sys.version_info < (3, 11))'" python3
need "Python's venv module" "$python -c 'import ensurepip, venv'" python3-venv
need "Python's headers" "test -f \$($python -c 'import sysconfig; print(sysconfig.get_path(\"include\"))')/Python.h" python3-dev
need "a C++ compiler" "command -v c++" g++
# libjpeg-turbo is compiled in from its pinned source, which needs nasm; where either cannot be had, the system's is used.
jpeg=libjpeg62-turbo-dev
if grep -qi ubuntu /etc/os-release 2>/dev/null; then jpeg=libjpeg-turbo8-dev; fi
need "the libjpeg-turbo headers" "printf '#include <stdio.h>\n#include <jpeglib.h>\nint v = LIBJPEG_TURBO_VERSION_NUMBER;' | c++ -xc++ -fsyntax-only -" $jpeg

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v nasm >/dev/null; then
    echo "setup: installing nasm for libjpeg-turbo's SIMD"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq nasm; } >/dev/null 2>&1 || true
fi

# Pages are tested in a browser; without one those tests are skipped.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && ! command -v chromium >/dev/null; then
    echo "setup: installing Chromium for the tests of pages"
    { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium; } >/dev/null 2>&1 || true
fi

echo "setup: installing Python packages into $venv (torch is large: about two minutes)"
[ -x "$venv/bin/python" ] || "$python" -m venv "$venv"
# The build requirements and the test extra of pyproject.toml, without building fkdx itself.
requirements=$("$venv/bin/python" - <<'EOF'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))
extras = project["project"]["optional-dependencies"]
wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
for extra in extras.values():
    wanted += [name for name in extra if not name.startswith("fkdx[")]
print("\n".join(wanted))
EOF
)
echo "$requirements" | tr '\n' '\0' | xargs -0 "$venv/bin/python" -m pip install -q --disable-pip-version-check wheel \
    || stop "pip could not install the packages above; check the network to the package index"
