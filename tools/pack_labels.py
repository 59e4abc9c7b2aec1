#!/usr/bin/env python3
"""The same as `fkdx pack`."""

import sys

from fkdx.cli import run

if __name__ == "__main__":
    sys.exit(run("pack", sys.argv[1:]))
