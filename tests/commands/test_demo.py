"""The whole demo at toy size: every command runs, both label files agree, the table is complete."""

import json
from pathlib import Path

import pytest

from fkdx.commands import demo


@pytest.mark.slow
def test_whole_road(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(demo, "TRAIN_IMAGES", 160)
    monkeypatch.setattr(demo, "VAL_IMAGES", 24)
    monkeypatch.setattr(demo, "CROPS", 4)
    root = tmp_path / "demo"
    assert demo.main(["--output", str(root), "--seed", "1"]) in (0, 1)  # too small for the student to win
    shown = capsys.readouterr().out
    assert "agree in every crop of 160 images" in shown
    results = json.loads((root / "results.json").read_text())
    assert results["bytes_a_crop"] > 0
    assert results["crops_a_second"] > 0
    assert all(0 <= results[f"{name}_top1"] <= 100 for name in ("teacher", "soft", "hard"))
    assert demo.table(results) in shown


def test_foreign_folder_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(SystemExit, match="holds something else"):
        demo.main(["--output", str(tmp_path)])
    assert (tmp_path / "thesis.tex").exists()
