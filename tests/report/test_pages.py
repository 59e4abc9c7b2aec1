"""Pages of labels and of runs: whole, escaped, and honest about what they cannot show."""

import json
import os
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fkdx import LabelFile, LabelWriter, cli
from fkdx.report.label_page import open_report
from fkdx.report.page import library, listed
from fkdx.report.runs import read_run, seeds
from fkdx.stores import open_store

from label_draws import write_labels  # isort: skip


def data_of(page: Path) -> dict:
    text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.S)[1]
    return json.loads(text)


def test_the_page_holds_everything(labelled, tmp_path):
    labels, images = labelled
    page = tmp_path / "page.html"
    assert cli.main(["report", str(labels), "--images", str(images), "-o", str(page)]) == 0
    text, data = page.read_text(), data_of(page)
    assert len(data["rows"]) == 9
    assert not re.search(
        r'(?:src|href)="(?!data:|#)[^"]', text.split("<script>")[0]
    )  # nothing from elsewhere
    assert {"thresholds", "coverage", "entropy", "confusion", "balance", "area", "sizes"} <= set(
        data["charts"]
    )
    detail = next(iter(data["details"].values()))
    assert detail["picture"].startswith("data:image/jpeg;base64,")
    assert all(box["picture"] and box["classes"] for box in detail["boxes"])
    assert page.stat().st_size < 15e6


def test_a_page_needs_no_home(tmp_path, monkeypatch):
    """In a container, it may be that of another user."""
    (tmp_path / "locked").mkdir()
    (tmp_path / "locked").chmod(0)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "locked/x"))
    root = os.geteuid() == 0
    if root:  # who may read everything
        os.seteuid(65534)
    try:
        assert len(library.__wrapped__()) > 500_000
    finally:
        if root:
            os.seteuid(0)
        (tmp_path / "locked").chmod(0o700)


def test_facts_of_a_header_in_words():
    teacher = {"name": "a", "mean": [0.5, 1 / 3], "checkpoint": None}
    assert listed({"allow_warnings": False, "teachers": [teacher], "versions": {"fkdx": "1"}}) == {
        "allow warnings": "no",
        "teachers, name": "a",
        "teachers, mean": "0.5, 0.333333",
        "teachers, checkpoint": "–",
        "versions, fkdx": "1",
    }
    assert listed({"teachers": [{"name": "a"}, {"name": "b"}], "steps": []}) == {
        "teachers 1, name": "a",
        "teachers 2, name": "b",
        "steps": "",
    }


def test_a_hostile_name_stays_text(labelled, tmp_path):
    labels, _ = labelled
    page = tmp_path / "page.html"
    assert cli.main(["report", str(labels), "-o", str(page)]) == 0
    text = page.read_text()
    assert "<img src=x" not in text
    assert "<b>cat" not in text
    assert "<i>me</i>" not in text
    assert "No pictures" in text


@pytest.mark.parametrize("kind", ["hard", "dense_logits", "topk_logits", "smoothing"])
def test_every_kind_has_a_page(rng, tmp_path, kind):
    write_labels(tmp_path / "a.fkdl", rng, kind, images=4)
    assert cli.main(["report", str(tmp_path / "a.fkdl"), "-o", str(tmp_path / "page.html")]) == 0
    assert "True classes are unknown" in (tmp_path / "page.html").read_text()


def test_one_image_and_none(tmp_path, capsys):
    for count in (1, 0):
        path = tmp_path / f"{count}.fkdl"
        with LabelWriter(path, num_classes=3, k=1, crops=1) as writer:
            for number in range(count):
                writer.add(f"a/{number}", [[0, 0, 9, 9]], [False], [[1]], [[0.5]], (10, 10))
    assert cli.main(["report", str(tmp_path / "1.fkdl"), "-o", str(tmp_path / "page.html")]) == 0
    assert cli.main(["report", str(tmp_path / "0.fkdl"), "-o", str(tmp_path / "page.html")]) == 1
    assert "holds no images" in capsys.readouterr().err


def test_images_that_are_gone_or_broken_are_named(labelled, tmp_path):
    labels, images = labelled
    keys = list(LabelFile(labels).keys)
    for number, key in enumerate(keys):
        path = tmp_path / "images" / key
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 2:
            path.write_bytes(b"\xff\xd8\xff no image" if number % 4 == 1 else (images / key).read_bytes())
    page = tmp_path / "page.html"
    assert cli.main(["report", str(labels), "--images", str(tmp_path / "images"), "-o", str(page)]) == 0
    faults = {detail["fault"] for detail in data_of(page)["details"].values()}
    assert any(fault and "is not in the folder" in fault for fault in faults)
    assert any(fault and "cannot be decoded" in fault for fault in faults)
    assert None in faults


@pytest.mark.parametrize("options", [{"k": 0}, {"value_type": "int8"}, {"crops": None}], ids=str)
def test_embeddings_have_a_page_without_classes(rng, labelled, tmp_path, options):
    """Of one or two embeddings; what needs classes is left out, and said."""
    sizes = dict.fromkeys(open_store(labelled[1]).keys, (120, 160))
    written = write_labels(tmp_path / "l.fkdl", rng, "embedding", sizes=sizes, **options)
    page = tmp_path / "l.html"
    assert cli.main(["report", str(tmp_path / "l.fkdl"), "--images", str(labelled[1]), "-o", str(page)]) == 0
    text, data = page.read_text(), data_of(page)
    assert set(data["charts"]) == {"alike", "area", "centres", "sizes"}
    assert "Embeddings have no classes" in text
    assert not re.search('id="(certainty|classes|hardest)"', text)
    row = next(row for row in data["rows"] if row["crops"] == max(row["crops"] for row in data["rows"]))
    labels = LabelFile(tmp_path / "l.fkdl")
    parts = np.split(labels[row["key"]].values, np.cumsum(list(labels.embeddings.values()))[:-1], axis=1)
    cosines = []
    for part, moments in zip(parts, labels.moments.values()):
        rows = (part - moments.mean) / moments.divisor
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines.append(rows @ rows.sum(axis=0) / np.linalg.norm(rows.sum(axis=0)))
    assert abs(row["unity"] - np.mean(cosines)) < 1e-4
    detail = data["details"][str(row["image"])]
    assert all(box["picture"] and not box["classes"] for box in detail["boxes"])
    assert len(written) == len(data["rows"])


def test_zero_vectors_are_a_problem(tmp_path):
    """Of all crops: there is nothing to compare, and the page says why."""
    with LabelWriter(tmp_path / "l.fkdl", "embedding", embeddings={"cls": 4}, crops=2) as writer:
        boxes = np.array([[0, 0, 40, 40], [1, 1, 40, 40]])
        writer.add(
            "a.jpg", boxes, np.zeros(2, bool), values=np.zeros((2, 4), np.float32), image_size=(50, 50)
        )
    assert cli.main(["report", str(tmp_path / "l.fkdl"), "-o", str(tmp_path / "l.html")]) == 0
    assert "<strong>zero vectors</strong>: 2 of 2" in (tmp_path / "l.html").read_text()


def test_boxes_that_are_parts_of_images(rng, tmp_path):
    """Labels that were packed without their images have no sizes."""
    write_labels(tmp_path / "l.fkdl", rng, ratios=True, encoding="compact")
    assert cli.main(["report", str(tmp_path / "l.fkdl"), "-o", str(tmp_path / "l.html")]) == 0


def test_a_damaged_entry_of_an_archive_is_named(labelled, tmp_path):
    labels, images = labelled
    keys = list(open_store(images).keys)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for key in keys:
            archive.writestr(key, (images / key).read_bytes())
        at = archive.getinfo(keys[1]).header_offset + 30 + len(keys[1])
    data = bytearray((tmp_path / "x.zip").read_bytes())
    data[at : at + 8] = b"\xff" * 8
    (tmp_path / "x.zip").write_bytes(data)
    inspector = open_report(LabelFile(labels), open_store(tmp_path / "x.zip")).inspector
    assert "damaged deflate data" in inspector.detail(1)["fault"]
    assert inspector.detail(0)["picture"]


def test_two_label_files(labelled, tmp_path, capsys):
    labels, _ = labelled
    other = tmp_path / "other.fkdl"
    assert cli.main(["slice", str(labels), "-o", str(other), "--crops", "6"]) == 0
    page = tmp_path / "page.html"
    assert cli.main(["report", str(labels), "--against", str(other), "-o", str(page)]) == 0
    assert "100.00%" in page.read_text()
    assert next(iter(data_of(page)["details"].values()))["boxes"][0]["other"]
    assert cli.main(["slice", str(labels), "-o", str(tmp_path / "fewer.fkdl"), "--crops", "5"]) == 0
    assert cli.main(["report", str(labels), "--against", str(tmp_path / "fewer.fkdl"), "-o", str(page)]) == 1
    assert "labels of the same crops" in capsys.readouterr().err


def write_run(folder: Path, seed: int, top1: list[float], torn: bool = False) -> Path:
    folder.mkdir(parents=True)
    lines = [
        {
            "kind": "step",
            "step": s,
            "time": s,
            "loss": 2 / s,
            "lr": 0.1,
            "crops_per_second": 9.0,
            "data_wait": 0.01,
        }
        for s in range(1, 9)
    ]
    lines += [{"kind": "evaluation", "step": 8, "time": 9, "top1": value, "epoch": 1} for value in top1]
    lines.append({"kind": "event", "step": 8, "time": 9, "text": "<script>stopped</script>"})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "log.jsonl").write_text(text + ('{"kind": "st' if torn else ""))
    (folder / "args.yaml").write_text(f"seed: {seed}\nlr: {0.1 if seed < 9 else 0.2}\nstudent: resnet18\n")
    return folder


def test_runs_side_by_side(tmp_path):
    runs = [write_run(tmp_path / f"run{seed}", seed, [50.0 + seed], torn=seed == 2) for seed in (1, 2, 9)]
    page = tmp_path / "page.html"
    assert cli.main(["report", *map(str, runs), "-o", str(page)]) == 0
    text, data = page.read_text(), data_of(page)
    assert set(data["charts"]) == {"loss", "top1", "lr", "crops_per_second", "data_wait"}
    assert "&lt;script&gt;stopped" in text
    assert re.search(r">lr</th><td>0.1</td><td>0.1</td><td>0.2<", text)
    rows = seeds([read_run(run) for run in runs])
    assert [(row[0], row[1]) for row in rows] == [("run1, run2", 2)]
    np.testing.assert_allclose(rows[0][2:], [51.5, np.std([51, 52], ddof=1)])


def test_odd_lines_and_files_of_a_run(tmp_path, capsys):
    folder = write_run(tmp_path / "a", 0, [50.0])
    odd = ['{"kind": "st', "[1]", "5", '{"step": 1}', '{"kind": "step"}', "\0\0"]
    lost = '{"kind": "step", "step": 9, "loss": NaN}'
    with (folder / "log.jsonl").open("a") as log:
        log.write("".join(f"{line}\n" for line in [*odd, lost]))
    assert cli.main(["report", str(folder), "-o", str(tmp_path / "x.html")]) == 0
    for name, said in (("classes.csv", "columns class, images, top1"), ("args.yaml", "expected YAML")):
        (folder / name).write_text("[class,images,top1\na,b,c\n")
        assert cli.main(["report", str(folder), "-o", str(tmp_path / "x.html")]) == 1
        assert re.search(rf"{said}, .*{name}\n$", capsys.readouterr().err)
        (folder / name).unlink()


def test_accuracy_of_classes_beside_the_teachers(labelled, tmp_path):
    run = write_run(tmp_path / "run", 1, [50.0])
    (run / "classes.csv").write_text("class,images,top1\nant,4,75.0\nbee,2,50.0\n")
    page = tmp_path / "page.html"
    assert cli.main(["report", str(run), "-o", str(page)]) == 0
    assert "teacher, on its crops" not in page.read_text()
    assert cli.main(["report", str(run), "--labels", str(labelled[0]), "-o", str(page)]) == 0
    labels = LabelFile(labelled[0])
    top = [image.ids[:, 0] == 1 for image in labels if image.key.startswith("bee/")]
    row = f">bee</th><td>2</td><td>50</td><td>{100 * np.concatenate(top).mean():.4g}<"
    assert row in page.read_text()
    assert page.read_text().index(">bee<") < page.read_text().index(">ant<")
    with (run / "args.yaml").open("a") as recipe:
        recipe.write(f"labels: {labelled[0]}\n")
    hard = write_run(tmp_path / "hard", 2, [40.0])
    with (hard / "args.yaml").open("a") as recipe:
        recipe.write("labels: ''\n")
    assert cli.main(["report", str(hard), "-o", str(page)]) == 0
    assert "teacher, on its crops" not in page.read_text()
    assert cli.main(["report", str(run), str(hard), "-o", str(page)]) == 0
    row = row.replace("<td>50</td>", "<td>50</td><td>–</td>")
    assert row in page.read_text()


def test_what_is_neither_labels_nor_a_run_is_refused(labelled, tmp_path, capsys):
    run = write_run(tmp_path / "run", 1, [])
    assert cli.main(["report", str(run), str(labelled[0]), "-o", str(tmp_path / "page.html")]) == 1
    assert "expected one label file, or folders of runs" in capsys.readouterr().err
