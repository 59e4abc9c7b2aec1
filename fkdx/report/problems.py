"""What looks wrong in a label file: counted, graded, the worst first."""

from dataclasses import dataclass

import numpy as np

from fkdx.report.survey import FLAT, TINY, Survey, Tally

GRADES = ("serious", "check", "note")


@dataclass(frozen=True)
class Problem:
    """Something that a person should look at before training.

    Attributes:
        grade: "serious" (labels that teach nonsense), "check" (often a mistake), "note" (good to know).
        title: a phrase; `text`: what it means and what to do, in a sentence or two.
        count, of: how many of how many.
    """

    grade: str
    title: str
    text: str
    count: int
    of: int

    @property
    def share(self) -> float:
        return self.count / max(self.of, 1)


def find_problems(found: Survey, names: list[str], storage_k: int) -> list[Problem]:
    """All problems of a surveyed file, serious ones first, then by their share.

    `names` are the C class names, `storage_k` the number of classes kept for each crop.
    """
    tally, images = found.tally, found.per_image
    return _in_order(
        *_against_folders(found),
        _graded(
            tally.flat,
            tally.crops,
            0.5,
            0.05,
            "flat labels",
            f"These crops have more than {FLAT:.0%} of the largest possible entropy: the teacher says nearly "
            "nothing. Many of them point to a teacher fed with other inputs than it was trained on (size, "
            "mean, std), or to a temperature that is too high.",
        ),
        *_of_boxes(tally),
        _graded(
            int((tally.named == 0).sum()),
            len(names),
            0.5,
            0.001,
            "classes that no label names",
            "They are in no crop's top K. Either no image shows them, or the teacher has other classes.",
        ),
        *_lost_mass(found, storage_k),
        _graded(
            int(((images.unity < 0.5) & np.isfinite(images.unity)).sum()),
            int(np.isfinite(images.unity).sum()),
            0.5,
            0.05,
            "images whose crops disagree",
            "No class is the likeliest one in half of the image's crops: it shows several things, or the "
            "teacher "
            "does not know it.",
        ),
        *_confused_both_ways(found, names),
    )


def find_embedding_problems(found: Survey, zeros: int, embeddings: int) -> list[Problem]:
    """The same of stored embeddings, `zeros` of which have no direction."""
    text = (
        "Without a direction: they are kept out of the loss. Many of them point to a teacher that fails on "
        "some images, or at a low precision."
    )
    return _in_order(*_of_boxes(found.tally), _graded(zeros, embeddings, 0.5, 0.01, "zero vectors", text))


def _in_order(*problems: Problem) -> list[Problem]:
    order = {grade: place for place, grade in enumerate(GRADES)}
    return sorted((p for p in problems if p.count), key=lambda p: (order[p.grade], -p.share))


def _of_boxes(tally: Tally) -> list[Problem]:
    return [
        _graded(
            tally.duplicates,
            tally.crops,
            0.5,
            0.001,
            "duplicate crops",
            "Same box and flip as another crop of the same image: they take space and teach nothing new.",
        ),
        _graded(
            tally.tiny,
            tally.crops,
            0.5,
            0.02,
            "very small crops",
            f"A side of the box is below {TINY} pixels. Raise the lower end of the scale when labels are "
            "made, or drop these crops by calibration.",
        ),
    ]


def _graded(count: int, of: int, serious: float, check: float, title: str, text: str) -> Problem:
    share = count / max(of, 1)
    grade = "serious" if share >= serious else "check" if share >= check else "note"
    return Problem(grade, title, text, int(count), int(of))


def _against_folders(found: Survey) -> list[Problem]:
    """The teacher against the true classes, where those are known."""
    known = np.isfinite(found.per_image.agreement)
    if not known.any():
        return []
    wrong = int((found.per_image.agreement[known] < 0.5).sum())
    text = (
        "In most crops of these images the likeliest class is another one than the image's folder names. "
        "A few are "
        "label errors or hard images; nearly all means that teacher and folders number the classes "
        "differently."
    )
    return [_graded(wrong, int(known.sum()), 0.9, 0.2, "teacher and folder disagree", text)]


def _lost_mass(found: Survey, storage_k: int) -> list[Problem]:
    outside = 1 - found.tally.coverage[-1] / max(found.tally.crops, 1) if len(found.tally.coverage) else 0
    if outside < 0.01 or storage_k > len(found.tally.coverage):
        return []
    crops = round(outside * found.tally.crops)
    text = f"Mean probability outside the top {storage_k}. The loss spreads it evenly; a larger K keeps more."
    grade = "check" if outside > 0.3 else "note"
    return [Problem(grade, "probability outside the top K", text, crops, found.tally.crops)]


def _confused_both_ways(found: Survey, names: list[str], least: float = 0.1) -> list[Problem]:
    """Pairs of classes that the teacher takes for one another in `least` of their crops."""
    tally = found.tally
    pairs = [
        (a, b)
        for (a, b), count in tally.confused.items()
        if a < b
        and count >= least * tally.of_class[a]
        and tally.confused.get((b, a), 0) >= least * max(tally.of_class[b], 1)
    ]
    if not pairs:
        return []
    shown = "; ".join(f"{names[a]} and {names[b]}" for a, b in sorted(pairs)[:3])
    more = " ..." if len(pairs) > 3 else ""
    text = (
        f"In {len(pairs)} pairs each is the likeliest class in at least {least:.0%} of the other's crops: "
        f"{shown}{more}."
    )
    classes = len({one for pair in pairs for one in pair})
    return [Problem("note", "classes confused both ways", text, classes, len(names))]
