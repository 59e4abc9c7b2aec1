"""Pages in headless Chromium: charts have marks, tables sort, boxes lie where they belong."""

import io

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from fkdx import LabelFile, cli

from label_draws import write_labels  # isort: skip

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def page_path(labelled, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "page.html"
    assert cli.main(["report", str(labelled[0]), "--images", str(labelled[1]), "-o", str(path)]) == 0
    return path


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_chart_has_marks(visit, page_path, scheme):
    page = visit(page_path.as_uri(), color_scheme=scheme)
    charts = page.locator("figure .chart")
    assert charts.count() >= 9
    for i in range(charts.count()):
        charts.nth(i).locator("svg .mark-rect, svg .mark-rule, svg path").first.wait_for(state="attached")
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (dark == "rgb(255, 255, 255)") == (scheme == "light")


def test_the_table_sorts_and_searches(visit, page_path):
    page = visit(page_path.as_uri())
    heading = page.get_by_role("button", name="mean largest probability")
    for order in ("ascending", "descending"):
        heading.click()
        assert heading.locator("..").get_attribute("aria-sort") == order
        scores = [float(text) for text in page.locator("#table tbody td:nth-child(4)").all_inner_texts()]
        assert scores == sorted(scores, reverse=order == "descending")
    page.locator("#search").fill("bee/")
    assert page.locator("#table tbody tr").count() == 3
    page.locator("#search").fill("")
    page.locator("#class").select_option("bee")
    for row in page.locator("#table tbody tr").all_inner_texts():
        assert "bee" in row


def test_sliders_move_the_thresholds(visit, page_path):
    page = visit(page_path.as_uri())
    slider = page.locator("#thresholds input[type=range]").first
    before = page.locator("#thresholds svg").inner_html()
    slider.evaluate("e => { e.value = 0.9; e.dispatchEvent(new Event('input')); }")
    page.wait_for_function("old => document.querySelector('#thresholds svg').innerHTML != old", arg=before)


def test_boxes_lie_where_pillow_draws_them(visit, page_path, labelled):
    """Every box of the image that is open covers, on the screen, the pixels of its part of the image."""
    page = visit(page_path.as_uri())
    key = page.locator("#viewer .key").inner_text()
    image = LabelFile(labelled[0])[key]
    stage = page.locator(".stage img").bounding_box()
    for button in page.locator(".stage .box").all():
        number = int(button.get_attribute("aria-label").removeprefix("crop "))
        top, left, height, width = image.boxes[number] / np.tile(image.image_size, 2)
        drawn = button.bounding_box()
        expected = (stage["x"] + left * stage["width"], stage["y"] + top * stage["height"],
                    width * stage["width"], height * stage["height"])  # fmt: skip
        assert (
            np.abs(np.subtract((drawn["x"], drawn["y"], drawn["width"], drawn["height"]), expected)).max()
            < 1.5
        )


def test_a_click_on_a_box_shows_its_crop(visit, page_path):
    page = visit(page_path.as_uri())
    first = page.locator("#crop img").get_attribute("src")
    page.locator(".viewer select").select_option(index=3)
    assert page.locator("#crop img").get_attribute("src") != first
    assert page.locator('.stage .box[aria-pressed="true"]').count() == 1
    page.locator("#crop svg").first.wait_for()


def test_a_hostile_key_runs_no_script(visit, page_path):
    page = visit(page_path.as_uri())
    assert page.locator("#table tbody td", has_text="onerror").count() == 1
    assert page.locator("img[src=x]").count() == 0
    assert page.title() != "1"


def test_a_phone_needs_no_sideways_scrolling(visit, page_path):
    page = visit(page_path.as_uri(), viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_dark_pixels_are_dark(visit, page_path):
    page = visit(page_path.as_uri(), color_scheme="dark")
    pixels = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("L"))
    assert np.median(pixels) < 60


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(visit, page_path, scheme):
    page = visit(page_path.as_uri(), color_scheme=scheme)
    found = Axe().run(page).response["violations"]
    serious = [fault for fault in found if fault["impact"] in ("serious", "critical")]
    assert not serious, "\n".join(f"{f['id']}: {[n['target'] for n in f['nodes'][:3]]}" for f in serious)


def test_a_page_of_embeddings(visit, labelled, tmp_path, rng):
    """On a phone: what is left without classes is drawn, sorts and opens."""
    sizes = dict.fromkeys(LabelFile(labelled[0]).keys, (120, 160))
    write_labels(tmp_path / "e.fkdl", rng, "embedding", sizes=sizes)
    report = [
        "report",
        str(tmp_path / "e.fkdl"),
        "--images",
        str(labelled[1]),
        "-o",
        str(tmp_path / "e.html"),
    ]
    assert cli.main(report) == 0
    page = visit((tmp_path / "e.html").as_uri(), viewport={"width": 390, "height": 800})
    charts = page.locator("figure .chart")
    assert charts.count() == 4
    for i in range(4):
        charts.nth(i).locator("svg .mark-rect, svg .mark-rule, svg path").first.wait_for(state="attached")
    assert page.locator("#table thead button").all_inner_texts() == ["key", "crops agree (cosine)", "spread"]
    cosines = [float(text) for text in page.locator("#table tbody td:nth-child(2)").all_inner_texts()]
    assert cosines == sorted(cosines)
    assert page.locator(".stage .box").count() == 7
    assert page.locator("#crop img").count() == 1
    assert not page.locator("#class").is_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert not Axe().run(page, options={"resultTypes": ["violations"]}).violations_count


def test_long_names_fit_on_a_phone(visit, rng, tmp_path):
    names = ["x" * 300, *"abc"]
    keys = [f"{names[i % 2]}/{'y' * 120}{i}.jpg" for i in range(6)]
    write_labels(
        tmp_path / "l.fkdl", rng, num_classes=4, k=2, sizes=dict.fromkeys(keys, (40, 40)), classes=names
    )
    assert cli.main(["report", str(tmp_path / "l.fkdl"), "-o", str(tmp_path / "l.html")]) == 0
    page = visit((tmp_path / "l.html").as_uri(), viewport={"width": 390, "height": 800})
    page.locator("#viewer .key").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
