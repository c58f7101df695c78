"""The `cl-bench` command: one name for the sweep, the analysis and the state of runs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cl_bench.errors import EXIT_USER_ERROR, UserError

_USAGE = """cl-bench COMMAND …

commands:
  sweep …             train a grid or a run; the same as `python -m cl_bench.sweep …`
  report FOLDER       write a sweep's page, tables and verdict
  compare BASE CL     the saving between two curves in CSV files
  status [FOLDER]     state and progress of a sweep's runs, or of all

`cl-bench COMMAND --help` tells more."""


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help"):
        print(_USAGE)
        return 0
    if command == "sweep":
        from cl_bench import sweep

        return sweep.main(rest)
    if command in ("report", "compare"):
        from analysis.__main__ import main as analysis

        return analysis(argv)
    if command == "status":
        return _status(rest)
    from cl_bench.errors import did_you_mean

    hint = did_you_mean(command, ("sweep", "report", "compare", "status"))
    print(f"error: {command}: no such command; {hint}", file=sys.stderr)
    return EXIT_USER_ERROR


def _status(argv: list[str]) -> int:
    from cl_bench import display, status
    from cl_bench.paths import RunDir, SweepDir, all_runs, manifest_runs

    parser = argparse.ArgumentParser(prog="cl-bench status", description="State and progress of runs.")
    parser.add_argument("folder", type=Path, nargs="?", default=Path("outputs"), help="outputs/sweeps/NAME or outputs")
    folder = parser.parse_args(argv).folder
    sweep = SweepDir.at(folder)
    try:
        is_sweep = sweep.manifest.exists()
        found = [RunDir(sweep.outputs, r) for r in manifest_runs(sweep)] if is_sweep else all_runs(folder)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    if not found:
        print(f"error: {folder}: holds no runs; give outputs/sweeps/NAME or outputs", file=sys.stderr)
        return EXIT_USER_ERROR
    display.print_status([(run.run_id, status.current(run)) for run in found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
