"""The whole demo at toy size: every command runs, both label files agree, the table is complete."""

import json
from pathlib import Path

import forked
import pytest

from fkdx.commands import demo

SMALL = """
from fkdx.commands import demo
demo.TRAIN_IMAGES, demo.VAL_IMAGES, demo.CROPS = 160, 24, 4
raise SystemExit(demo.main(["--output", "demo", "--seed", "1"]))
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_whole_road(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text(SMALL)
    root = tmp_path / "demo"
    done = forked.run(["small.py"], tmp_path)
    assert done.returncode in (0, 1), done.stderr  # too small for the student to win
    shown = done.stdout
    assert "Traceback" not in done.stderr
    assert "agree in every crop of 160 images" in shown
    results = json.loads((root / "results.json").read_text())
    assert results["bytes_a_crop"] > 0
    assert results["crops_a_second"] > 0
    assert all(0 <= results[f"{name}_top1"] <= 100 for name in ("teacher", "soft", "hard"))
    assert demo.table(results) in shown


def test_foreign_folder_is_not_removed(tmp_path: Path) -> None:
    pytest.importorskip("cv2")
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SystemExit, match="holds something else"):
        demo.main(["--output", str(tmp_path)])
    assert (tmp_path / "thesis.tex").exists()
