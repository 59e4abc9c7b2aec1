"""`python -m fkdx.generate` is `fkdx generate`."""

import sys

from fkdx.generate.program import main

sys.exit(main())
