"""A report that follows a sweep while it trains, rewritten whenever the runs have progressed."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable

from analysis import report
from analysis.answer import Options
from analysis.readers.source import Source
from analysis.report import Report
from cl_bench.errors import UserError
from cl_bench.runs.status import AT_WORK

LEAST_S, DEFAULT_S = 2, 10


def check_interval(seconds: float) -> None:
    """Raise UserError for an invalid interval."""
    if not LEAST_S <= seconds <= 3600:
        raise UserError(f"--watch {seconds:g}: seconds between two updates, from {LEAST_S} to 3600")


def watch(
    read: Callable[[], Source],
    options: Options,
    every_s: float,
    say: Callable[[str], None],
    sleep: Callable[[float], None] = time.sleep,
) -> Report:
    """Write the report of `read()` every `every_s` seconds until no run is active; returns the last one.

    Nothing is written if nothing was recorded since the last report. The page reloads itself at the same interval; the
    last one does not. `say` gets a line per report.
    """
    seen: tuple[object, ...] = ()
    while True:
        source = read()
        states = source.runs.runs["state"]
        at_work = int(states.isin(AT_WORK).sum())
        took = 0.0
        now = (len(source.runs.train), len(source.runs.evals), *states)
        if not at_work:
            return report.write_source(source, options)
        if source.runs.evals.empty:
            say(f"{at_work} of {len(states)} runs at work, no evaluation yet")
        elif now != seen:
            started = time.monotonic()
            written = report.write_source(source, dataclasses.replace(options, refresh_s=every_s))
            done = int((~states.isin(AT_WORK)).sum())
            say(f"{done} of {len(states)} runs over, {at_work} at work: {written.path}")
            seen = now
            took = time.monotonic() - started
        # If a report takes longer than the interval, at most half of the time goes into reports.
        sleep(max(every_s, took))
