"""`python -m query.cli`: the command line without its console script."""

import sys

from query.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
