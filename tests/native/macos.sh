#!/bin/sh
# Cross-compile the whole extension for macOS on arm64 with zig's clang, headers and libSystem:
# macos.sh ZIG FOLDER; the result is FOLDER/_C.so
set -eu
zig=$1
out=$2
root=$(cd "$(dirname "$0")/../.." && pwd)
export FKDX_ZIG_TOOLS="$out/tools" CMAKE_TOOLCHAIN_FILE="$root/tests/native/macos.cmake"
export ZIG_GLOBAL_CACHE_DIR="$out/cache" ZIG_LOCAL_CACHE_DIR="$out/cache"
mkdir -p "$FKDX_ZIG_TOOLS"

# tool NAME WORDS: a program that is zig with these words first
tool() {
    printf '#!/bin/sh\n%s\n' "$2" >"$FKDX_ZIG_TOOLS/$1"
    chmod +x "$FKDX_ZIG_TOOLS/$1"
}
# zig's linker crashes on a bundle; a dynamic library has the same symbols.
link="for word; do shift; [ \"\$word\" = -bundle ] && word=-dynamiclib; set -- \"\$@\" \"\$word\"; done"
tool cc "exec '$zig' cc -target aarch64-macos.11.0 \"\$@\""
tool c++ "$link
exec '$zig' c++ -target aarch64-macos.11.0 \"\$@\""
tool ar "exec '$zig' ar \"\$@\""
tool ranlib "exec '$zig' ranlib \"\$@\""
tool install_name_tool "exit 1"

cmake -S "$root" -B "$out/build" -GNinja -DCMAKE_BUILD_TYPE=Release -DFKDX_OUTPUT="$out/_C.so" -DFKDX_WERROR=1 \
    -DFKDX_CUDA=0 -DFKDX_LIBJPEG=bundled -DPython_EXECUTABLE="$(command -v python)" \
    -Dpybind11_DIR="$(python -m pybind11 --cmakedir)"
cmake --build "$out/build"
