#!/usr/bin/env python3
"""Draw the pictures of the pages, from the numbers on the pages: tools/figures.py

speed.svg from docs/figures.md, calibration.svg from the histogram in docs/quickstart.md, crop.svg from the
lists of stages below.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import altair

DOCS = Path(__file__).resolve().parents[1] / "docs"
IMAGES = DOCS / "images"
OURS, OTHERS = "#00796b", "#b0bec5"
FATES = {"never shown": "#b0bec5", "learns the class": "#ffb74d", "keeps its label": OURS}
THRESHOLDS = (0.4, 0.5, 0.95)  # of docs/tutorials/ferkd.md

ONCE = [
    ("image and its box", "generate/draw.py"),
    ("crop", "generate/feed.py"),
    ("teacher", "models/teacher.py"),
    ("top K", "batch"),
    ("label file", "labels/writer.py"),
]
EVERY_EPOCH = [
    ("which crops", "loader/sampler.py"),
    ("read label", "labels/file.py"),
    ("decode region", "csrc/image/jpeg.cpp"),
    ("crop, resize, flip", "csrc/image/resample.cpp"),
    ("normalise, mix", "batch/prepare.py"),
]
STEP = [("student", "train/loop.py"), ("target", "loss/target.py"), ("loss and gradient", "csrc/loss")]


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    save(speed(), "speed.svg")
    save(calibration(), "calibration.svg")
    (IMAGES / "crop.svg").write_text(way_of_a_crop())


def save(chart: altair.Chart, name: str) -> None:
    chart = chart.configure(background="white", font="sans-serif").configure_view(stroke=None)
    chart.save(str(IMAGES / name))
    path = IMAGES / name
    path.write_text(path.read_text().rstrip() + "\n")


def loading() -> list[dict[str, object]]:
    """The table of docs/figures.md: a row for each loader and m."""
    table = re.search(r"\| 2026\S* \| m = 1 .*?\n\n", (DOCS / "figures.md").read_text(), re.S)[0]
    found = re.findall(r"^\| ([a-zA-Z][^|]*?) \| (\d+) \| (\d+) \| (\d+) \|$", table, re.M)
    return [
        {"loader": name, "m": f"m = {m}", "crops per second": int(rate)}
        for name, *rates in found
        for m, rate in zip((1, 4, 8), rates)
    ]


def speed() -> altair.Chart:
    """Four crops of each image, the default, and without an index; large enough to be read on a phone."""
    rows = [
        row | {"loader": without_version(row["loader"])}
        for row in loading()
        if row["m"] == "m = 4" and row["loader"] != "fkdx with entry points"
    ]
    names = [row["loader"] for row in rows]
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("crops per second:Q", axis=None),
        y=altair.Y(
            "loader:N", sort=names, title=None, axis=altair.Axis(ticks=False, domain=False, labelFontSize=16)
        ),
    )
    colour = altair.condition(altair.datum.loader == "fkdx", altair.value(OURS), altair.value(OTHERS))
    bars = base.mark_bar(height=22).encode(color=colour)
    numbers = base.mark_text(align="left", dx=5, fontSize=16).encode(text="crops per second:Q")
    title = altair.Title("crops per second of one core", anchor="start", fontSize=16, fontWeight="normal")
    return (bars + numbers).properties(width=270, height=150, title=title)


def without_version(loader: str) -> str:
    """'torchcodec' of 'torchcodec 0.17 + torch resize'."""
    return re.match(r"\w+", loader)[0]


def histogram() -> list[tuple[float, float, float]]:
    """(low, high, percent) of the histogram that docs/quickstart.md shows."""
    found = re.findall(r"^  (\d\.\d\d) to (\d\.\d\d) +([\d.]+)%", (DOCS / "quickstart.md").read_text(), re.M)
    return [tuple(map(float, row)) for row in found]


def fate(low: float) -> str:
    bottom, middle, top = THRESHOLDS
    if low < bottom or low >= top:
        return "never shown"
    return "learns the class" if low < middle else "keeps its label"


def calibration() -> altair.Chart:
    rows = [{"from": a, "to": b, "percent": share, "crop": fate(a)} for a, b, share in histogram()]
    colours = altair.Scale(domain=list(FATES), range=list(FATES.values()))
    axis = altair.Axis(labelFontSize=14, titleFontSize=14, titleFontWeight="normal", tickCount=5)
    legend = altair.Legend(orient="top", direction="horizontal", labelFontSize=14)
    return (
        altair.Chart(altair.Data(values=rows))
        .mark_bar(stroke="white")
        .encode(
            x=altair.X("from:Q", bin="binned", title="the teacher's largest probability", axis=axis),
            x2="to:Q",
            y=altair.Y("percent:Q", title="% of the crops", axis=axis),
            color=altair.Color("crop:N", scale=colours, title=None, legend=legend),
        )
        .properties(width=310, height=180)
    )


WIDTH, STEP_DOWN, RIGHT = 180, 72, 212  # of a box; from one to the next; left edge of the second column
STEPS = 32 + 5 * STEP_DOWN + 40  # top of the last part


def way_of_a_crop() -> str:
    """Two columns of boxes with arrows, narrow enough for a phone; each says what happens, and where."""
    parts = [
        '<svg xmlns="http://www.w3.org/2000/svg" width="400" height="640" viewBox="0 0 400 640" '
        'font-family="sans-serif">',
        "<title>The way of a crop: teacher, label file, loader, loss</title>",
        '<rect width="400" height="640" fill="white"/>',
        '<defs><marker id="tip" markerWidth="8" markerHeight="8" refX="6" refY="3" orient="auto">'
        '<path d="M0,0 L6,3 L0,6 z" fill="#546e7a"/></marker></defs>',
        *column(8, 32, "once", ONCE),
        *column(RIGHT, 32, "every epoch", EVERY_EPOCH),
        *column(RIGHT, STEPS, "every step", STEP),
        arrow(8 + WIDTH, 60 + 4 * STEP_DOWN, RIGHT, 60 + STEP_DOWN),  # the label file is read in every epoch
        arrow(RIGHT + 90, 88 + 4 * STEP_DOWN, RIGHT + 90, STEPS),  # the batch goes to the student
    ]
    return "\n".join([*parts, "</svg>", ""])


def column(x: int, y: int, title: str, stages: list[tuple[str, str]]) -> Iterator[str]:
    yield f'<text x="{x}" y="{y - 10}" font-size="16" fill="#546e7a">{title}</text>'
    for place, (what, where) in enumerate(stages):
        top = y + STEP_DOWN * place
        yield box(x, top, what, where)
        if place + 1 < len(stages):
            yield arrow(x + 90, top + 56, x + 90, top + STEP_DOWN)


def box(x: int, y: int, what: str, where: str) -> str:
    return (
        f'<rect x="{x}" y="{y}" width="{WIDTH}" height="56" rx="6" fill="#e0f2f1" stroke="{OURS}"/>'
        f'<text x="{x + 90}" y="{y + 24}" font-size="16" text-anchor="middle" fill="#212121">{what}</text>'
        f'<text x="{x + 90}" y="{y + 44}" font-size="12" text-anchor="middle" fill="#546e7a" '
        f'font-family="monospace">{where}</text>'
    )


def arrow(x: int, y: int, to_x: int, to_y: int) -> str:
    return f'<path d="M{x},{y} L{to_x},{to_y}" stroke="#546e7a" fill="none" marker-end="url(#tip)"/>'


if __name__ == "__main__":
    main()
