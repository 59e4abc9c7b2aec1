"""The pictures of the pages show the numbers and files of the pages; `make docs` draws them."""

import re
import runpy

import pytest
from docs.conftest import ROOT

IMAGES = ROOT / "docs/images"


@pytest.fixture(scope="module")
def figures() -> dict:
    return runpy.run_path(str(ROOT / "tools/figures.py"))


def test_the_picture_of_speeds_is_that_of_the_table(figures: dict) -> None:
    rows, picture = figures["loading"](), (IMAGES / "speed.svg").read_text()
    assert len(rows) >= 12
    shown = [row for row in rows if row["m"] == "m = 4" and row["loader"] != "fkdx with entry points"]
    bars = [
        f"crops per second: {row['crops per second']}; loader: {figures['without_version'](row['loader'])}"
        for row in shown
    ]
    assert len(bars) >= 5
    assert [bar for bar in bars if bar not in picture] == []


def test_the_picture_of_calibration_is_that_of_the_quick_start(figures: dict) -> None:
    shares, picture = figures["histogram"](), (IMAGES / "calibration.svg").read_text()
    assert len(shares) == 20
    assert sum(share for *_, share in shares) == pytest.approx(100, abs=1)
    assert [share for *_, share in shares if f"of the crops: {share:g};" not in picture] == []
    thresholds = " ".join(map(str, figures["THRESHOLDS"]))
    assert f"--thresholds {thresholds} " in (ROOT / "docs/tutorials/ferkd.md").read_text()


def test_the_way_of_a_crop_leads_through_files_that_exist(figures: dict) -> None:
    stages = [*figures["ONCE"], *figures["EVERY_EPOCH"], *figures["STEP"]]
    files = [where if where.startswith("csrc") else f"fkdx/{where}" for _, where in stages]
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert figures["way_of_a_crop"]() == (IMAGES / "crop.svg").read_text()


def test_files_named_on_how_it_works_exist() -> None:
    page = (ROOT / "docs/how-it-works.md").read_text()
    files = re.findall(r"`((?:fkdx|csrc)/[\w/.]+)`", page)
    assert len(files) > 12
    assert [file for file in files if not (ROOT / file).exists()] == []
