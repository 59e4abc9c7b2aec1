"""`python -m fkdx` is the `fkdx` command."""

import sys

from fkdx.cli import main

sys.exit(main())
