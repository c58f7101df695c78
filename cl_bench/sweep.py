"""`python -m cl_bench.sweep`: train a grid (with -m) or one run."""

import sys

from cl_bench.cli.sweep import main

if __name__ == "__main__":
    sys.exit(main())
