"""The folder of a job: what processes that come late find there."""

from pathlib import Path

import pytest

from fkdx.files import Lock
from fkdx.files import lock as locks
from fkdx.labels.parts import Parts


def test_a_job_that_ends_while_a_part_is_claimed_leaves_nothing_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim has opened the part's lock and waits for a moment: meanwhile its holder finishes the job."""
    parts = Parts.begin(tmp_path / "labels.fkdl.parts", {}, "test")
    holder = Lock(parts.folder / "00000.lock")

    def finish(seconds: float) -> None:
        parts.set_done(0, {})
        holder.release()
        parts.remove()

    monkeypatch.setattr(locks.time, "sleep", finish)
    assert list(parts.claim([0])) == []
