"""Times of CPU functions and of GPU work, side by side and in turns."""

import statistics
import time
from collections.abc import Callable

import torch

L2_BYTES = 256 << 20  # buffers are rotated beyond this, far more than any cache


def wall(
    functions: dict[str, Callable[[], object]],
    repeats: int,
    sync: bool = False,
    in_a_row: int = 1,
    pause: float = 0.0,
) -> dict[str, float]:
    """Median seconds of each function; every round calls all, so that a slow minute hits all alike.

    in_a_row: calls of one function before the next one's. pause: seconds before them, in which the threads
    of the one before go to sleep (OpenMP's spin for a while after their work, and hold their cores).
    """
    times: dict[str, list[float]] = {name: [] for name in functions}
    for round_number in range(repeats + 3):
        for name, function in functions.items():
            time.sleep(pause)
            for _ in range(in_a_row):
                if sync:
                    torch.cuda.synchronize()
                start = time.perf_counter()
                function()
                if sync:
                    torch.cuda.synchronize()
                if round_number >= 3:
                    times[name].append(time.perf_counter() - start)
    return {name: statistics.median(t) for name, t in times.items()}


def gpu_time(make: Callable[[int], Callable[[], object]], bytes_a_call: int, repeats: int = 100) -> float:
    """Median seconds of one call on the GPU: calls over rotated buffers in one CUDA graph, replayed.

    make(i) gives the call on buffer set i.
    """
    count = max(2, min(64, -(-L2_BYTES // max(bytes_a_call, 1))))
    calls = [make(i) for i in range(count)]
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            for call in calls:
                call()
    torch.cuda.current_stream().wait_stream(side)
    rounds = max(1, 8 // count)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = [call() for _ in range(rounds) for call in calls]  # alive: every call writes memory of its own
    times = []
    for _ in range(repeats + 5):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()  # keeps the GPU busy while the host prepares the one that counts
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / len(kept))
    del kept
    return statistics.median(times[5:])


def host_time(call: Callable[[], object], calls: int = 2000) -> float:
    """Seconds the host needs to issue one call of work that costs the device next to nothing."""
    for _ in range(50):
        call()
    times = []
    for _ in range(7):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(calls // 7):
            call()
        times.append((time.perf_counter() - start) / (calls // 7))
        torch.cuda.synchronize()
    return statistics.median(times)
