#!/usr/bin/env python3
"""Run a teacher over stored crops of every image and write a label file: the same as `fkdx generate`."""

import sys

from fkdx.cli import run

if __name__ == "__main__":
    sys.exit(run("generate", sys.argv[1:]))
