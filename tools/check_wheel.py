#!/usr/bin/env python3
"""Check what a wheel holds, and print its size: `python tools/check_wheel.py WHEEL`"""

import json
import sys
import zipfile
from pathlib import Path, PurePosixPath

LARGEST = 60e6  # bytes; above, CUDA moves to a wheel of its own
LICENSES = {
    "LICENSE",
    "libjpeg-turbo.md",
    "libjpeg-turbo-README.ijg",
    "libjpeg-turbo-simd-zlib.txt",
    "pybind11.txt",
}


def faults(wheel: Path) -> list[str]:
    """What is wrong with a wheel, as sentences."""
    found = []
    names = [PurePosixPath(name) for name in zipfile.ZipFile(wheel).namelist()]
    tops = {name.parts[0] for name in names if not name.parts[0].endswith(".dist-info")}
    if tops != {"fkdx"}:
        found.append(f"holds {sorted(tops)}, expected fkdx alone")
    if lacking := LICENSES - {name.name for name in names if "licenses" in name.parts}:
        found.append(f"lacks the licences {sorted(lacking)}")
    libraries = [name for name in names if {".so", ".dylib"} & set(name.suffixes)]
    if foreign := [str(name) for name in libraries if name.parent.name != "fkdx"]:
        found.append(f"brings shared libraries along: {foreign}")
    listed = {part["name"] for part in components(wheel)}
    if not {"pybind11", "libjpeg-turbo"} <= listed:
        found.append(f"lists the components {sorted(listed)}, expected pybind11 and libjpeg-turbo")
    if wheel.stat().st_size > LARGEST:
        found.append(f"takes {wheel.stat().st_size / 1e6:.1f} MB, expected at most {LARGEST / 1e6:.0f}")
    return found


def components(wheel: Path) -> list[dict]:
    with zipfile.ZipFile(wheel) as archive:
        path = next((name for name in archive.namelist() if name.endswith("sboms/fkdx.cdx.json")), None)
        return json.loads(archive.read(path))["components"] if path else []


def main(wheel: Path) -> int:
    found = faults(wheel)
    for fault in found:
        print(f"{wheel.name}: {fault}", file=sys.stderr)
    parts = ", ".join(f"{part['name']} {part['version']}" for part in components(wheel))
    size = sum(info.file_size for info in zipfile.ZipFile(wheel).infolist())
    print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.2f} MB, {size / 1e6:.2f} MB unpacked, with {parts}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
