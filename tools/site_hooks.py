"""Hooks of mkdocs.yml: pages and examples from outside of docs/ join the site, and links to them lead there.

The project's README is the front page, docs/README.md the list of all pages.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
PAGES = {  # a page of the site: its source
    "index.md": "README.md",
    "contents.md": "docs/README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
EXAMPLES = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "examples").rglob("*.*"))]
SITE = {source: page for page, source in PAGES.items()}
LINK = re.compile(r"(\]\()([\w./-]+)(#[\w-]+)?(\))")
OUTSIDE = ("SECURITY.md", "CITATION.cff", "LICENSE")  # named on pages, not part of the site


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Pages that `nav` does not name yet come last among the guides."""
    named = re.findall(r"[\w/-]+\.md", str(config.nav))
    (guides,) = [entry["Guides"] for entry in config.nav if "Guides" in entry]
    pages = sorted(path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md"))
    guides += [page for page in pages if page not in (*named, "README.md")]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    files.remove(files.get_file_from_path("README.md"))
    for page, source in PAGES.items():
        files.append(File.generated(config, page, content=(ROOT / source).read_text()))
    for example in EXAMPLES:
        files.append(File.generated(config, example, content=(ROOT / example).read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links as GitHub takes them become links between pages of the site."""
    here = page.file.src_uri
    source = PAGES.get(here, f"docs/{here}")

    def moved(link: re.Match[str]) -> str:
        before, path, anchor, after = link.groups()
        target = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
        if target in OUTSIDE:
            return link[0]
        if not (ROOT / target).exists():
            raise PluginError(f"{source}: a link leads nowhere, {path}")
        at = SITE.get(target, target.removeprefix("docs/"))
        relative = posixpath.relpath(at, posixpath.dirname(here) or ".")
        return f"{before}{relative}{anchor or ''}{after}"

    return LINK.sub(moved, markdown)
