"""Reader of W&B projects through the service.

wandb takes a second to import: it is imported where the service is queried.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from analysis.readers import naming, tidy, wandb_runs
from analysis.readers.reader import Option, Reader
from analysis.readers.wandb_runs import WandbRun
from analysis.schema import NoRunsError, Runs
from cl_bench.errors import UserError

_T = TypeVar("_T")

_NETWORK = "check the network, or WANDB_BASE_URL for a server of your own"
_CONNECT_S = 5
"""Longest wait for a connection; a server that neither accepts nor refuses one by then is queried nevertheless."""

_ANSWER_S = 20
"""Longest wait for a list of runs. W&B's own client retries for minutes."""
_HISTORY_S = 120
"""Longest wait for one window of one run's history."""
_WINDOW = 100_000
"""Steps per request: the client pages through all steps, logged or not."""


def _parse_filter(text: str) -> dict[str, Any]:
    example = 'write it as in --filter \'{"tags": "tiny"}\''
    try:
        filters = json.loads(text)
    except ValueError as error:
        raise UserError(f"--filter {text}: not JSON ({error}); {example}") from None
    if not isinstance(filters, dict):
        raise UserError(f"--filter {text}: not an object; {example}")
    return filters


def load_wandb(
    where: str,
    filters: Mapping[str, Any] | None = None,
    names: Mapping[str, str] | None = None,
    baseline: str = tidy.BASELINE,
) -> Runs:
    """Runs of the project `where` ("entity/project") that match `filters` (in the syntax of W&B's Api).

    `names` maps our metric and config names to the project's; `baseline` is the curriculum of the runs that others are
    compared with. Raises NoRunsError if no run matches, UserError if the
    service cannot be reached, does not have the project or rejects the key, and if the runs lack a required metric or
    config key.
    """
    entity, _, project = where.partition("/")
    if not (entity and project) or "/" in project:
        raise UserError(f"--wandb {where}: give ENTITY/PROJECT, the two parts of the project's address")
    with _one_line(where):
        runs = _list(where, filters or {})
    if not runs:
        raise NoRunsError(f"W&B {where}: no runs" + (f" that match {dict(filters)}" if filters else " yet"))
    notes: list[str] = []
    return wandb_runs.combine(
        project, Path(f"W&B {where}"), _read_all(where, runs, notes), names or {}, notes, baseline
    )


def _list(where: str, filters: Mapping[str, Any]) -> list[Any]:
    import wandb

    session = wandb.setup(wandb.Settings(silent=True, login_timeout=_ANSWER_S))
    _check_connection(where, session.settings.base_url)
    api = wandb.Api(timeout=_ANSWER_S)
    return list(api.runs(where, filters=dict(filters), per_page=200, lazy=False))


def _check_connection(where: str, base_url: str) -> None:
    """Raise UserError at once if no server listens: the client itself would retry for minutes first."""
    address = urllib.parse.urlsplit(base_url)
    if urllib.request.getproxies() or not address.hostname:
        return
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        socket.create_connection((address.hostname, port), timeout=_CONNECT_S).close()
    except TimeoutError:
        return
    except OSError as error:
        raise UserError(f"W&B {where}: no connection to {base_url} ({error.strerror or error}); {_NETWORK}") from None


def _read_all(where: str, runs: list[Any], notes: list[str]) -> Iterator[WandbRun]:
    for run in runs:
        with _one_line(f"{where}, run '{run.id}'"):
            rows = _history(run)
        if (logged := run.historyLineCount or 0) > len(rows):
            notes.append(f"{run.id}: W&B returned {len(rows):,} of {logged:,} rows.")
        yield WandbRun(
            run.id,
            run.name or "",
            run.group or "",
            run.job_type or "",
            dict(run.config),
            dict(run.summary),
            tidy.state(run.state),
            rows,
        )


def _history(run: Any) -> list[dict[str, Any]]:
    """Every row, in order of steps.

    A window that holds exported and live rows may return a row twice: rows are told apart by W&B's step.
    """
    rows: dict[int, dict[str, Any]] = {}
    last = run.lastHistoryStep
    for low in range(0, last + 1, _WINDOW):

        def window(low: int = low) -> dict[int, dict[str, Any]]:
            scan = run.scan_history(min_step=low, max_step=low + _WINDOW, page_size=_WINDOW, use_cache=False)
            return {int(row["_step"]): _flat(row) for row in scan}

        rows |= _within(_HISTORY_S, window)
    return list(rows.values())


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row without the metrics that were not logged at its step."""
    return {key: value for key, value in row.items() if value is not None}


def _within(seconds: int, call: Callable[[], _T]) -> _T:
    """`call()`, or TimeoutError: the client has no limit of its own. A late call is abandoned in its thread."""
    done: list[_T] = []
    failed: list[BaseException] = []

    def work() -> None:
        try:
            done.append(call())
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    if failed:
        raise failed[0]
    if not done:
        raise TimeoutError(seconds)
    return done[0]


@contextlib.contextmanager
def _one_line(where: str) -> Iterator[None]:
    """Turn any error of wandb, which raises many kinds, into one line with a remedy."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"W&B {where}: {_explained(error)}") from None


def _explained(error: Exception) -> str:
    text = " ".join(str(error).split())
    kind = type(error).__name__
    if isinstance(error, ValueError) and "Could not find project" in text:
        return "no such project, or the key may not see it; check entity and project"
    if kind == "UsageError" or "No authentication configured" in text or "api_key not configured" in text:
        return "no key; set WANDB_API_KEY or run `wandb login`"
    if "did not respond" in text or isinstance(error, TimeoutError):
        waited = next((a for a in error.args if isinstance(error, TimeoutError) and isinstance(a, int)), _ANSWER_S)
        return f"no answer within {waited} s; {_NETWORK}"
    if kind == "AuthenticationError" and not re.search(r"returned error 5\d\d", text):
        return f"the key is not accepted ({text[:160]}); run `wandb login --relogin`"
    return f"{kind}: {text[:200]}"


READER = Reader(
    Option("wandb", "ENTITY/PROJECT", "instead: a W&B project, online"),
    load_wandb,
    {
        "names": naming.MAP,
        "baseline": naming.BASELINE,
        "filters": Option(
            "filter", "JSON", 'filter of W&B runs, in the syntax of its Api: \'{"tags": "a"}\'', parse=_parse_filter
        ),
    },
    lambda location: Path(f"{location.rpartition('/')[2]}_report"),
)
