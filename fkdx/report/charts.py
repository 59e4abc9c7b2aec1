"""Charts as Vega-Lite specifications.

Vega-Lite was chosen because its charts are data (made here, tested without a browser), it draws SVG with text
for screen readers, its sliders move lines without code of ours, and all of it is 0.9 MB: Plotly takes 4.6 MB,
uPlot draws time series alone, and Observable Plot has no sliders of its own.
"""

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np

from fkdx.report.survey import BINS, GRID, Tally

Spec = dict[str, Any]
WIDTH, HEIGHT = "container", 220
SHOWN_BINS = 50  # bars of a histogram


def histogram(counts: np.ndarray, title: str, description: str) -> Spec:
    """Bars of (BINS,) counts of a quantity between 0 and 1."""
    chart = (
        alt.Chart(_bins(counts))
        .mark_bar(binSpacing=0)
        .encode(
            x=alt.X("from:Q", bin="binned", title=title, axis=alt.Axis(format=".1f", tickCount=10)),
            x2="to:Q",
            y=alt.Y("share:Q", title="share of crops", axis=alt.Axis(format="%")),
            tooltip=[alt.Tooltip("from:Q", format=".2f"), alt.Tooltip("share:Q", format=".2%"), "crops:Q"],
        )
    )
    return spec_of(chart, description)


def thresholds(tally: Tally, low: float, middle: float, top: float) -> Spec:
    """The largest probabilities with FerKD's thresholds (Figure 2, equation 4) as lines that sliders move."""
    sliders = [
        alt.param(name=name, value=value, bind=alt.binding_range(min=0, max=1, step=0.01, name=f"{name} "))
        for name, value in (("low", low), ("middle", middle), ("top", top))
    ]
    data = _bins(tally.largest, 100)
    fate = (
        "datum.from < low ? 'dropped: too hard' : datum.from >= top ? 'dropped: too easy' : "
        "datum.from < middle ? 'learns its class' : 'keeps its label'"
    )
    order = ["dropped: too hard", "learns its class", "keeps its label", "dropped: too easy"]
    base = alt.Chart(data).transform_calculate(fate=fate)
    colour = alt.Color("fate:N", title=None, sort=order, scale=alt.Scale(domain=order, scheme="tableau10"))
    bars = base.mark_bar(binSpacing=0).encode(
        x=alt.X(
            "from:Q",
            bin="binned",
            title="largest probability of a crop",
            axis=alt.Axis(format=".1f", tickCount=10),
            scale=alt.Scale(domain=[0, 1]),
        ),
        x2="to:Q",
        y=alt.Y("share:Q", title="share of crops", axis=alt.Axis(format="%")),
        color=colour,
        tooltip=["fate:N", alt.Tooltip("from:Q", format=".2f"), alt.Tooltip("share:Q", format=".2%")],
    )
    sums = (
        base.transform_aggregate(total="sum(share)", crops="sum(crops)", groupby=["fate"])
        .mark_bar()
        .encode(
            x=alt.X("total:Q", title="share of all crops", axis=alt.Axis(format="%")),
            y=alt.Y("fate:N", sort=order, title=None),
            color=colour,
            tooltip=["fate:N", alt.Tooltip("total:Q", format=".2%"), "crops:Q"],
        )
    )
    lines = alt.layer(
        *(
            alt.Chart(alt.Data(values=[{}]))
            .mark_rule(strokeWidth=2, strokeDash=[5, 3], aria=False)
            .encode(x=alt.XDatum(alt.expr(name), type="quantitative", scale=alt.Scale(domain=[0, 1])))
            for name in ("low", "middle", "top")
        )
    )
    chart = alt.vconcat(
        alt.layer(bars, lines).properties(width=520, height=HEIGHT), sums.properties(width=520, height=90)
    ).add_params(*sliders)
    return spec_of(chart, "Histogram of the largest probability with three movable thresholds", sized=True)


def coverage(tally: Tally) -> Spec:
    """Mean probability in the 1, 2, ... K largest classes."""
    rows = [{"K": k, "kept": v} for k, v in enumerate((tally.coverage / max(tally.crops, 1)).tolist(), 1)]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("K:O", title="K", axis=alt.Axis(labelAngle=0)),
            y=alt.Y(
                "kept:Q",
                title="mean probability kept",
                axis=alt.Axis(format="%"),
                scale=alt.Scale(domain=[0, 1]),
            ),
            tooltip=["K:O", alt.Tooltip("kept:Q", format=".2%")],
        )
    )
    return spec_of(chart, "Mean probability kept by the K largest classes")


def centres(tally: Tally) -> Spec:
    """Where the centres of the crops lie in their images."""
    cells = [
        {"x": (column + 0.5) / GRID, "y": (row + 0.5) / GRID, "crops": int(count)}
        for (row, column), count in np.ndenumerate(tally.centres)
    ]
    chart = (
        alt.Chart(alt.Data(values=cells))
        .mark_rect()
        .encode(
            x=alt.X("x:O", title="left to right", axis=alt.Axis(labels=False, ticks=False)),
            y=alt.Y("y:O", title="top to bottom", axis=alt.Axis(labels=False, ticks=False)),
            color=alt.Color("crops:Q", title="crops", scale=alt.Scale(scheme="viridis")),
            tooltip=["crops:Q"],
        )
    )
    return spec_of(chart, "Map of the centres of crops within their images")


def class_balance(counts: np.ndarray, names: Sequence[str], title: str) -> Spec:
    """Every class by its count, the largest first; at most 300 classes, evenly taken from the order."""
    order = np.argsort(-counts, kind="stable")
    shown = order[np.unique(np.linspace(0, len(order) - 1, min(300, len(order))).round().astype(int))]
    rows = [
        {"place": place, "class": names[c], "count": int(counts[c])} for place, c in enumerate(shown.tolist())
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar(binSpacing=0)
        .encode(
            x=alt.X(
                "place:O", title="classes, the most frequent first", axis=alt.Axis(labels=False, ticks=False)
            ),
            y=alt.Y("count:Q", title=title),
            tooltip=["class:N", "count:Q"],
        )
    )
    return spec_of(chart, f"{title} of each class")


def confusion(tally: Tally, names: Sequence[str], classes: int = 24) -> Spec | None:
    """True class against likeliest class, for the classes that are confused most; None where nothing is."""
    if not tally.confused:
        return None
    shown: list[int] = []
    for (true, likeliest), _ in tally.confused.most_common():
        shown += [c for c in (true, likeliest) if c not in shown]
        if len(shown) >= classes:
            break
    rows = [
        {"true": names[a], "likeliest": names[b], "share": _cell(tally, a, b)} for a in shown for b in shown
    ]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_rect()
        .encode(
            x=alt.X("likeliest:N", title="likeliest class", sort=None),
            y=alt.Y("true:N", title="true class", sort=None),
            color=alt.Color(
                "share:Q",
                title="of the true class",
                scale=alt.Scale(scheme="blues"),
                legend=alt.Legend(format="%"),
            ),
            tooltip=["true:N", "likeliest:N", alt.Tooltip("share:Q", format=".1%")],
        )
        .properties(height=420)
    )
    return spec_of(chart, "Confusion between the classes that are confused most")


def sizes(bytes_a_crop: dict[str, float]) -> Spec:
    """Bytes a crop of this file beside other ways to store the same labels."""
    rows = [{"form": form, "bytes": size} for form, size in bytes_a_crop.items()]
    chart = (
        alt.Chart(alt.Data(values=rows))
        .mark_bar()
        .encode(
            x=alt.X("bytes:Q", title="bytes a crop"),
            y=alt.Y("form:N", title=None, sort=None, axis=alt.Axis(labelLimit=260)),
            tooltip=["form:N", alt.Tooltip("bytes:Q", format=".1f")],
        )
        .properties(height=110)
    )
    return spec_of(chart, "Bytes a crop in several forms")


def lines(rows: list[dict[str, Any]], y: str, title: str, description: str, percent: bool = False) -> Spec:
    """One line a run over steps; a run with a single point is drawn as that point."""
    data = alt.Data(values=rows)
    runs = list(dict.fromkeys(row["run"] for row in rows))
    base = alt.Chart(data).encode(
        x=alt.X("step:Q", title="step", scale=alt.Scale(zero=True)),
        y=alt.Y(
            f"{y}:Q",
            title=title,
            scale=alt.Scale(zero=False),
            axis=alt.Axis(format="%") if percent else alt.Axis(),
        ),
        color=alt.Color("run:N", title=None, sort=runs),
        tooltip=["run:N", "step:Q", alt.Tooltip(f"{y}:Q", format=".4~g")],
    )
    size = 70 if len(rows) <= 10 * len(runs) else 18  # a few points are to be seen, many only to be touched
    return spec_of(
        alt.layer(base.mark_line(), base.mark_point(filled=True, opacity=1, size=size)), description
    )


def bars(rows: list[dict[str, Any]], description: str) -> Spec:
    """Horizontal bars of probability: the template of a crop's top classes."""
    chart = (
        alt.Chart(alt.Data(values=rows, name="rows"))
        .mark_bar()
        .encode(
            x=alt.X("p:Q", title="probability", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(format="%")),
            y=alt.Y("class:N", title=None, sort=None, axis=alt.Axis(labelLimit=180)),
            tooltip=["class:N", alt.Tooltip("p:Q", format=".2%")],
        )
        .properties(height=120)
    )
    return spec_of(chart, description)


def _cell(tally: Tally, true: int, likeliest: int) -> float:
    count = tally.agreed[true] if true == likeliest else tally.confused.get((true, likeliest), 0)
    return float(count / max(tally.of_class[true], 1))


def _bins(counts: np.ndarray, shown: int = SHOWN_BINS) -> alt.Data:
    merged = counts.reshape(shown, BINS // shown).sum(axis=1)
    total = max(int(counts.sum()), 1)
    edges = (np.arange(shown + 1) / shown).round(4).tolist()
    rows = [
        {"from": edges[i], "to": edges[i + 1], "crops": int(n), "share": n / total}
        for i, n in enumerate(merged.tolist())
    ]
    return alt.Data(values=rows)


def spec_of(chart: Any, description: str, sized: bool = False) -> Spec:
    chart = chart if sized else chart.properties(width=WIDTH)
    spec = chart.properties(description=description).to_dict()
    if not sized and "height" not in spec:
        spec["height"] = HEIGHT
    spec.pop("config", None)  # the page sets fonts and colours
    return spec
