"""`python -m fkdx.train` is `fkdx train`."""

import sys

from fkdx.__main__ import main

sys.exit(main(["train", *sys.argv[1:]]))
