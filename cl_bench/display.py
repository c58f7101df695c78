"""What a launch shows in the terminal: the plan before, a line per running run during, the outcome after."""

from __future__ import annotations

import math
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cl_bench.identity import short_float
from cl_bench.pacing import Extent
from cl_bench.plan import Plan, Planned
from cl_bench.status import Status

console = Console(highlight=False, markup=False)
_MOST_ROWS = 40
_WIDE = 118
_VERY_WIDE = 150
_COLOURS = {"done": "green", "failed": "red", "diverged": "magenta", "running": "cyan", "interrupted": "yellow"}


def si(value: float) -> str:
    """1_234_000 -> '1.23M': three significant digits."""
    for size, suffix in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def clock(seconds: float) -> str:
    """75 -> '1:15', 3700 -> '1:01:40'."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    return f"{hours}:{m:02d}:{s:02d}" if hours else f"{m}:{s:02d}"


def duration(hours: float) -> str:
    """An estimate in words: '40 s', '3 min', '2.5 h', '12 days'."""
    if hours * 3600 < 90:
        return f"{max(1, round(hours * 3600))} s"
    if hours * 60 < 90:
        return f"{round(hours * 60)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def lengths(extent: Extent) -> str:
    """'8…256', or the one length."""
    used = [length for length, _ in extent.lengths]
    return str(used[0]) if len(used) == 1 else f"{min(used)}…{max(used)}"


def print_plan(plan: Plan) -> None:
    """Question, counts, cost and the table of runs."""
    info = plan.launch.sweep
    if info.question:
        console.print(Text(f"{info.name}: {info.question}", style="bold"))
    counts = {s: sum(r.state == s for r in plan.runs) for s in ("new", "done", "failed")}
    counts |= {s: n for s in ("diverged", "running", "interrupted") if (n := sum(r.state == s for r in plan.runs))}
    line = f"{len(plan.runs)} run{'s' * (len(plan.runs) != 1)}: " + ", ".join(f"{n} {s}" for s, n in counts.items())
    if plan.duplicates:
        line += f" ({plan.duplicates} duplicate{'s' * (plan.duplicates > 1)} dropped)"
    console.print(line)
    if plan.hours:
        at_a_time = "one at a time" if plan.launch.jobs == 1 else f"{plan.launch.jobs} at a time"
        console.print(f"about {duration(plan.hours)}, {at_a_time} ({plan.hours_basis})")
    for text in plan.texts:
        console.print(text)
    console.print(_table(plan))
    if len(plan.runs) > _MOST_ROWS:
        console.print(f"… and {len(plan.runs) - _MOST_ROWS} more, all in plan.csv")


def _table(plan: Plan) -> Table:
    """The grid as rows; numbers keep their width, names give way where the terminal is narrow."""
    wide = console.width >= _WIDE
    runs = plan.runs[:_MOST_ROWS]
    columns: list[tuple[str, bool, list[str]]] = [
        # (head, is a number, cells)
        ("#", True, [str(n) for n in range(1, len(runs) + 1)]),
        ("curriculum", False, [_label(r, wide) for r in runs]),
        ("batch", True, [str(r.config.global_batch_size) for r in runs]),
        ("lr", True, [short_float(r.config.optim.lr) for r in runs]),
    ]
    if len({r.config.seed for r in plan.runs}) > 1:
        columns.append(("seed", True, [str(r.config.seed) for r in runs]))
    if wide:
        columns.append(("params", True, [si(r.parameters) for r in runs]))
    columns += [
        ("steps", True, [f"{r.extent.steps:,}" for r in runs]),
        ("tokens", True, [si(r.extent.tokens) for r in runs]),
        ("lengths", True, [lengths(r.extent) for r in runs]),
        ("state", True, [r.state for r in runs]),
    ]
    if console.width >= _VERY_WIDE:
        columns.append(("run", False, [r.run_id for r in runs]))
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head, number, cells in columns:
        left = not number or head in ("state", "lengths")
        least = max(len(c) for c in [head, *cells])
        table.add_column(
            head, justify="left" if left else "right", no_wrap=number, min_width=least if number else min(least, 24)
        )
    for row in zip(*(cells for _, _, cells in columns), strict=True):
        table.add_row(*(Text(cell, style=_COLOURS.get(cell, "")) for cell in row))
    return table


def _label(run: Planned, wide: bool) -> str:
    shape = run.shape if wide and run.role == "curriculum" else ""
    return " ".join(filter(None, [run.curriculum, shape, run.variant]))


def progress_line(number: int, total: int, run: Planned, state: Status, width: int) -> Text:
    """One line on a run in training, cut to the terminal's width."""
    parts = [f"{number}/{total} {run.run_id}"]
    if state.state != "RUNNING" or not state.steps or not state.step:
        parts.append("starting")
    else:
        wide = width >= _WIDE
        rate = state.tokens_per_second or 0.0
        left = (state.token_budget - state.consumed_tokens) / rate if rate else math.nan
        parts += [f"step {state.step}/{state.steps}", f"seqlen {state.seqlen}"]
        if wide:
            lr = float(f"{state.lr or 0:.2g}")
            parts += [f"{si(state.consumed_tokens)} tokens", f"lr {short_float(lr)}"]
        parts += [f"loss {state.loss:.2f}"] if state.loss is not None else ["loss nan"]
        if wide and state.val_ppl is not None:
            parts += [f"ppl {state.val_ppl:.3g}"]
        if wide:
            parts += [f"{si(rate)} tok/s"]
        parts += [f"{clock(left)} left"] if math.isfinite(left) else []
    text = Text("  ".join(parts), no_wrap=True)
    if len(text) > width - 1:  # keep the numbers, shorten the name
        excess = len(text) - (width - 1)
        name = run.run_id[: max(8, len(run.run_id) - excess - 1)] + "…"
        text = Text("  ".join([f"{number}/{total} {name}", *parts[1:]]), no_wrap=True, overflow="ellipsis")
    return text


def result_line(number: int, total: int, run: Planned, state: Status) -> Text:
    """One line on a run that ended."""
    text = Text(f"{number}/{total} {run.run_id}  ")
    text.append(state.state.lower(), style=_COLOURS.get(state.state.lower(), ""))
    if state.val_ppl is not None:
        text.append(f"  ppl {state.val_ppl:.3g}")
    if state.train_seconds:
        text.append(f"  {si(state.consumed_tokens)} tokens in {clock(state.train_seconds)}")
    if state.state in ("DIVERGED", "PREEMPTED") and state.error:
        text.append(f"  {state.error.splitlines()[-1]}", style="dim")
    return text


def print_verdict(verdict: dict[str, Any]) -> None:
    """The sentence and its caveats."""
    console.print(Text(verdict["sentence"], style="bold"))
    for caveat in verdict["caveats"]:
        console.print(Text(caveat))


def print_status(runs: list[tuple[str, Status]]) -> None:
    """A table of runs as their status files have it."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("run", "state", "step", "tokens", "seqlen", "ppl", "tok/s", "left"):
        table.add_column(head, justify="left" if head in ("run", "state") else "right", no_wrap=head != "run")
    for name, s in runs:
        rate = s.tokens_per_second or 0
        left = clock((s.token_budget - s.consumed_tokens) / rate) if s.state == "RUNNING" and rate else ""
        table.add_row(
            name,
            Text(s.state, style=_COLOURS.get(s.state.lower(), "")),
            f"{s.step:,}/{s.steps:,}" if s.steps else "",
            si(s.consumed_tokens) if s.consumed_tokens else "",
            str(s.seqlen or ""),
            f"{s.val_ppl:.3g}" if s.val_ppl is not None else "",
            si(rate) if rate else "",
            left,
        )
    console.print(table)
    for name, s in runs:
        if s.state == "FAILED":
            console.print(
                f"failed  {name}: {s.error.strip().splitlines()[-1] if s.error.strip() else ''}", soft_wrap=True
            )
