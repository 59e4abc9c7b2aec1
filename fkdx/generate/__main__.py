"""`python -m fkdx.generate` is `fkdx generate`."""

import sys

from fkdx.cli import run

sys.exit(run("generate", sys.argv[1:]))
