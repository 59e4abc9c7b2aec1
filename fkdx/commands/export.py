"""`fkdx export`: write a label file as FKD's folder of one `.tar` per image, for tools that read those."""

import argparse
from pathlib import Path

from fkdx.commands.options import progress, purpose
from fkdx.importers.fkd_export import export_fkd
from fkdx.labels import LabelFile


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="fkdx export", description=purpose(__doc__))
    parser.add_argument("labels", help="label file or folder of shards")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder to write")
    args = parser.parse_args(argv)
    labels = LabelFile(args.labels)
    if labels.mix_size or labels.extra_operations:
        raise ValueError(
            f"export: FKD's files can hold plain crops only; these were mixed or changed, {args.labels}"
        )
    folder = Path(args.output)
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"export: the folder is not empty; remove it or choose another, {folder}")
    count = export_fkd(progress(labels, len(labels), "export"), labels.kind, args.output)
    print(f"{args.output}: {count} files")
    return 0
