"""Labels from teachers: `fkdx generate`.

A job is cut into shards (`shards`), a shard into chunks of crops (`draw`, `feed`); the teacher answers chunk
after chunk (`loop`); its answers are collected into label files (`collect`).
"""

from fkdx.generate.program import main

__all__ = ["main"]
