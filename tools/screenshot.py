#!/usr/bin/env python3
"""Photograph a page of `fkdx report` for README.md and docs/report.md: tools/screenshot.py

The page is that of the quick start's labels, so the quick start is run first, up to these. The picture keeps
the words that can be read on it, by which a test sees whether the page still has them.
"""

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import snippets
from PIL import Image
from PIL.PngImagePlugin import PngInfo

DOCS = Path(__file__).resolve().parents[1] / "docs"
PICTURE = DOCS / "images/report.png"
SIZE = (1100, 640)
WORDS = """() => [...document.querySelectorAll("h2, h3, label, text")]
    .map((one) => [one.childNodes[0].textContent.trim(), one.getBoundingClientRect()])
    .filter(([word, at]) => word && at.bottom > 0 && at.bottom <= innerHeight).map(([word]) => word)"""
DRAWN = "[...document.querySelectorAll('figure .chart')].every((chart) => chart.querySelector('svg'))"
SETTLED = """() => { const before = window.height; window.height = document.body.scrollHeight;
    return before === window.height; }"""


def main() -> None:
    from playwright.sync_api import sync_playwright

    with TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        photograph(browser, report_of_quick_start(folder), PICTURE)
        browser.close()


def report_of_quick_start(folder: Path) -> Path:
    """The page about its labels: its commands up to where a student is trained, and then `fkdx report`."""
    page = (DOCS / "quickstart.md").read_text()
    snippets.run_page(page[: page.index("\n## 5. ")], folder)
    words = ["report", "labels.fkdl", "--images", "photos/train", "-o", "report.html"]
    subprocess.run([sys.executable, "-m", "fkdx", *words], cwd=folder, check=True)
    return folder / "report.html"


def photograph(browser, page: Path, picture: Path) -> None:
    """One image of the page with its crops, in an open browser of playwright."""
    width, height = SIZE
    tab = browser.new_page(viewport={"width": width, "height": height}, color_scheme="light")
    tab.goto(page.resolve().as_uri())
    tab.locator("#table .link").first.click()
    tab.wait_for_selector("#crop svg")
    tab.wait_for_function(DRAWN)  # those above, one by one
    tab.wait_for_function(SETTLED, polling=500)
    tab.locator("#inspector").evaluate("(heading) => heading.scrollIntoView()")
    tab.screenshot(path=picture)
    words = tab.evaluate(WORDS)
    tab.close()
    about = PngInfo()
    about.add_text("shows", "\n".join(words))
    with Image.open(picture) as image:
        image.quantize(128).save(picture, pnginfo=about, optimize=True)


if __name__ == "__main__":
    main()
