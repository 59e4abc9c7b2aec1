#!/usr/bin/env python3
"""Pack existing soft labels into a label file: the same as `fkdx pack`."""

import sys

from fkdx.cli import run

if __name__ == "__main__":
    sys.exit(run("pack", sys.argv[1:]))
