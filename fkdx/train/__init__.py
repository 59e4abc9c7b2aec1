"""The trainer: `torchrun -m fkdx.train`, or `fkdx train`.

`loop` reads from top to bottom. A run is described by its `recipe`, made of `keys`; `read_recipe` reads it
from the command line, and `checks` compares it with its data. `schedule` plans passes and learning rates,
`student` builds the model and its optimiser, `data` opens labels and images (`augmented` lets timm augment
them). `lesson` prepares a batch, mixed and with its targets, `objective` is the loss on it, `evaluate` the
accuracy. `run` holds the state from step to step; `checkpoint` saves it, `distributed` connects processes,
`journal` and `watch` report.
"""


def main(argv: list[str] | None = None) -> int:
    """Run the trainer with these arguments; returns the exit status."""
    from fkdx.train.loop import main

    return main(argv)
