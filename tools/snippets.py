#!/usr/bin/env python3
"""Run the code of a page and put what its commands print into it: tools/snippets.py PAGE FOLDER

In a console block, lines that begin with "$ " are commands and the lines that follow are their output; a line
"..." stands for output that is left out, and such a block is never rewritten. A Python block that begins with
"# NAME.py" is saved as that file; any other is run. Blocks below a line "*Not run by the tests: REASON.*" are
left alone, and so are blocks of other languages.

Commands run in FOLDER; `fkdx` and `python FILE` are forked (forked.py), so that they start at once.
"""

import os
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import forked

BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
NOT_RUN = re.compile(r"^\*Not run by the tests: ([^*]+)\.\*\n+```", re.M)


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
        return printed(forked.run(program, folder), line)
    return printed(subprocess.run(line, shell=True, cwd=folder, capture_output=True, text=True), line)


def run_python(text: str, folder: Path) -> str:
    (folder / "snippet.py").write_text(text)
    return printed(forked.run(["snippet.py"], folder), text)


def printed(done: subprocess.CompletedProcess, what: str) -> str:
    if done.returncode:
        raise RuntimeError(f"snippets: failed: {what}\n{done.stdout}{done.stderr}")
    return done.stdout


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")  # as `fkdx` has it, before the server loads torch
    PAGE = Path(sys.argv[1])
    PAGE.write_text(run_page(PAGE.read_text(), Path(sys.argv[2]).resolve()))
