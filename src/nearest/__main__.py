"""`python -m nearest` is the command line."""

import sys

from nearest.cli import main

if __name__ == "__main__":
    sys.exit(main())
