"""`cl-bench status`, `logs`, `cancel` and `retry`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import click

from cl_bench.cli import runs


def _pass_through(name: str, function: Callable[[Sequence[str]], int]) -> click.Command:
    @click.command(name, context_settings={"ignore_unknown_options": True}, add_help_option=False)
    @click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
    def command(arguments: tuple[str, ...]) -> int:
        return function(arguments)

    return command


status = _pass_through("status", runs.status)
logs = _pass_through("logs", runs.logs)
cancel = _pass_through("cancel", runs.cancel)
retry = _pass_through("retry", runs.retry)
