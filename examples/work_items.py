"""`fkdx generate` as work items on Ray, or on processes of this machine:

    python examples/work_items.py ITEMS ray OPTIONS       # on the Ray cluster, or on a local one
    python examples/work_items.py ITEMS WORKERS OPTIONS   # on WORKERS processes

OPTIONS are those of `fkdx generate`. Every item is the same command with `--shards I/ITEMS`; one that failed
is simply done again. The last command writes the label file.
"""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

if len(sys.argv) < 4:
    sys.exit(__doc__)
items, where, options = int(sys.argv[1]), sys.argv[2], sys.argv[3:]


def generate(*more: str) -> None:
    subprocess.run([sys.executable, "-m", "fkdx", "generate", *options, *more], check=True)


def do_item(item: int) -> None:
    generate("--shards", f"{item}/{items}")


if where == "ray":
    import ray

    ray.init()
    gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(max_retries=3, retry_exceptions=True, num_gpus=gpus)(do_item)
    ray.get([task.remote(item) for item in range(items)])
else:
    with ThreadPoolExecutor(int(where)) as workers:
        list(workers.map(do_item, range(items)))
generate()
