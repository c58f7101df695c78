"""Errors that users can fix, and the exit code and message of every error that ends a command."""

from __future__ import annotations

import contextlib
import difflib
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

EXIT_RUNS_FAILED = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130

_CONTROLS = dict.fromkeys((*range(0x20), *range(0x7F, 0xA0)), "�") | dict.fromkeys(map(ord, "\t\n\v\f\r"), " ")


class UserError(Exception):
    """A request that cannot be met; the message names the value, the reason and the remedy."""


class RunsFailed(Exception):
    """Some runs failed or were stopped; all others have been trained."""


def did_you_mean(name: str, valid: Iterable[str], limit: int = 12) -> str:
    """A hint for an unknown `name`: the nearest valid one first, then the valid names (at most `limit` of them)."""
    names = sorted(set(valid))
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if not near:
        # 'lr' for 'optim.lr': the last part of a dotted name may be all that the user remembered.
        near = [n for n in names if n.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]][:1]
    hint = f"did you mean '{near[0]}'? " if near else ""
    shown = ", ".join(names[:limit]) + (f", … ({len(names)} in all)" if len(names) > limit else "")
    return f"{hint}valid: {shown}" if names else hint.strip()


def plural(count: int, noun: str) -> str:
    """'1 run', '3 runs'."""
    return f"{count} {noun}" + "s" * (count != 1)


def printable(text: str) -> str:
    """Text safe for a terminal: white space becomes a space, other control characters '�'."""
    return text.translate(_CONTROLS)


def exit_code_of(command: Callable[[], int]) -> int:
    """Run `command`; returns its exit code, or that of the error that ended it, whose message it prints.

    Errors outside the table below are bugs and keep their traceback.
    """
    try:
        code = command()
        sys.stdout.flush()  # a closed pipe raises here rather than while the interpreter exits
    except tuple(_EXITS) as error:
        code, report = next(_EXITS[kind] for kind in type(error).__mro__ if kind in _EXITS)
        report(error)
    return code


def _print_error(error: BaseException) -> None:
    # Not splitlines(), which also splits at some control characters.
    print("\n".join(f"error: {printable(line)}" for line in str(error).split("\n")), file=sys.stderr)


def _print_file_error(error: OSError) -> None:
    print(f"error: {printable(str(error.filename or 'a file'))}: {error.strerror or error}", file=sys.stderr)


def _print_message(error: BaseException) -> None:
    if str(error):
        print(printable(str(error)))


def _discard_output(_: BaseException) -> None:
    """Let the interpreter's final flush succeed after `cl-bench logs RUN | head`."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


_EXITS: dict[type[BaseException], tuple[int, Callable[[Any], None]]] = {
    UserError: (EXIT_USER_ERROR, _print_error),
    OSError: (EXIT_USER_ERROR, _print_file_error),
    BrokenPipeError: (0, _discard_output),
    RunsFailed: (EXIT_RUNS_FAILED, _print_message),
    KeyboardInterrupt: (EXIT_INTERRUPTED, _print_message),
}
"""Exception -> exit code and function that prints it; an exception's most specific class applies."""
