"""Labels from teachers: `fkdx generate`.

A job is cut into shards (`shards`), a shard into chunks of crops (`draw`, `feed`); the teacher answers chunk
after chunk (`loop`); its answers are collected into label files (`collect`).
"""


def main(argv: list[str] | None = None) -> int:
    """Run a job with these arguments; returns the exit status."""
    from fkdx.generate.program import main

    return main(argv)
