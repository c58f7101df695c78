"""`python -m analysis`: the analysis commands of `cl-bench`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from analysis.commands import analysis
from cl_bench.commands import run


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    return run(analysis, sys.argv[1:] if argv is None else argv, "python -m analysis")


if __name__ == "__main__":
    sys.exit(main())
