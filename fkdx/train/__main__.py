"""`python -m fkdx.train` is `fkdx train`."""

import sys

from fkdx.train.loop import main

sys.exit(main())
