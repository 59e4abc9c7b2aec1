"""What every value of a recipe must be, before anything is opened."""

from fkdx.train.recipe import DEFAULTS, KEYS, Recipe
from fkdx.train.temperature import TEMPERATURES, read_temperature


def check_recipe(recipe: Recipe) -> None:
    """ValueError if a value makes no sense, by itself or beside the others of its stage."""
    recipe.each_teacher()
    for stage in recipe.in_stages():
        for name, about in KEYS.items():
            if getattr(stage, name) != DEFAULTS[name]:
                about.check(name, getattr(stage, name))
        for name in TEMPERATURES:
            read_temperature(name, getattr(stage, name))
        if stage.warmup_epochs > stage.epochs:
            got = f"got {stage.warmup_epochs}, expected at most {stage.epochs} (epochs)"
            raise ValueError(f"recipe: warmup_epochs, {got}")
        if 0 < stage.curve_epochs < stage.epochs:
            got = f"got {stage.curve_epochs}, expected at least {stage.epochs} (epochs)"
            raise ValueError(f"recipe: curve_epochs, {got}")
        if stage.selfmix and stage.crops_per_image < 2:
            raise ValueError(
                "recipe: selfmix mixes crops of one image, so it needs crops_per_image 2 or more"
            )
    if recipe.more_teachers and not recipe.teacher:
        raise ValueError("recipe: more_teachers needs `teacher` to be set")
