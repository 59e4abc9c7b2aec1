"""Labels are what the teacher says of the stored crops; what is wrong is said; nothing half done is left."""

import io
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm
import torch
from generating import CROPS, SIZE, TEACHER, changed, make_data, make_teacher, of_kind, run_options
from images import cut_short
from PIL import Image
from safetensors.torch import save_file

from fkdx import cli, reference
from fkdx.commands import verify
from fkdx.generate import program
from fkdx.labels import LabelFile
from fkdx.models.teacher import Teacher


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("teacher") / "weights.safetensors"


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> torch.nn.Module:
    return make_teacher(checkpoint)


@pytest.fixture
def options(data: Path, model: torch.nn.Module, checkpoint: Path, tmp_path: Path) -> list[str]:
    return run_options(data, checkpoint, tmp_path / "labels.fkdl")


@pytest.fixture
def broken(options: list[str], data: Path, tmp_path: Path) -> list[str]:
    """A run over four images, of which ant/1.jpg is broken."""
    root = tmp_path / "broken"
    for key in ("ant/0.jpg", "bee/1.jpg", "cat/3.jpg"):
        (root / key).parent.mkdir(parents=True)
        (root / key).write_bytes((data / key).read_bytes())
    (root / "ant" / "1.jpg").write_bytes((data / "ant" / "1.jpg").read_bytes()[:200])
    return changed(options, data=root)


def labels_of(options: list[str]) -> LabelFile:
    assert cli.run("generate", options) == 0
    return LabelFile(options[-1])


def refusal(options: list[str], capsys: pytest.CaptureFixture) -> str:
    """The one line with which a run refuses; nothing is left under the final name."""
    assert cli.run("generate", options) == 1
    assert not Path(options[-1]).exists()
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    return lines[0]


def test_labels_are_what_the_teacher_says(options: list[str], data: Path, model: torch.nn.Module) -> None:
    labels = labels_of(["--temperature", "2", "--interpolation", "bicubic", *options])
    preprocess = SimpleNamespace(size=SIZE, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    assert list(labels.keys) == sorted(str(p.relative_to(data)) for p in data.glob("*/*.jpg"))
    for image in labels:
        path = data / image.key
        assert image.image_size == Image.open(path).size[::-1]
        expected = reference.generate.teacher_probabilities(
            model, path, image.boxes, image.flips, preprocess, 2.0
        )
        values, ids = expected.topk(2)
        np.testing.assert_array_equal(image.ids, ids)
        np.testing.assert_allclose(image.values, values, atol=1e-3)
    left = {path.name for path in Path(options[-1]).parent.iterdir()}
    assert left == {"labels.fkdl", "labels.fkdl.report.json"}


def test_header_tells_how_the_labels_were_made(options: list[str], checkpoint: Path) -> None:
    labels = labels_of(options)
    told = labels.header["provenance"]
    assert labels.classes == ["ant", "bee", "cat"]
    assert (labels.kind, labels.k, labels.crops) == ("topk", 2, CROPS)
    assert told["teachers"][0]["name"] == TEACHER
    assert told["teachers"][0]["checkpoint"] == checkpoint.name
    assert len(told["teachers"][0]["weights_sha256"]) == 64
    assert told["teachers"][0]["size"] == SIZE
    assert told["scale"] == [0.08, 1.0]
    assert told["temperature"] == 1.0
    assert told["command"].startswith("fkdx generate")
    assert told["versions"]["torch"] == torch.__version__.split("+")[0]


@pytest.mark.parametrize("kind", ["hard", "smoothing", "dense", "dense_logits", "topk_logits"])
def test_kinds(options: list[str], kind: str) -> None:
    whole = ["--kind", kind, *options] if kind == "topk_logits" else of_kind(kind, options)
    labels = labels_of(whole)
    assert labels.kind == kind
    best = labels_of(changed(options, output=options[-1] + "topk"))
    for image, other in zip(labels, best):
        if kind.startswith("dense"):
            chosen = np.take_along_axis(image.values, other.ids[:, :1].astype(int), axis=1)
            np.testing.assert_array_equal(chosen[:, 0], image.values.max(axis=1))
        else:
            np.testing.assert_array_equal(image.ids[:, 0], other.ids[:, 0])
        if kind == "topk_logits":
            total = np.logaddexp(np.logaddexp.reduce(image.values.astype(float), axis=1), image.tails)
            np.testing.assert_allclose(np.exp(image.values - total[:, None]), other.values, atol=3e-3)


def test_boxes_depend_on_seed_and_key_alone(options: list[str], data: Path, tmp_path: Path) -> None:
    labels = labels_of(options)
    fewer = tmp_path / "fewer"
    for key in ("bee/1.jpg", "cat/3.jpg", "ant/0.jpg"):
        (fewer / key).parent.mkdir(parents=True)
        (fewer / key).write_bytes((data / key).read_bytes())
    other = labels_of(changed(options, data=fewer, output=tmp_path / "b.fkdl"))
    for image in other:
        np.testing.assert_array_equal(image.boxes, labels[image.key].boxes)
        np.testing.assert_array_equal(image.flips, labels[image.key].flips)


@pytest.mark.parametrize("wrapped", ["bare", "module", "trainer"])
def test_pth_checkpoints(options: list[str], model: torch.nn.Module, tmp_path: Path, wrapped: str) -> None:
    weights = model.state_dict()
    state = {
        "bare": weights,
        "module": {"state_dict": {f"module.{name}": value for name, value in weights.items()}},
        "trainer": {"model": weights, "args": {"lr": 0.1}, "epoch": 3},
    }[wrapped]
    torch.save(state, tmp_path / "weights.pth")
    labels_of(changed(options, checkpoint=tmp_path / "weights.pth"))
    told = LabelFile(options[-1]).header["provenance"]["teachers"][0]
    assert told["checkpoint"] == "weights.pth"


def test_images_that_cannot_be_read_are_reported(broken: list[str], capsys: pytest.CaptureFixture) -> None:
    labels = labels_of(broken)
    assert len(labels) == 3
    report = json.loads(Path(broken[-1] + ".report.json").read_text())
    assert [entry["key"] for entry in report["failed"]] == ["ant/1.jpg"]
    assert "JPEG" in report["failed"][0]["reason"]
    assert report["settings"]["teachers"][0]["weights_sha256"]
    assert sum(shard["images"] for shard in report["shards"]) == 3
    assert all(shard["digests"] for shard in report["shards"])
    assert "1 images could not be read" in capsys.readouterr().err


def test_strict_stops_at_them(broken: list[str], capsys: pytest.CaptureFixture) -> None:
    assert "ant/1.jpg" in refusal(["--strict", *broken], capsys)


def test_finished_job_is_not_done_again(options: list[str], capsys: pytest.CaptureFixture) -> None:
    labels_of(options)
    before = Path(options[-1]).stat()
    assert cli.run("generate", options) == 0
    assert "finished already" in capsys.readouterr().out
    assert Path(options[-1]).stat() == before
    assert cli.run("generate", ["--seed", "3", *options]) == 1
    assert "the output exists" in capsys.readouterr().err


def test_output_is_never_overwritten(options: list[str], capsys: pytest.CaptureFixture) -> None:
    Path(options[-1]).write_text("mine")
    assert cli.run("generate", options) == 1
    assert "the output exists" in capsys.readouterr().err
    assert Path(options[-1]).read_text() == "mine"


def test_other_settings_do_not_continue_a_job(broken: list[str], capsys) -> None:
    refusal(["--strict", *broken], capsys)  # leaves a job behind
    line = refusal(["--strict", "--seed", "7", *broken], capsys)
    assert "seed was 0, is now 7" in line


def test_teacher_of_other_classes(options: list[str], tmp_path: Path, capsys) -> None:
    make_teacher(tmp_path / "five.safetensors", classes=5)
    line = refusal(changed(options, checkpoint=tmp_path / "five.safetensors"), capsys)
    assert "test_resnet has 5 classes, got 3" in line


def test_class_names_given_in_a_file(options: list[str], tmp_path: Path, capsys) -> None:
    (tmp_path / "names.txt").write_text("cat\nbee\nant\n")
    labels = labels_of(["--classes", str(tmp_path / "names.txt"), *options])
    assert labels.classes == ["cat", "bee", "ant"]
    (tmp_path / "names.txt").write_text("cat\nbee\nemu\n")
    line = refusal(
        ["--classes", str(tmp_path / "names.txt"), *changed(options, output=tmp_path / "b.fkdl")], capsys
    )
    assert "classes: got 'ant' of ant/0.jpg, expected one of 3 names such as 'cat'" in line


def test_images_without_class_folders(options: list[str], data: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat/1.jpg").write_bytes((data / "ant/1.jpg").read_bytes())
    options = changed(options, data=tmp_path / "flat")
    line = refusal(options, capsys)
    assert f"3 classes, got 0 of the folders in {tmp_path}/flat; give its class names" in line
    (tmp_path / "names.txt").write_text("red ant\nbee\ncat\n")
    assert labels_of(["--classes", str(tmp_path / "names.txt"), *options]).classes == [
        "red ant",
        "bee",
        "cat",
    ]


@pytest.mark.parametrize("kind", ["backslash", "tab", "newline", "pipe", "link"])
def test_what_cannot_be_labelled_is_found_before_the_first_crop(
    options: list[str], data: Path, tmp_path: Path, kind: str, capsys
) -> None:
    folder = tmp_path / "data" / "ant"
    folder.mkdir(parents=True)
    for name in ("bee", "cat"):
        (folder.parent / name).mkdir()
        (folder.parent / name / "1.jpg").write_bytes((data / name / "1.jpg").read_bytes())
    names = {"backslash": "a\\b.jpg", "tab": "a\tb.jpg", "newline": "a\nb.jpg"}
    path = folder / names.get(kind, "z.jpg")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(tmp_path / "nowhere.jpg")
    else:
        path.write_bytes((data / "ant/1.jpg").read_bytes())
    line = refusal(changed(options, data=folder.parent), capsys)
    expected = {"pipe": "got a pipe, a device or a socket", "link": "got a link to nothing"}
    assert expected.get(kind, "control character") in line
    assert kind in names or str(path) in line
    assert not Path(options[-1] + ".parts").exists()


def test_checkpoint_of_another_model(options: list[str], capsys) -> None:
    assert "the checkpoint is of another model" in refusal(changed(options, teacher="test_vit"), capsys)


def test_unknown_model(options: list[str], capsys) -> None:
    assert "near it: resnet18" in refusal(changed(options, teacher="resnet_18"), capsys)


def test_missing_checkpoint(options: list[str], capsys) -> None:
    assert "no checkpoint at /nowhere" in refusal(changed(options, checkpoint="/nowhere"), capsys)


def test_checkpoint_that_would_run_code(options: list[str], tmp_path: Path, capsys) -> None:
    torch.save({"model": Evil(tmp_path / "pwned")}, tmp_path / "evil.pth")
    assert "cannot read weights" in refusal(changed(options, checkpoint=tmp_path / "evil.pth"), capsys)
    assert not (tmp_path / "pwned").exists()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_outputs_that_are_not_finite_name_the_image(options, model, tmp_path: Path, capsys) -> None:
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    weights["fc.bias"][1] = torch.nan
    save_file(weights, tmp_path / "nan.safetensors")
    line = refusal(changed(options, checkpoint=tmp_path / "nan.safetensors"), capsys)
    assert "not finite, ant/0.jpg" in line
    left = [path for path in tmp_path.rglob("*") if path.suffix in (".fkdl", ".tmp")]
    assert left == []


def test_memory_that_runs_out_halves_the_batch(options: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = labels_of(options)
    sizes = []
    forward = Teacher._forward

    def small(self: Teacher, images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(self, images)

    monkeypatch.setattr(Teacher, "_forward", small)
    halved = labels_of(changed(options, output=options[-1] + "2"))
    assert max(sizes[sizes.index(max(sizes)) + 2 :]) <= 3
    for image, other in zip(whole, halved):
        np.testing.assert_allclose(image.values, other.values, atol=2e-3)


def test_disk_that_cannot_be_written(options: list[str], tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert "Not a directory" in refusal(changed(options, output=tmp_path / "file" / "labels.fkdl"), capsys)
    assert "/proc/labels.fkdl.parts" in refusal(changed(options, output="/proc/labels.fkdl"), capsys)


def test_teacher_of_other_channels(options: list[str], capsys) -> None:
    start = options.index("--checkpoint")
    own = [*options[:start], *options[start + 2 :]]
    line = refusal(changed(own, teacher="generating:gray_teacher"), capsys)
    assert "generating:gray_teacher failed on one RGB crop of 32 x 32 pixels" in line


@pytest.mark.parametrize("ranges", [["--scale", "0.5", "0.1"], ["--flip", "2"], ["--ratio", "0", "1"]])
def test_crops_that_make_no_sense(options: list[str], ranges: list[str], capsys) -> None:
    refusal([*ranges, *options], capsys)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--crops", "0"], "--crops: got 0"),
        (["--checkpoint", "two"], "--checkpoint: got 2"),
        (["--head", "swav"], "--head: its outputs are stored before the softmax"),
        (
            ["--head", "swav", "--kind", "dense_logits", "--evaluate", "a"],
            "--head: its outputs are no classes, got --evaluate",
        ),
        (["--kind", "topk_logits", "--temperature", "4"], "--temperature: logits have none, got 4.0"),
        (["--policy", "a", "--crops-from", "b"], "exclude each other"),
    ],
)
def test_options_that_do_not_fit(options: list[str], wrong: list[str], said: str, capsys) -> None:
    with pytest.raises(SystemExit):
        cli.run("generate", [*options, *wrong])
    assert said in capsys.readouterr().err


def test_others_wait_longer_while_rank_0_evaluates(options: list[str], capsys, monkeypatch) -> None:
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr(program, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(program, "EVALUATION_SECONDS", 100)
    data = options[options.index("--data") + 1]
    for more, seconds in (([], 600), (["--evaluate", data], 700)):
        assert f"no job was begun by rank 0 within {seconds} s" in refusal([*more, *options], capsys)


def test_damaged_validation_images_are_allowed_as_training_images_are(
    options: list[str], tmp_path: Path, capsys
) -> None:
    data = Path(options[options.index("--data") + 1])
    name = sorted(path.name for path in data.iterdir())[0]
    (tmp_path / "val" / name).mkdir(parents=True)
    image = io.BytesIO()
    Image.effect_noise((60, 60), 80).convert("RGB").save(image, "jpeg")
    (tmp_path / "val" / name / "0.jpg").write_bytes(cut_short(image.getvalue()))
    evaluation = ["--evaluate", str(tmp_path / "val"), *options]
    assert "0.jpg" in refusal(evaluation, capsys)
    labels_of(["--allow-warnings", *evaluation])
    assert "of 1 images" in capsys.readouterr().out


def test_shards_instead_of_one_file(options: list[str], tmp_path: Path) -> None:
    whole = labels_of(options)
    shards = labels_of(changed(options, output=tmp_path / "labels"))
    assert (tmp_path / "labels" / "manifest.json").exists()
    for image, other in zip(whole, shards, strict=True):
        assert image.key == other.key
        np.testing.assert_array_equal(image.values, other.values)


def test_crops_of_another_file(options: list[str], tmp_path: Path, capsys) -> None:
    old = labels_of(["--seed", "5", *options])
    capsys.readouterr()
    new = labels_of(["--crops-from", options[-1], *changed(options, output=tmp_path / "new.fkdl")])
    assert "without effect" not in capsys.readouterr().err
    other = changed(options, output=tmp_path / "other.fkdl", crops=3)
    labels_of(["--crops-from", options[-1], "--scale", "0.2", "1", *other])
    said = f"--crops, --scale without effect: {CROPS} crops of each image are those of {options[-1]}"
    assert said in capsys.readouterr().err
    assert new.header["provenance"]["crops_digest"] == old.digest
    for image, other in zip(old, new, strict=True):
        np.testing.assert_array_equal(image.boxes, other.boxes)
        np.testing.assert_array_equal(image.flips, other.flips)
        np.testing.assert_array_equal(image.values, other.values)


def test_crops_of_a_policy(options: list[str], tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text(
        "- {kind: centre, side: 0.5}\n- {kind: corners, side: 0.5, both: true}\n"
        "- {kind: grid, sides: [1, 0.5], steps: 2}\n- {kind: random, crops: 3, flip: 1}\n"
    )
    labels = labels_of(["--policy", str(tmp_path / "policy.yaml"), *options])
    assert labels.crops == 1 + 8 + 8 + 3
    for image in labels:
        height, width = image.image_size
        side = round(min(height, width) / 2)
        assert image.boxes[0].tolist() == [round((height - side) / 2), round((width - side) / 2), side, side]
        assert image.boxes[4].tolist() == [height - side, width - side, side, side]
        np.testing.assert_array_equal(image.boxes[1:5], image.boxes[5:9])
        np.testing.assert_array_equal(image.flips[1:9], [False] * 4 + [True] * 4)
        assert image.boxes[9].tolist() == [0, 0, min(height, width), min(height, width)]
        assert image.flips[17:].all()


@pytest.mark.parametrize(
    "text", ["[]", "- {kind: spiral}", "- {kind: centre}", "- {kind: centre, side: 2}", "{", "[" * 5000]
)
def test_policies_that_make_no_sense(options: list[str], tmp_path: Path, text: str, capsys) -> None:
    (tmp_path / "policy.yaml").write_text(text)
    assert "policy: " in refusal(["--policy", str(tmp_path / "policy.yaml"), *options], capsys)


def test_a_pipe_is_no_policy(options: list[str], tmp_path: Path, capsys) -> None:
    """And nobody waits for what comes out of it."""
    os.mkfifo(tmp_path / "pipe.yaml")
    assert "policy: no such file" in refusal(["--policy", str(tmp_path / "pipe.yaml"), *options], capsys)


def test_several_teachers(options: list[str], data: Path, model, tmp_path: Path) -> None:
    torch.manual_seed(3)
    other = timm.create_model("test_vit", num_classes=3, img_size=SIZE).eval()
    save_file(other.state_dict(), tmp_path / "vit.safetensors")
    second = ["--teacher", "test_vit", "--checkpoint", str(tmp_path / "vit.safetensors")]
    own = of_kind("dense", options)
    together = labels_of(["--store", "both", *own[:-2], *second, *own[-2:]])
    each = [LabelFile(tmp_path / f"labels.{i}.fkdl") for i in (0, 1)]
    names = [[t["name"] for t in file.header["provenance"]["teachers"]] for file in (together, *each)]
    assert names == [[TEACHER, "test_vit"], [TEACHER], ["test_vit"]]
    inputs = [SimpleNamespace(**file.header["provenance"]["teachers"][0]) for file in each]
    assert [own.interpolation for own in inputs] == ["bilinear", "bicubic"]
    for image in together:
        alone = [file[image.key] for file in each]
        for teacher, wants, own in zip((model, other), inputs, alone):
            view = (data / image.key, image.boxes, image.flips)
            expected = reference.generate.teacher_probabilities(teacher, *view, wants, 1.0)
            np.testing.assert_allclose(own.values, expected, atol=1e-3)
        mean = (alone[0].values.astype(float) + alone[1].values) / 2
        np.testing.assert_allclose(image.values, mean, atol=1e-3)


def test_teachers_that_cannot_be_averaged(options: list[str], capsys) -> None:
    second = ["--teacher", TEACHER, "--checkpoint", options[options.index("--checkpoint") + 1]]
    two = [*options[:-2], *second, *options[-2:]]
    assert "use --store separate" in refusal(of_kind("dense_logits", two), capsys)


def test_low_precision_stays_close(options: list[str], tmp_path: Path) -> None:
    exact = labels_of(options)
    rounded = labels_of(["--precision", "bfloat16", *changed(options, output=tmp_path / "b.fkdl")])
    for image, other in zip(exact, rounded):
        np.testing.assert_allclose(image.values, other.values, atol=0.02)


def test_evaluate_and_dry_run_tell_before_the_work(
    options: list[str], data: Path, tmp_path: Path, capsys
) -> None:
    assert cli.run("generate", ["--evaluate", str(data), "--dry-run", *options]) == 0
    told = capsys.readouterr().out
    assert "top-5 100.00% of 12 images" in told
    assert "12 images x 10 crops = 120 crops in 12 shards" in told
    size = int(told.split("labels.fkdl: about ")[1].split()[0].replace(",", ""))
    assert list(tmp_path.iterdir()) == []
    labels_of(options)
    assert 0 < Path(options[-1]).stat().st_size - size < 4096  # header and keys
    assert cli.run("generate", ["--dry-run", "--encoding", "compact", *options]) == 0
    assert f"labels.fkdl: less than {size:,} bytes" in capsys.readouterr().out


def test_fkdx_verify_agrees(options: list[str], data: Path, checkpoint: Path, capsys) -> None:
    labels_of(["--temperature", "3", *options])
    again = [
        "--images",
        str(data),
        "--teacher",
        TEACHER,
        "--checkpoint",
        str(checkpoint),
        "--size",
        str(SIZE),
    ]
    assert verify.main([options[-1], *again, "--temperature", "3"]) == 0
    stored = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("as stored"))
    assert float(stored.split()[2].rstrip("%")) > 95


def test_maps_give_labels_of_the_same_crops(options: list[str], tmp_path: Path) -> None:
    exact = labels_of(options)
    rough = labels_of(["--maps", *changed(options, output=tmp_path / "maps.fkdl", size=96)])
    assert rough.header["provenance"]["maps"] is True
    for image, other in zip(exact, rough, strict=True):
        np.testing.assert_array_equal(image.boxes, other.boxes)
        assert np.isfinite(other.values.astype(float)).all()


def test_status_of_nothing(options: list[str], capsys) -> None:
    assert cli.run("generate", ["--status", "--output", options[-1]]) == 0
    assert "no such job" in capsys.readouterr().out
    Path(options[-1]).write_text("something else")
    assert cli.run("generate", ["--status", "--output", options[-1]]) == 1
    assert "this is no label file" in capsys.readouterr().err
