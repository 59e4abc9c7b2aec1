#!/usr/bin/env python3
"""Run the code of a page and put what its commands print into it: tools/snippets.py PAGE FOLDER

In a console block, lines that begin with "$ " are commands and the lines that follow are their output; a line
"..." stands for output that is left out, and such a block is never rewritten. A Python block that begins with
"# NAME.py" is saved as that file; any other is run. Blocks below a line "*Not run by the tests: REASON.*" are
left alone, and so are blocks of other languages.

Commands run in FOLDER. `fkdx` and `python FILE` are forked from a process that has loaded torch, so that they
start at once.
"""

import multiprocessing
import os
import re
import runpy
import shlex
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NOT_RUN = re.compile(r"^\*Not run by the tests: ([^*]+)\.\*\n+```", re.M)
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["fkdx.train.loop", "fkdx.generate.program"])


@dataclass(frozen=True)
class Command:
    """A line of a console block, and the output that the page shows below it."""

    line: str
    shown: str


def run_page(page: str, folder: Path) -> str:
    """The page with the outputs that its commands give in `folder`, where it shows them whole."""
    skipped = {match.end() - 3 for match in NOT_RUN.finditer(page)}
    parts, end = [], 0
    for block in BLOCK.finditer(page):
        parts.append(page[end : block.start()])
        parts.append(block[0] if block.start() in skipped else run_block(block[1], block[2], folder))
        end = block.end()
    return "".join([*parts, page[end:]])


def run_block(language: str, text: str, folder: Path) -> str:
    """A block as it is after it was run."""
    whole = f"```{language}\n{text}```"
    if language == "python":
        if name := re.match(r"# (\S+\.py)\n", text):
            (folder / name[1]).write_text(text)
        else:
            run_python(text, folder)
    if language != "console":
        return whole
    commands = split_commands(text)
    outputs = [run_command(command.line, folder) for command in commands]
    if "\n...\n" not in f"\n{text}":
        return "```console\n" + "".join(f"$ {c.line}\n{out}" for c, out in zip(commands, outputs)) + "```"
    for command, output in zip(commands, outputs):
        check_shown(command, output)
    return whole


def split_commands(text: str) -> list[Command]:
    """The commands of a console block; one that ends with a backslash goes on in the next line."""
    commands = re.split(r"^\$ ", text, flags=re.M)[1:]
    found = []
    for command in commands:
        line, shown = re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*\n)(.*)", command, re.S).groups()
        found.append(Command(line.rstrip("\n"), shown))
    return found


def check_shown(command: Command, output: str) -> None:
    """Raises ValueError where the output is not the one shown, but for numbers and lines "..."."""
    parts = [re.escape(masked(part)) for part in re.split(r"^\.\.\.\n", command.shown, flags=re.M)]
    if not re.fullmatch(".*".join(parts), masked(output), re.S):
        raise ValueError(f"snippets: {command.line} printed\n{output}\nexpected\n{command.shown}")


def masked(text: str) -> str:
    """Without digests, bars of histograms, and numbers with the blanks around them."""
    text = re.sub(r"\b[0-9a-f]{16,}\b|[ #]+$", "", text, flags=re.M)
    return re.sub(r"[ \t]*-?\d[\d.,e+]*[ \t]*", "#", text)


def run_command(line: str, folder: Path) -> str:
    """What a command prints. Raises RuntimeError, with its errors, where it fails."""
    words = shlex.split(line.replace("\\\n", " "))
    if words[0] in ("fkdx", "python") and not set(words) & set("|>;&"):
        program = ["-m", "fkdx", *words[1:]] if words[0] == "fkdx" else words[1:]
        return in_process(run_program, (program, folder), line)
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"snippets: failed: {line}\n{done.stdout}{done.stderr}")
    return done.stdout


def run_python(text: str, folder: Path) -> str:
    (folder / "snippet.py").write_text(text)
    return in_process(run_program, (["snippet.py"], folder), text)


def in_process(target: Callable, args: tuple, what: str) -> str:
    """What a fresh process prints. Raises RuntimeError, with its errors, where it fails."""
    folder = args[-1]
    process = SERVER.Process(target=target, args=args)
    process.start()
    process.join()
    out, errors = ((folder / name).read_text() for name in (".stdout", ".stderr"))
    if process.exitcode:
        raise RuntimeError(f"snippets: failed: {what}\n{out}{errors}")
    return out


def run_program(words: list[str], folder: Path) -> None:
    """Be `python WORDS` in that folder, with the output in its files .stdout and .stderr."""
    os.chdir(folder)
    for number, name in ((1, ".stdout"), (2, ".stderr")):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
    status = 0
    try:
        if words[0] == "-m":
            sys.argv = [words[1], *words[2:]]
            runpy.run_module(words[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = words
            sys.path.insert(0, str(folder))
            runpy.run_path(words[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as `fkdx` has it, before the server loads torch
    PAGE = Path(sys.argv[1])
    PAGE.write_text(run_page(PAGE.read_text(), Path(sys.argv[2]).resolve()))
