"""The documentation as a site: it builds without a warning, and a reader finds and copies what is there."""

import functools
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from docs.conftest import ROOT

PAGES = ("", "quickstart/", "choosing/", "coming-from/fkd/", "how-it-works/", "scale/", "api/")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site; any warning, such as of a link that leads nowhere, is an error."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    return folder


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(built: Path) -> Iterator[str]:
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(built)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    thread.join()
    server.server_close()


def test_every_link_and_picture_leads_somewhere(built: Path) -> None:
    """Also those of the theme, and to headings; looked at in the HTML that was written."""
    missing = []
    for page in built.rglob("*.html"):
        if page.name == "404.html":
            continue
        html = page.read_text()
        for link in re.findall(r'(?:href|src)="([^"]+)"', html):
            path, _, anchor = link.partition("#")
            if re.match(r"[a-z]+:|//", link) or link.startswith("data:"):
                continue
            target = (page.parent / path).resolve() if path else page
            target = target / "index.html" if target.is_dir() else target
            found = target.exists()
            if found and anchor and target.suffix == ".html":
                found = f'id="{anchor}"' in target.read_text()
            if not found:
                missing.append((page.relative_to(built), link))
    assert missing == []


def test_nothing_is_loaded_from_elsewhere(site: str, browser) -> None:
    page, asked = browser.new_page(), []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(site)
    page.wait_for_load_state("networkidle")
    page.close()
    assert [url for url in asked if not url.startswith((site, "data:", "blob:"))] == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("path", PAGES)
def test_a_page_is_quiet_and_fits_a_phone(site: str, visit, path: str, scheme: str) -> None:
    """No errors on the console, nothing wider than the screen, and the colours that the reader wants."""
    page = visit(site + path, viewport={"width": 390, "height": 844}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    wanted = {"light": "default", "dark": "slate"}[scheme]
    page.wait_for_function(f"document.body.dataset.mdColorScheme === '{wanted}'")
    assert page.locator("h1").first.is_visible()
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    if folder := os.environ.get("FKDX_SCREENSHOTS"):
        page.screenshot(path=f"{folder}/{path.replace('/', '_') or 'index'}_{scheme}.png", full_page=True)


def test_the_search_finds_a_page(site: str, visit) -> None:
    page = visit(site)
    page.locator(".md-search__input").first.click()
    page.keyboard.type("SelfMix", delay=30)  # what is found changes with each letter
    first = "document.querySelector('.md-search-result__link')"
    page.wait_for_function(f"{first} && {first}.href.toLowerCase().includes('ferkd')")
    page.locator(".md-search-result__link").first.wait_for(state="visible")


def test_a_console_block_is_copied_without_prompts_and_output(site: str, visit) -> None:
    page = visit(site + "tutorials/own-loop/", permissions=["clipboard-read", "clipboard-write"])
    block = page.locator(".language-console").first
    block.hover()
    page.evaluate("navigator.clipboard.writeText('')")  # the pages of a browser have one clipboard
    block.locator(".md-code__button, .md-clipboard").first.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.length > 0)")
    assert page.evaluate("navigator.clipboard.readText()") == "python loop.py\n"


def test_other_code_is_copied_whole(site: str, visit) -> None:
    page = visit(site + "tutorials/own-loop/", permissions=["clipboard-read", "clipboard-write"])
    block = page.locator(".language-python").first
    block.hover()
    page.evaluate("navigator.clipboard.writeText('')")  # the pages of a browser have one clipboard
    block.locator(".md-code__button, .md-clipboard").first.click()
    page.wait_for_function("navigator.clipboard.readText().then((text) => text.length > 0)")
    copied = page.evaluate("navigator.clipboard.readText()")
    source = (ROOT / "docs/tutorials/own-loop.md").read_text()
    assert copied.strip() == re.search(r"```python\n(# loop.py.*?)```", source, re.S)[1].strip()
