"""A step asks no tensor for its value: on a GPU the host would wait for all that runs there."""

from pathlib import Path

import pytest
import timm
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from fkdx.train import loop
from fkdx.train.checkpoint import save_weights

# What reads a tensor's value on the host or makes a tensor of a value of the host; `torch.tensor` lifts.
WAITING = {"_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "equal", "_unique2", "lift_fresh"}


class NoWaiting(TorchDispatchMode):
    def __torch_dispatch__(self, function, _, args=(), kwargs=None):
        assert function.overloadpacket.__name__ not in WAITING, f"{function} waits for the device"
        return function(*args, **(kwargs or {}))


@pytest.fixture
def steps(monkeypatch) -> list[int]:
    """Steps that were taken without waiting; in the first one optimiser and others make what they keep."""
    taken = []
    step, draw_mix = loop.train_step, loop.draw_mix

    def on_the_host(*arguments):  # and sent from there through page-locked memory
        with _disable_current_modes():
            return draw_mix(*arguments)

    def watched(run, *arguments):
        if run.position.total == 0:
            return step(run, *arguments)
        with NoWaiting():
            losses = step(run, *arguments)
        taken.append(run.position.total)
        return losses

    monkeypatch.setattr(loop, "train_step", watched)
    monkeypatch.setattr(loop, "draw_mix", on_the_host)
    return taken


@pytest.fixture
def teacher(tmp_path) -> list[str]:
    """An online one, which wants its images normalised in a way of its own."""
    path = tmp_path / "teacher.safetensors"
    save_weights(Path(path), timm.create_model("test_convnext", num_classes=4))
    own = "{mean: [0.3, 0.4, 0.5], std: [0.2, 0.3, 0.4]}"
    return ["--teacher", "test_convnext", "--teacher-checkpoint", str(path), "--teacher-input", own]


TIMM = ["--loader", "timm", "--crops-per-image", "1", "--labels", "", "--threads", "1", "--aug-repeats", "2"]


@pytest.mark.parametrize(
    "more",
    [
        [
            "--clip-grad",
            "1",
            "--ema",
            "0.9",
            "--accumulate",
            "2",
            "--class-weight",
            "0.5",
            "--smoothing",
            "0.1",
        ],
        [
            "--mixup",
            "1",
            "--cutmix",
            "1",
            "--selfmix",
            "1",
            "--amp",
            "bf16",
            "--label-kind",
            "marginal_renorm",
        ],
        ["--amp", "fp16", "--optimizer-args", "{fused: true}", "--clip-grad", "1"],
        ["TEACHER", "--teacher-loss", "dist"],
        ["TEACHER", "--teacher-loss", "dkd", *TIMM, "--random-erasing", "0.5", "--mixup", "1"],
    ],
    ids=["labels", "mixing", "fp16", "teacher", "timm"],
)
def test_no_step_waits_for_the_device(soft, steps, teacher, more):
    if more[0] == "TEACHER":
        more = [*teacher, *more[1:]]
    assert loop.main([*soft, *more, "--log-every", "2", "--max-steps", "4"]) == 0
    assert steps == [1, 2, 3]


def test_a_value_that_is_asked_for_is_found(soft, steps, monkeypatch):
    """What the test above would say of a step that waits."""
    losses = loop.losses
    monkeypatch.setattr(loop, "losses", lambda *given: losses(*given) * losses(*given).sum().item())
    with pytest.raises(AssertionError, match="waits for the device"):
        loop.train(loop.read_recipe([*soft, "--max-steps", "4"]), loop.World())
