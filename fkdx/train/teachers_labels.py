"""The labels of a stage's teachers as the student sees them: opened, and calibrated where the recipe asks."""

from pathlib import Path

from fkdx.calibration import Calibration, calibrated
from fkdx.files import write_whole
from fkdx.labels import LabelFile
from fkdx.train.distributed import World
from fkdx.train.recipe import Recipe


def rule_of(recipe: Recipe) -> Calibration | None:
    """FerKD's rule of a recipe; an image keeps what a pass draws of it. ValueError where it is none."""
    if not recipe.calibrate:
        return None
    if len(recipe.calibrate) != 3:
        raise ValueError(f"recipe: calibrate, got {recipe.calibrate}, expected [low, middle, top]")
    return Calibration(*recipe.calibrate, recipe.epsilon, recipe.score, recipe.crops_per_image)


def teachers_labels(recipe: Recipe, labels: LabelFile | None, world: World) -> list[LabelFile] | None:
    """A label file for each teacher, `labels` first; None where there are no labels.

    Says what calibration did, for all classes in output/calibration.csv (.1.csv, ... for further teachers).
    """
    if labels is None:
        return None
    files = [labels, *map(LabelFile, recipe.ensemble)]
    rule = rule_of(recipe)
    if rule is None:
        return files
    views = calibrated(files, rule, progress=None if world.main else False)
    for number, view in enumerate(views):
        if world.main:
            print(f"calibration of {view.path}: {view.statistics}", flush=True)
            name = f"calibration.{number}.csv" if number else "calibration.csv"
            write_whole(Path(recipe.output) / name, view.statistics.write_csv)
    return list(views)
