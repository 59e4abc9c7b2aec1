#!/usr/bin/env python3
"""Run the commands of docs/quickstart.md and put their output into the page: tools/quickstart.py EMPTY_FOLDER

A Python block that begins with "# NAME" is saved as that file. In a console block, lines that begin with "$ "
are commands, and the lines that follow are their output.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/quickstart.md"
BLOCK = re.compile(r"```(python|console)\n(.*?)```", re.S)


def run_page(page: str, folder: Path) -> str:
    """The page with the outputs that its commands give in `folder`."""
    programs = folder / "bin"
    programs.mkdir(parents=True)
    for name, words in {"fkdx": "-m fkdx", "python": ""}.items():
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (programs / name).chmod(0o755)

    def run_block(block: re.Match[str]) -> str:
        kind, text = block.groups()
        if kind == "python":
            if name := re.match(r"# (\S+\.py)\n", text):
                (folder / name[1]).write_text(text)
            return block[0]
        commands = [line for line in text.splitlines() if line.startswith("$ ")]
        outputs = [run_command(line.removeprefix("$ "), folder) for line in commands]
        return "```console\n" + "".join(f"{line}\n{out}" for line, out in zip(commands, outputs)) + "```"

    return BLOCK.sub(run_block, page)


def run_command(command: str, folder: Path) -> str:
    """What a command prints. Raises RuntimeError, with its errors, where it fails."""
    environment = {
        **os.environ,
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }
    done = subprocess.run(command, shell=True, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"quickstart: failed: {command}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    PAGE.write_text(run_page(PAGE.read_text(), Path(sys.argv[1])))
