"""Two teachers' labels of the same crops, side by side."""

from dataclasses import dataclass

import altair as alt
import numpy as np

from fkdx.errors import refuse
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_plain_crops, check_same_classes, check_same_crops
from fkdx.report.charts import Spec, spec_of
from fkdx.report.crops import Crops, read_crops

CELLS = 40  # a side of the map of both largest probabilities
IMAGES = 20_000  # compared at most, evenly taken from the file


@dataclass(frozen=True)
class Comparison:
    """Of the crops of some images.

    Attributes:
        images, crops: compared. `same`: crops with the same likeliest class.
        first, second: mean largest probability of either teacher.
        cells: (CELLS, CELLS) crops by the largest probability of the first and of the second teacher.
    """

    images: int
    crops: int
    same: int
    first: float
    second: float
    cells: np.ndarray

    def facts(self) -> dict[str, str]:
        return {
            "compared": f"{self.crops:,} crops of {self.images:,} images",
            "same likeliest class": f"{self.same / max(self.crops, 1):.2%}",
            "mean largest probability": f"{self.first:.4f} here, {self.second:.4f} there",
        }

    def chart(self) -> Spec:
        rows = [
            {"here": (a + 0.5) / CELLS, "there": (b + 0.5) / CELLS, "crops": int(count)}
            for (a, b), count in np.ndenumerate(self.cells)
            if count
        ]
        axis = {"bin": alt.Bin(step=1 / CELLS, extent=[0, 1]), "axis": alt.Axis(format=".1f")}
        chart = (
            alt.Chart(alt.Data(values=rows))
            .mark_rect()
            .encode(
                x=alt.X("here:Q", title="largest probability here", **axis),
                y=alt.Y("there:Q", title="and there", **axis),
                color=alt.Color("crops:Q", scale=alt.Scale(type="symlog", scheme="viridis")),
                tooltip=["crops:Q"],
            )
            .properties(height=320)
        )
        return spec_of(chart, "Largest probability of one teacher against that of the other")


def compare(first: LabelFile, second: LabelFile) -> Comparison:
    """Compares crop by crop.

    Raises ValueError where the files differ in their classes, or their images or crops are others.
    """
    check_same_classes("report", second, first)
    for labels in (first, second):
        check_plain_crops("report", labels)
    chosen = np.unique(np.linspace(0, len(first) - 1, min(IMAGES, len(first))).round().astype(int))
    crops = same = 0
    sums = np.zeros(2)
    cells = np.zeros((CELLS, CELLS), np.int64)
    for image in chosen.tolist():
        here, there = _both(first, second, image)
        largest = here.values[0, :, 0], there.values[0, :, 0]
        crops += len(largest[0])
        same += int((here.ids[0, :, 0] == there.ids[0, :, 0]).sum())
        sums += [largest[0].sum(), largest[1].sum()]
        cells += np.histogram2d(*largest, bins=CELLS, range=((0, 1.001), (0, 1.001)))[0].astype(np.int64)
    means = (sums / max(crops, 1)).tolist()
    return Comparison(len(chosen), crops, same, means[0], means[1], cells)


def _both(first: LabelFile, second: LabelFile, image: int) -> tuple[Crops, Crops]:
    key = first.keys[image]
    if key not in second:
        refuse("report", "labels", f"none for '{key}'", f"the images of {first.path}", second.path)
    here, there = read_crops(first, np.array([image])), read_crops(second, np.array([second.find(key)]))
    check_same_crops("report", (first, second), (here.boxes, there.boxes), (here.flips, there.flips), key)
    return here, there
