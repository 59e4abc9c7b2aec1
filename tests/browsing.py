"""Pages in a headless Chromium."""

import shutil
from collections.abc import Iterator

import pytest

PATIENCE = 200_000.0  # milliseconds that a page may take to be as it shall, on a busy machine


@pytest.fixture(scope="session")
def browser() -> Iterator:
    """Headless Chromium; the tests are skipped where there is none."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    quiet = [
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ]
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(
            executable_path=chromium,
            args=["--no-sandbox", "--disable-gpu", "--disable-quic", *quiet],
            timeout=PATIENCE,
        )
        yield opened
        opened.close()


@pytest.fixture
def visit(browser):
    """visit(url, **options of the page) opens a page, and fails the test for any error on its console."""
    pages, errors = [], []

    def open_page(url: str, **options):
        page = browser.new_page(**{"viewport": {"width": 1280, "height": 900}, **options})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.set_default_timeout(PATIENCE)
        page.goto(url)
        page.wait_for_function(
            "[...document.querySelectorAll('figure .chart')].every((chart) => chart.querySelector('svg'))"
        )
        pages.append(page)
        return page

    yield open_page
    for page in pages:
        page.close()
    assert not errors
