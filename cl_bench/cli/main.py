"""The `cl-bench` command: one name for the sweep, the analysis and the state of runs."""

from __future__ import annotations

import sys

from cl_bench.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError, did_you_mean

_USAGE = """cl-bench COMMAND …

commands:
  sweep …               train a grid or a run, as `python -m cl_bench.sweep …`
  tune …                a curriculum's start length and T, by short probes
  status [SWEEP|RUN]    state and progress; --watch follows, --json for programs
  logs RUN              what a run printed; -f follows
  cancel SWEEP|RUN      stop runs; those in training save first
  retry [SWEEP|RUN]     go on with what failed, was lost or stopped
  eval RUN              zero-shot: --task wikitext103 or lambada, --data FILE
  export RUN DIR        the trained model as a Hugging Face folder
  prepare TEXTS         encode texts larger than memory into tokens on disk
  report FOLDER         write a sweep's page, tables and verdict
  figures FOLDER        for print: PDF or SVG, tables in LaTeX and Markdown
  paper FOLDER          a sweep beside the published cells and claims
  compare BASE CL       the saving between two curves in CSV files

`cl-bench COMMAND --help` tells more."""
_COMMANDS = (
    "sweep",
    "tune",
    "status",
    "logs",
    "cancel",
    "retry",
    "prepare",
    "eval",
    "export",
    "report",
    "figures",
    "paper",
    "compare",
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line; returns the exit code."""
    argv = sys.argv[1:] if argv is None else argv
    command, rest = (argv[0], argv[1:]) if argv else ("--help", [])
    if command in ("-h", "--help"):
        print(_USAGE)
        return 0
    if command not in _COMMANDS:
        print(f"error: {command}: no such command; {did_you_mean(command, _COMMANDS)}", file=sys.stderr)
        return EXIT_USER_ERROR
    if command in ("sweep", "tune"):
        from cl_bench.cli import sweep

        return sweep.main(rest) if command == "sweep" else sweep.tune(rest)
    if command in ("report", "figures", "paper", "compare"):
        from analysis.__main__ import main as analysis

        return analysis(argv, prog="cl-bench")
    return _on_runs(command, rest)


def _on_runs(command: str, argv: list[str]) -> int:
    from cl_bench.cli import runs
    from cl_bench.launch.prepare import RunsFailed

    try:
        if command in ("eval", "export"):
            from cl_bench.cli import evals  # needs torch, which takes a second

            return evals.evaluate(argv) if command == "eval" else evals.export(argv)
        if command == "prepare":
            from cl_bench.cli import prepare

            return prepare.prepare(argv)
        return int(getattr(runs, command)(argv))
    except UserError as error:
        for line in str(error).splitlines():
            print(f"error: {line}", file=sys.stderr)
        return EXIT_USER_ERROR
    except RunsFailed as error:
        print(error)
        return 1
    except BrokenPipeError:  # `cl-bench logs RUN | head`
        sys.stderr.close()
        return 0
    except OSError as error:
        print(f"error: {error.filename or 'a file'}: {error.strerror or error}", file=sys.stderr)
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
