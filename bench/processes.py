"""What a benchmark and its worker processes use together."""

import os
import resource
import time
from pathlib import Path


def family() -> list[int]:
    """This process and its children: the workers of a DataLoader."""
    ids = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return [os.getpid(), *map(int, ids)]


def cpu_seconds() -> float:
    """Of this process and its children, those that ended included."""
    ticks = 0
    for process in family()[1:]:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ticks / os.sysconf("SC_CLK_TCK") + ended.ru_utime + ended.ru_stime


def resident() -> int:
    """Bytes, without counting twice what processes share."""
    total = 0
    for process in family():
        for line in Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total
