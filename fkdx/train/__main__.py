"""`python -m fkdx.train` is `fkdx train`."""

import sys

from fkdx.cli import run

sys.exit(run("train", sys.argv[1:]))
