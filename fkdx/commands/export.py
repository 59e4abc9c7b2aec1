"""`fkdx export`: write a label file in a form that other tools read.

fkd         a folder of one .tar an image, as FKD's
parquet     a table of one row a crop: key, crop, box, flip, ids, values (needs pyarrow)
pred-probs  a numpy file (N, C), each image's probabilities, the mean over its crops, as cleanlab reads
            them; the images' keys are listed in OUT.keys.txt
fiftyone    a JSON file of the likeliest classes, FiftyOne's FiftyOneImageClassificationDataset
"""

import argparse
from pathlib import Path

from fkdx.commands.options import TAIL_HELP, progress, purpose
from fkdx.errors import refuse
from fkdx.facts import Facts, add_json
from fkdx.importers.fiftyone_export import export_fiftyone
from fkdx.importers.fkd_export import export_fkd
from fkdx.importers.parquet_export import export_parquet
from fkdx.importers.pred_probs import export_pred_probs, keys_path
from fkdx.labels import LabelFile
from fkdx.labels.comparable import check_class_labels
from fkdx.labels.distributions import TAILS, Tail

FORMS = ("fkd", "parquet", "pred-probs", "fiftyone")
WITH_TAIL = ("pred-probs", "fiftyone")


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    labels, output = LabelFile(args.labels), Path(args.output)
    if args.tail and args.to not in WITH_TAIL:
        expected = " or ".join(WITH_TAIL)
        raise ValueError(f"export: --tail, got {args.tail} with --to {args.to}, expected it with {expected}")
    if args.to == "fkd":
        _check_folder(labels, output)
    elif not args.overwrite:
        for path in (output, *([keys_path(output)] if args.to == "pred-probs" else [])):
            if path.exists():
                raise FileExistsError(
                    f"export: {path} exists; remove it, or ask to overwrite it (--overwrite)"
                )
    text, count = export(labels, output, args.to, args.tail or TAILS[0])
    with Facts(args.json) as facts:
        facts.say(f"{output}: {text}", path=str(output), form=args.to, **count)
    return 0


def export(labels: LabelFile, output: Path, form: str, tail: Tail) -> tuple[str, dict[str, int]]:
    """Writes `output`; returns how much it holds, in words and by name."""
    images = progress(labels, len(labels), "export")
    if form == "fkd":
        count = export_fkd(images, labels.kind, output)
        return f"{count:,} files", {"files": count}
    if form == "parquet":
        count = export_parquet(labels, images, output)
        return f"{count:,} rows", {"rows": count}
    if form == "fiftyone":
        count = export_fiftyone(labels, images, output, tail)
        return f"{count:,} images", {"images": count}
    count, classes = export_pred_probs(labels, images, output, tail), labels.num_classes
    return f"{count:,} images x {classes:,} classes", {"images": count, "classes": classes}


def _check_folder(labels: LabelFile, folder: Path) -> None:
    check_class_labels("export", labels)
    if labels.mix_size or labels.extra_operations:
        raise ValueError(
            f"export: FKD's files can hold plain crops only; these were mixed or changed, {labels.path}"
        )
    if folder.exists() and not folder.is_dir():
        refuse("export", "--output", "a file", "a folder, or another --to", folder)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"export: the folder is not empty; remove it or choose another, {folder}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx export",
        description=purpose(__doc__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("labels", help="label file or folder of shards")
    parser.add_argument("-o", "--output", required=True, metavar="OUT", help="folder or file to write")
    parser.add_argument("--to", choices=FORMS, default=FORMS[0], help="form (default: %(default)s)")
    tail_help = TAIL_HELP.replace("%(default)s", TAILS[0])
    parser.add_argument("--tail", choices=TAILS, help=f"for {' and '.join(WITH_TAIL)}: {tail_help}")
    parser.add_argument("--overwrite", action="store_true", help="replace output files that exist")
    add_json(parser)
    return parser
