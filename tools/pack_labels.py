#!/usr/bin/env python3
"""The same as `fkdx pack`."""

import sys

from fkdx.pack import main

if __name__ == "__main__":
    sys.exit(main())
