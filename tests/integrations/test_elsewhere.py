"""fkdx outside its own trainer: in a plain loop and in timm's."""

from pathlib import Path

import forked
import numpy as np
import pytest
import timm
import torch
from timm.optim import create_optimizer_v2
from toy import draw_images, environment, write_labels

from fkdx import CropLoader, soft_cross_entropy
from fkdx.batch import prepare
from fkdx.integrations.timm import StoredLabelTask, TimmLoader


@pytest.fixture(scope="module")
def toy(tmp_path_factory, run_seed) -> Path:
    folder = tmp_path_factory.mktemp("toy")
    rng = np.random.default_rng(run_seed)
    draw_images(folder / "train", 4, rng)
    write_labels(folder / "labels.fkdl", folder / "train", rng)
    return folder


@pytest.mark.slow
def test_the_plain_loop_is_short_and_runs(tmp_path, rng):
    program = Path(__file__).parents[2] / "examples" / "plain_loop.py"
    code = [
        line
        for line in program.read_text().splitlines()
        if line and not line.startswith(('"""', "import", "from"))
    ]
    assert len(code) <= 20
    draw_images(tmp_path / "train", 1, rng)  # a ResNet-18 at 224 pixels takes its time
    write_labels(tmp_path / "labels.fkdl", tmp_path / "train", rng)
    words = [str(program), str(tmp_path / "train"), str(tmp_path / "labels.fkdl"), "8", "8"]
    done = forked.run(words, env=environment())
    assert done.returncode == 0, done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["epoch 4", "epoch 8"]


def test_a_timm_task_learns_from_stored_labels(toy):
    torch.manual_seed(0)
    model = timm.create_model("test_convnext", num_classes=4)
    task = StoredLabelTask(model, temperature=2.0, verbose=False)
    task.setup_ema(decay=0.9)
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3)
    crops = CropLoader(toy / "train", toy / "labels.fkdl", 16, 4, 32)
    loader = TimmLoader(crops)
    first = next(iter(crops))
    expected = soft_cross_entropy(model(prepare(first.images)), first.target, 2.0)
    losses = []
    for number in range(8):
        loader.sampler.set_epoch(number)
        assert len(loader) == 4
        for images, target in loader:
            result = task(images, target)
            result["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            task.update_ema()
            losses.append(result["loss"].item())
    assert losses[0] == pytest.approx(expected.item(), rel=1e-5)
    assert np.mean(losses[-8:]) < np.mean(losses[:8])
    assert "state_dict" in task.get_checkpoint_state()


def test_timm_counts_passes(toy):
    """As its loop does where several processes train: three passes with two crops show each of six once."""
    crops = CropLoader(toy / "train", toy / "labels.fkdl", 16, 2, 32, choice="cycle")
    loader, shown = TimmLoader(crops), []
    for number in (0, 1, 2):
        loader.sampler.set_epoch(number)
        shown += [pair for batch in loader.loader for pair in zip(batch.keys, batch.crops.tolist())]
    assert len(set(shown)) == len(shown) == 16 * 6
