"""The trainer: `torchrun -m fkdx.train`, or `fkdx train`.

`loop` reads from top to bottom. A run is described by its `recipe` (`read_recipe` has it from the user,
`checks` holds it against its data); `schedule` says what the student sees when and at which rate, `student`
who learns, `data` from what (`augmented` by timm), `mixing` which crops are mixed, `lesson` what is said of
them, `objective` what of that is minimised, `evaluate` how well it went; `run` is what is held on to from
step to step; `checkpoint`, `distributed`, `journal` and `watch` keep it alive and seen.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the trainer with these arguments; returns the exit status."""
    from fkdx.train.loop import main

    return main(argv)
