"""The pages of docs/ are up to date and complete; tests/docs runs their commands."""

import ast
import re
import runpy
from collections.abc import Iterator
from pathlib import Path

import pytest

import fkdx

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    *sorted((ROOT / "docs").rglob("*.md")),
    *(ROOT / f"{n}.md" for n in ("README", "CONTRIBUTING", "CHANGELOG")),
]


def test_api_is_what_the_docstrings_say() -> None:
    """`make docs` writes the page."""
    api = runpy.run_path(str(ROOT / "tools/api.py"))
    assert (ROOT / "docs/api.md").read_text() == api["page"]()
    documented = {name for names in api["CHAPTERS"].values() for name in names}
    assert {f"fkdx.{name}" for name in fkdx.__all__} - documented == {"fkdx.__version__"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_lines_are_wrapped_and_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"```.*?```", "", text, flags=re.S)  # what programs print is as wide as it is
    long = [line for line in prose.splitlines() if len(line) > 120 and not line.startswith(("|", "    "))]
    assert long == []
    for link in re.findall(r"\]\(([\w./-]+\.(?:md|svg|png|py|yaml|sh))\)", text):
        assert (page.parent / link).exists(), link


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs/README.md").read_text()
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if f"({page})" not in index and page != "README.md"] == []


def test_troubleshooting_quotes_messages_that_exist() -> None:
    """Every fixed part of a message in a heading is somewhere in the sources."""
    page, known = (ROOT / "docs/troubleshooting.md").read_text(), "\n".join(literals())
    headings = re.findall(r"^### (.*)", page, re.M)
    quotes = [long or short for line in headings for long, short in re.findall(r"``(.+?) ``|`([^`]+)`", line)]
    assert len(quotes) >= 20
    parts = [part.strip(" ;,:()'") for quote in quotes for part in quote.split("...")]
    assert [part for part in parts if len(part) > 3 and part not in known] == []


def literals() -> Iterator[str]:
    """Texts in the sources, with a blank for every value that is put into them."""
    for path in (ROOT / "fkdx").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                yield "".join(part.value if isinstance(part, ast.Constant) else "" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
    native = (ROOT / "csrc").rglob("*.c[pu]*")
    for path in [ROOT / "CMakeLists.txt", *(ROOT / "cmake").iterdir(), *native]:
        yield re.sub(r'"\s*\n\s*"', "", path.read_text())
