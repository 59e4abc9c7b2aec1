"""The screenshot on the pages is that of what `fkdx report` writes today; `make docs` takes it anew."""

import importlib
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from docs.conftest import ROOT
from PIL import Image, ImageFilter

from fkdx import cli

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def screenshot() -> ModuleType:
    """tools/screenshot.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "tools"))
        return importlib.import_module("screenshot")


@pytest.fixture
def today(screenshot: ModuleType, copied: Path, browser, monkeypatch: pytest.MonkeyPatch) -> Image.Image:
    """The same of a page of today, of other labels."""
    monkeypatch.chdir(copied)
    assert cli.main(["report", "labels.fkdl", "--images", "photos/train", "-o", "page.html"]) == 0
    screenshot.photograph(browser, copied / "page.html", copied / "picture.png")
    return Image.open("picture.png")


def blurred(image: Image.Image) -> np.ndarray:
    """So that letters and numbers do not count, but where boxes, pictures and words lie."""
    return np.asarray(image.convert("L").filter(ImageFilter.GaussianBlur(12)), np.float64)


def test_the_screenshot_is_that_of_the_page(screenshot: ModuleType, today: Image.Image) -> None:
    kept = Image.open(screenshot.PICTURE)
    assert kept.size == today.size == screenshot.SIZE
    named = {"circle", "square", "triangle"}  # classes come in the order of their probabilities
    words, now = (image.text["shows"].splitlines() for image in (kept, today))
    assert [word for word in words if word not in named] == [word for word in now if word not in named]
    moved = np.abs(blurred(kept) - blurred(today)) > 48
    assert moved.mean() < 0.08, "run make docs, and look at docs/images/report.png"
