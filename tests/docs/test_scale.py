"""bench/scale.py: sizes are those of real files, and the simulation keeps its books."""

import random
import runpy

import pytest
from docs.conftest import ROOT

from fkdx.labels.layout import record_dtype


@pytest.fixture(scope="module")
def scale() -> dict:
    return runpy.run_path(str(ROOT / "bench/scale.py"))


@pytest.mark.parametrize(("kind", "k"), [("hard", 1), ("topk", 5), ("topk_logits", 10)])
def test_bytes_of_an_image_are_records_flips_index_and_key(scale: dict, kind: str, k: int) -> None:
    data = scale["DATA_SETS"][0]
    record = record_dtype(kind, "none" if kind == "hard" else "float16", data.classes, k, 0).itemsize
    block = -(-(data.crops * record + data.crops // 8) // 64) * 64
    assert scale["image_bytes"](data, kind, k, "plain") == pytest.approx(
        block + 24 + 4 + len(data.key), abs=1
    )


@pytest.mark.parametrize("what", ["sizes", "hours", "failures"])
def test_the_page_shows_what_the_program_prints(scale: dict, what: str, monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["scale.py", what])
    scale["main"]()
    shown = f"$ python bench/scale.py {what}\n{capsys.readouterr().out}```"
    assert shown in (ROOT / "docs/scale.md").read_text()


def test_without_failures_the_work_is_shared_evenly(scale: dict) -> None:
    for plan in scale["PLANS"].values():
        run = plan([10.0] * 64, 8, 1e12, 300.0, random.Random(0))
        assert (run.hours, run.failures, run.lost) == (80 / 3600, 0, 0)


def test_failures_lose_their_shard_and_no_more(scale: dict) -> None:
    """Less than a shard is lost at each failure, and the job takes at least its work."""
    seconds = [50.0] * 200
    for plan in scale["PLANS"].values():
        run = plan(seconds, 4, 400.0, 30.0, random.Random(3))
        assert run.failures > 3
        lost = run.lost / (1 - run.lost) * sum(seconds)
        assert 0 < lost < run.failures * 50
        assert run.hours > (sum(seconds) + lost) / 4 / 3600


def test_a_queue_is_no_slower_than_fixed_parts(scale: dict) -> None:
    pairs = [
        [plan([50.0] * 300, 6, 900.0, 200.0, random.Random(seed)).hours for plan in scale["PLANS"].values()]
        for seed in range(20)
    ]
    assert sum(queue for queue, _ in pairs) < sum(fixed for _, fixed in pairs)
