"""The verbs of `fkdx`, by purpose, and what its exit status means."""

import os
import sys

from fkdx._version import __version__

# purpose: {verb: (module, what it does)}
GROUPS = {
    "labels": {
        "generate": ("fkdx.generate", "label crops of every image with a teacher"),
        "pack": ("fkdx.commands.pack", "pack soft labels of FKD, SRe2L, TinyViT and others"),
    },
    "look": {
        "info": ("fkdx.commands.info", "show what a label file holds"),
        "verify": ("fkdx.commands.verify", "check labels, images, and that they fit together"),
        "compare": ("fkdx.commands.compare", "compare two teachers' labels of the same crops"),
        "report": ("fkdx.commands.report", "write a page for a browser about labels or runs"),
        "serve": ("fkdx.commands.serve", "show the page of a label file from a local server"),
    },
    "change": {
        "slice": ("fkdx.commands.slice", "take a part: fewer crops, a smaller K, some classes"),
        "concat": ("fkdx.commands.concat", "join label files of different images"),
        "merge": ("fkdx.commands.merge", "average the labels of several teachers"),
        "calibrate": ("fkdx.commands.calibrate", "drop useless crops, correct weak ones (FerKD)"),
        "convert": ("fkdx.commands.convert", "store a label file in another encoding"),
        "export": ("fkdx.commands.export", "write labels in another project's format"),
    },
    "images": {
        "index": ("fkdx.commands.index", "note where every image lies, for a quick start"),
        "repack": ("fkdx.commands.repack", "copy images, byte for byte, into tar shards"),
    },
    "train": {
        "train": ("fkdx.train", "train a student from a label file"),
        "evaluate": ("fkdx.commands.evaluate", "measure a model's features: k-NN and a linear probe"),
    },
    "machine": {
        "demo": ("fkdx.commands.demo", "draw a data set and run every step on it"),
        "bench": ("fkdx.commands.bench", "measure how fast this machine loads batches"),
        "doctor": ("fkdx.commands.doctor", "show what was built and what this machine offers"),
        "completion": ("fkdx.cli.completion", "print the completion script of your shell"),
    },
}
VERBS = {verb: about for group in GROUPS.values() for verb, about in group.items()}

EXIT_STATUS = {
    0: "all went well, and what was checked is right",
    1: "an error, with its reason on stderr; or something that was checked is wrong",
    2: "the command line is wrong: an unknown verb or flag, or an argument that is missing",
    130: "stopped by Ctrl-C",
    141: "the reader of the output, such as `head`, has left",
    143: "a training run was stopped by SIGTERM and saved; the same command goes on from there",
}


def usage() -> str:
    """All verbs on one screen of 80 columns."""
    lines = [
        f"fkdx {__version__}: fast knowledge distillation from stored crops",
        "",
        "usage: fkdx VERB [...]",
        "",
    ]
    for purpose, verbs in GROUPS.items():
        for number, (verb, (_, text)) in enumerate(verbs.items()):
            head = bold(f"{purpose if number == 0 else '':<9}")
            lines.append(f"{head}{verb:<12}{text}")
    return "\n".join([*lines, "", "`fkdx VERB --help` explains a verb, `fkdx --version` shows the version."])


def bold(text: str) -> str:
    """On a terminal; https://no-color.org says how to do without."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not sys.stdout.isatty():
        return text
    return f"\033[1m{text}\033[0m"
