#!/bin/sh
# Build the wheel for this Python in dist/, and test it where neither compiler nor sources are: wheel.sh VENV
set -eu
venv=$1
work=$PWD/build/wheel
python=$PWD/$venv/bin/python
rm -rf "$work" && mkdir -p "$work/raw" "$work/bin" "$work/elsewhere" dist
unset FKDX_BUILD_DIR PYTHONPATH

echo "wheel: building"
"$python" -m pip wheel -q --no-build-isolation --no-deps -w "$work/raw" .
PATH="$PWD/$venv/bin:$PATH" "$python" -m auditwheel repair -w "$work/repaired" "$work"/raw/*.whl >"$work/auditwheel.log" 2>&1 \
    || { cat "$work/auditwheel.log"; exit 1; }
wheel=$(echo "$work"/repaired/*.whl)
"$python" tools/check_wheel.py "$wheel"

echo "wheel: installing it elsewhere"
"$python" -m venv "$work/venv"
before=$(date +%s)
"$work/venv/bin/pip" install -q --disable-pip-version-check "$wheel"
echo "wheel: installed with what it needs in $(($(date +%s) - before)) s"

# Tests, and what they read, without fkdx/ and csrc/; on the path: this environment and a handful of plain tools.
git ls-files -z tests bench docs examples tools README.md pyproject.toml | xargs -0 tar cf - | tar xf - -C "$work/elsewhere"
for tool in sh env cat cp ls mkdir mv ps rm sleep tr uname git tee grep; do ln -s "$(command -v $tool)" "$work/bin/"; done
export PATH="$work/venv/bin:$work/bin"
cd "$work/elsewhere"
fkdx doctor | tee doctor.txt
if grep -q "missing" doctor.txt; then exit 1; fi
# Other packages that the tests need are those of the project's environment, behind the wheel's own.
"$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    >"$("$work/venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tests_need.pth"
# Left out: tests of the sources themselves.
python -m pytest -q -n 2 --dist worksteal -p no:cacheprovider -m "not slow" \
    --ignore tests/docs --ignore tests/gpu --ignore tests/house --ignore tests/native --ignore tests/trust
cp "$wheel" "$OLDPWD/dist/"
echo "wheel: dist/${wheel##*/}"
