"""`python -m cl_bench.sweep`: the same as `cl-bench sweep`."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from cl_bench.cli import main as cl_bench


def main(argv: Sequence[str] | None = None) -> int:
    """Run `cl-bench sweep` with these arguments; returns the exit code."""
    return cl_bench.main(["sweep", *(sys.argv[1:] if argv is None else argv)])


if __name__ == "__main__":
    sys.exit(main())
