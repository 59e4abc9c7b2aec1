"""`python -m fkdx.generate` is `fkdx generate`."""

import sys

from fkdx.__main__ import main

sys.exit(main(["generate", *sys.argv[1:]]))
