"""The commands and snippets of the pages run, print what the pages show, and name options that exist."""

import argparse
import re
import shlex
from pathlib import Path

import pytest
import snippets
from docs.conftest import ROOT, smaller

from fkdx import cli
from fkdx.train.read_recipe import read_recipe

PAGES = sorted(
    path
    for path in [*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"]
    if path.name != "log.md"  # history: its commands are those of their day
)
ELSEWHERE = ("api.md", "design.md", "README.md")  # test_examples.py, signatures only, test_readme.py
RUNNABLE = [
    path
    for path in PAGES
    if path.name not in ELSEWHERE and re.search(r"^```(console|python)$", path.read_text(), re.M)
]
NOT_RUN = {  # blocks that the tests cannot run, page by page; each says why on the page
    "docs/clusters.md": 4,
    "docs/importers.md": 2,
}


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_quick_start_runs(tmp_path: Path) -> None:
    """And prints what the page shows, but for numbers; on fewer images and passes."""
    page = (ROOT / "docs/quickstart.md").read_text()
    small = smaller(page)
    assert small != page
    assert settled(snippets.run_page(small, tmp_path)) == settled(small)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("path", [p for p in RUNNABLE if p.name != "quickstart.md"], ids=name)
def test_a_page_runs(path: Path, copied: Path) -> None:
    """In a folder with the quick start's files; `tools/snippets.py` writes its outputs anew."""
    page = path.read_text()
    assert settled(snippets.run_page(page, copied)) == settled(page)


def settled(page: str) -> str:
    """Masked, and with one line for all epochs in a row."""
    return re.sub(r"(epoch#[^\n]*\n)+", r"\1", snippets.masked(page))


def test_blocks_that_do_not_run_say_why_and_are_counted() -> None:
    """One more is a decision: it needs a new number here."""
    found = {name(path): len(snippets.NOT_RUN.findall(path.read_text())) for path in PAGES}
    assert {page: count for page, count in found.items() if count} == NOT_RUN


class Parsed(Exception):
    """All options of a command were understood."""


def commands(page: str) -> list[str]:
    """Every line of code that calls fkdx, continued lines joined, and such code within sentences."""
    code = re.findall(r"^```\w*\n(.*?)^```|((?:^ {4}.*\n(?:\n(?= {4}))*)+)", page, re.M | re.S)
    text = "\n".join(block or indented for block, indented in code).replace("\\\n", " ")
    verbs = "|".join(cli.VERBS)
    starts = rf"^\s*(?:\$ )?(?:srun )?(?:fkdx (?:{verbs})\b|torchrun .*?-m fkdx[. ]|python -m fkdx )"
    spans = re.findall(r"`([^`]+)`", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S).replace("\n", " "))
    return [line.strip() for line in [*text.splitlines(), *spans] if re.match(starts, line)]


def called(line: str) -> list[str]:
    """The words after `fkdx`, with a number in the place of a shell's variable."""
    line = re.sub(r"\$\w+", "7", line)
    line = re.split(r"\s+(?:#|\||&&|>|;)\s*", line.removeprefix("$ "))[0]
    words = [word for word in shlex.split(line) if word != "srun"]
    at = next(i for i, word in enumerate(words) if word == "fkdx" or word.startswith("fkdx."))
    return [*words[at].split(".")[1:], *words[at + 1 :]]


LINES = sorted({(name(path), line) for path in PAGES for line in commands(path.read_text())})


@pytest.fixture
def parsers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs end with Parsed once they know their options."""
    parse = argparse.ArgumentParser.parse_args

    def parse_only(self: argparse.ArgumentParser, args=None, namespace=None) -> None:
        parse(self, args, namespace)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)


def refusal(words: list[str], capsys: pytest.CaptureFixture) -> str | None:
    """What a program says against these options; None where it takes them."""
    verb, *rest = words
    if not rest or rest == ["--help"] or "..." in rest:
        return None if verb in cli.VERBS else "no such verb"
    try:
        if verb == "train":
            read_recipe(["fkd_resnet50" if word.endswith(".yaml") else word for word in rest])
            return None
        cli.main(words)
    except Parsed:
        return None
    except ValueError as error:
        return str(error)
    except SystemExit:
        pass
    return capsys.readouterr().err or "was not parsed"


def test_commands_name_options_that_exist(parsers_only: None, capsys) -> None:
    """Whatever their paths and values: each is given to the program's own parser."""
    assert len(LINES) > 30
    refused = {f"{page}: {line}": refusal(called(line), capsys) for page, line in LINES}
    wrong = [f"{line}: {said.splitlines()[-1]}" for line, said in refused.items() if said]
    assert wrong == [], "\n".join(wrong)
