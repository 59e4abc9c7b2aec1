"""A folder in which the pages' commands run: the files that the quick start leaves behind, on few images."""

import re
import runpy
import shutil
from pathlib import Path

import pytest
from generating import TEACHER, make_teacher

from fkdx import cli

ROOT = Path(__file__).resolve().parents[2]


def smaller(page: str) -> str:
    """The quick start's page with fewer images and passes."""
    page = page.replace('("train", 100)', '("train", 20)').replace('("val", 30)', '("val", 8)')
    return re.sub(r"(--epochs|--eval-every) (\d)0\b", r"\1 \2", page)


@pytest.fixture(scope="session")
def quickstart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """photos/{train,val}, a teacher in runs/teacher, labels.fkdl, and the same labels as FKD's files."""
    root = tmp_path_factory.mktemp("quickstart")
    page = smaller((ROOT / "docs/quickstart.md").read_text())
    (root / "draw.py").write_text(re.search(r"```python\n(# draw.py\n.*?)```", page, re.S)[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        runpy.run_path("draw.py")
        Path("runs/teacher").mkdir(parents=True)
        make_teacher(Path("runs/teacher/last.safetensors"))
        network = ["--teacher", TEACHER, "--checkpoint", "runs/teacher/last.safetensors", "--size", "48"]
        crops = ["--data", "photos/train", "--crops", "16", "--topk", "3", "-o", "labels.fkdl"]
        assert cli.run("generate", [*crops, *network]) == 0
        assert cli.run("export", ["labels.fkdl", "-o", "FKD_labels"]) == 0
        shutil.copytree(ROOT / "examples", "examples")
        Path("bench").mkdir()
        for program in ("scale", "sre2l"):
            shutil.copy(ROOT / f"bench/{program}.py", "bench")
    return root


@pytest.fixture
def copied(quickstart: Path, tmp_path: Path) -> Path:
    """A copy of it, for one page."""
    return Path(shutil.copytree(quickstart, tmp_path / "page"))
