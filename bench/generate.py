"""How busy a job keeps its teacher: python bench/generate.py [--images DIR] [--teacher resnet50]

The teacher labels synthetic batches that are already in memory and, in turns, images through the loop of
`fkdx generate`; the share is the ratio of their crops per second. First the job's labels are checked against
the teacher's answers for one image alone.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fkdx.generate.collect import Output
from fkdx.generate.draw import RandomCrops
from fkdx.generate.feed import Feed
from fkdx.generate.loop import Labelling
from fkdx.generate.shards import plan_shards
from fkdx.image import decode_crops
from fkdx.labels import LabelFile
from fkdx.labels.parts import Parts
from fkdx.models.machine import PRECISIONS
from fkdx.models.teacher import Preprocess, Teacher
from fkdx.stores import FileList, Store, open_store


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images", help="a folder of images, <class>/<name>; default: noise of 500 x 375 pixels"
    )
    parser.add_argument("--count", type=int, default=12, help="images of a turn (default %(default)s)")
    parser.add_argument("--teacher", default="resnet50", help="a timm model, with random weights")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--crops", type=int, default=64, help="of an image (default %(default)s)")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=PRECISIONS, default=None)
    parser.add_argument("--threads", type=int, help="that decode images")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    args.precision = args.precision or ("bfloat16" if args.device.startswith("cuda") else "float32")
    with tempfile.TemporaryDirectory() as folder:
        measure(args, Path(folder))


def measure(args: argparse.Namespace, folder: Path) -> None:
    teacher = make_teacher(args)
    source = take(open_store(args.images or draw_noise(folder / "noise", args.count)), args.count)
    # Long enough for every buffer: the first turn shall not pay for pinned memory.
    run_job(args, folder / "warm", teacher, take(source, max(2, 4 * args.batch_size // args.crops)))
    check(folder / "warm", teacher, source)
    alone, job, busy = [], [], []
    for turn in range(args.turns):
        alone.append(synthetic_rate(args, teacher, len(source) * args.crops))
        rate, share = run_job(args, folder / str(turn), teacher, source)
        job.append(rate)
        busy.append(share)
    alone_rate, job_rate = statistics.median(alone), statistics.median(job)
    print(
        f"{args.teacher}, {args.size} px, {args.precision}, {args.device}; {torch.get_num_threads()} threads"
    )
    print(f"synthetic batches   {alone_rate:9.1f} crops/s  (turns: {', '.join(f'{r:.1f}' for r in alone)})")
    print(f"a job on images     {job_rate:9.1f} crops/s  (turns: {', '.join(f'{r:.1f}' for r in job)})")
    told = statistics.median(busy)
    print(f"share               {job_rate / alone_rate:9.1%}          (told by the job: {told:.1%})")
    if args.json:
        numbers = {"alone": alone_rate, "job": job_rate, "share": job_rate / alone_rate, "told": told}
        args.json.write_text(json.dumps(numbers, indent=1))


def make_teacher(args: argparse.Namespace) -> Teacher:
    import timm

    torch.manual_seed(0)
    model = timm.create_model(args.teacher).eval()
    return Teacher(args.teacher, model, Preprocess(size=args.size), {}, args.device, args.precision)


def draw_noise(root: Path, count: int) -> Path:
    (root / "noise").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(rng.integers(0, 256, (94, 125, 3), np.uint8))
        small.resize((500, 375), Image.Resampling.BICUBIC).save(
            root / "noise" / f"{number:04d}.jpg", quality=92
        )
    return root


def take(source: Store, count: int) -> Store:
    return FileList(source.path, source.keys[:count])


def synthetic_rate(args: argparse.Namespace, teacher: Teacher, crops: int) -> float:
    """Crops a second of batches that are where the teacher is."""
    batch = torch.randint(
        256, (args.batch_size, args.size, args.size, 3), dtype=torch.uint8, device=args.device
    )
    batches = max(2, crops // args.batch_size)
    started = time.perf_counter()
    for _ in range(batches):
        logits = teacher(batch)
    logits.cpu()
    return batches * args.batch_size / (time.perf_counter() - started)


def run_job(args: argparse.Namespace, folder: Path, teacher: Teacher, source: Store) -> tuple[float, float]:
    """Label all images; returns crops a second, with reading and writing, and the busy share it tells."""
    options = {"kind": "topk", "num_classes": teacher.num_outputs, "k": 5, "crops": args.crops, "mix_size": 0}
    pinned = args.device.startswith("cuda")
    draw = RandomCrops(args.crops)
    job = Parts.begin(folder, {}, "generate")
    shards = plan_shards(len(source), args.crops, args.batch_size)
    started = time.perf_counter()
    with Feed(source, draw, args.batch_size, [teacher.shape], args.threads, pinned) as feed:
        labelling = Labelling(job, feed, [teacher], [Output(folder, (0,), options)], 1.0, quiet=True)
        assert labelling.run(shards)
        share = labelling.busy_share()
    return len(source) * args.crops / (time.perf_counter() - started), share


def check(folder: Path, teacher: Teacher, source: Store) -> None:
    image = LabelFile(folder / "0" / "00000.fkdl")[0]
    path = os.path.join(source.path, image.key)
    crops = torch.from_numpy(decode_crops(path, image.boxes, image.flips, *teacher.shape))
    own = torch.softmax(teacher(crops), dim=1).cpu().numpy()
    expected = np.take_along_axis(own, image.ids.astype(int), axis=1)
    np.testing.assert_allclose(image.values, expected, rtol=0.02, atol=1e-3)


if __name__ == "__main__":
    main()
