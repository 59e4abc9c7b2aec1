"""`fkdx index`: write down what is where in a store of images, so that no run has to look again."""

import argparse
import os

import numpy as np

from fkdx.commands.options import add_classes
from fkdx.facts import Facts, add_json
from fkdx.files import check_replaceable
from fkdx.stores import FORMS, DataIndex, make_entry_points, open_store, own_index_path, write_store_index
from fkdx.stores.index import MAGIC

_PURPOSE = "Write the index of images: where each lies, its class, its height and width."


def main(argv: list[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    store = open_store(args.data, args.classes)
    part = args.data.partition("::")[2]
    path = args.output or own_index_path(store)
    check_replaceable(path, MAGIC, "data index")
    entries = make_entry_points(store) if args.entry_points else None
    write_store_index(store, path, part, entries=entries)
    with Facts(args.json) as facts:
        say_summary(facts, path)
    return 0


def say_summary(facts: Facts, path: str) -> None:
    index = DataIndex(path)
    unread = int((~index.column("pixels").any(axis=1)).sum())
    total, size = int(index.column("length").sum(dtype=np.int64)), os.path.getsize(path)
    classes = len(index.about["classes"])
    facts.say(
        f"{path}: {index.images:,} images of {classes:,} classes, {total:,} bytes; "
        f"the index has {size:,} bytes",
        **{"path": path, "images": index.images, "classes": classes, "image_bytes": total, "bytes": size},
        unreadable_headers=unread,
    )
    if "entry points" in index:
        starts, coded = index.entry_points()
        with_points = int((np.diff(starts) > 0).sum())
        facts.say(
            f"entry points of {with_points:,} images, {len(coded) / max(total, 1):.2%} of all bytes",
            entry_points={"images": with_points, "bytes": len(coded)},
        )
    if unread:
        facts.say(f"{unread:,} images have no header that can be read; `fkdx verify --images` names them")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fkdx index",
        description=_PURPOSE,
        epilog=FORMS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("data", metavar="DATA", help="the images, see below")
    add("-o", "--output", metavar="FILE", help="the index (default: DATA.fkdi, where it is found by itself)")
    add(
        "--entry-points",
        action="store_true",
        help="read all images and note where decoding may begin in each JPEG, in at most 1.5 %% of its "
        "bytes: crops load faster, most of all one crop an image",
    )
    add_classes(parser)
    add_json(parser)
    return parser
