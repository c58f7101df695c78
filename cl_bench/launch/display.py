"""Terminal output of a launch: the plan, a line per run in training, the outcome."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, get_args

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from cl_bench.errors import plural
from cl_bench.launch.backend import Observed
from cl_bench.launch.grid import Plan, Planned, State
from cl_bench.runs.identity import short_float
from cl_bench.runs.status import Status
from cl_bench.schedules import Extent

console = Console(highlight=False, markup=False)
_MOST_ROWS = 40
_WIDE = 118
_VERY_WIDE = 150
_COLOURS = {
    "done": "green",
    "failed": "red",
    "diverged": "magenta",
    "running": "cyan",
    "queued": "cyan",
    "interrupted": "yellow",
    "preempted": "yellow",
    "lost": "red",
}


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
    """An estimate as text: '40 s', '3 min', '2.5 h', '12 days'."""
    if hours * 3600 < 90:
        return f"{max(1, round(hours * 3600))} s"
    if hours * 60 < 90:
        return f"{round(hours * 60)} min"
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.1f} days"


def lengths(extent: Extent) -> str:
    """'8…256', or the only length."""
    used = [length for length, _ in extent.lengths]
    return str(used[0]) if len(used) == 1 else f"{min(used)}…{max(used)}"


def print_plan(plan: Plan, *, queued: bool = False) -> None:
    """Print question, counts, cost and the table of runs; `queued`: a cluster schedules them."""
    info = plan.launch.sweep
    if info.question:
        console.print(Text(f"{info.name}: {info.question}", style="bold"))
    counts = Counter({"new": 0, "done": 0, "failed": 0})
    counts.update(sorted((r.state for r in plan.runs), key=get_args(State).index))
    line = f"{plural(len(plan.runs), 'run')}: " + ", ".join(f"{n} {state}" for state, n in counts.items())
    if plan.duplicates:
        line += f" ({plural(plan.duplicates, 'duplicate')} dropped)"
    console.print(line)
    if plan.hours and queued:
        total = sum(r.hours for r in plan.to_train)
        console.print(f"about {duration(total)} of training in total, plus the time in the queue ({plan.hours_basis})")
    elif plan.hours:
        at_a_time = "one at a time" if plan.launch.jobs == 1 else f"{plan.launch.jobs} at a time"
        console.print(f"about {duration(plan.hours)}, {at_a_time} ({plan.hours_basis})")
    if plan.to_train:
        console.print(_memory_line(max(plan.to_train, key=lambda r: r.memory.total)))
    for text in plan.texts:
        console.print(text)
    console.print(_table(plan))
    short = sum(max(n for n, _ in r.extent.lengths) < r.config.max_difficulty for r in plan.runs)
    if short:
        are = "runs never reach" if short > 1 else "run never reaches"
        console.print(f"{short} {are} the full length: the curriculum is longer than the token budget allows")
    if len(plan.runs) > _MOST_ROWS:
        console.print(f"… and {len(plan.runs) - _MOST_ROWS} more, all in plan.csv")


def _memory_line(largest: Planned) -> str:
    """Memory of the run that needs the most."""
    need = largest.memory
    rank = "GPU" if largest.config.resources.gpus_per_node else "rank"
    parts = ", ".join(f"{name} {_bytes(size)}" for name, size in dataclasses.asdict(need).items() if size)
    return f"at most about {_bytes(need.total)} per {rank} ({parts})"


def _bytes(size: float) -> str:
    return f"{size / 1e9:.3g} GB" if size >= 1e9 else f"{max(size, 1e6) / 1e6:.0f} MB"


def _table(plan: Plan) -> Table:
    """One row per run; names, not numbers, are folded on a narrow terminal."""
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
    shape = run.shape if wide and run.config.role == "curriculum" else ""
    if run.config.cell:  # the sweep's own name describes it
        return ": ".join(filter(None, [run.config.cell, shape]))
    return " ".join(filter(None, [run.curriculum, shape, run.variant]))


def progress_line(number: int, total: int, run: Planned, state: Status, width: int) -> Text:
    """Progress of a run, cut to the terminal's width."""
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
    """Outcome of a run that ended."""
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
    """Print the headline, one line per sentence, and its caveats."""
    for sentence in verdict["headline"]:
        console.print(Text(sentence, style="bold"))
    for caveat in verdict["caveats"]:
        console.print(Text(caveat))


def seconds_left(latest: Status) -> float | None:
    """Seconds until the token budget is consumed, at the rate of the last step; None unless in training."""
    if latest.state != "RUNNING" or not latest.tokens_per_second:
        return None
    return max(0.0, (latest.token_budget - latest.consumed_tokens) / latest.tokens_per_second)


_ORDER = ("RUNNING", "PENDING", "FAILED", "LOST", "PREEMPTED", "DIVERGED", "DONE")


def status_table(observed: Sequence[Observed], *, height: int | None = None) -> RenderableType:
    """Counts, one row per run, and why runs wait or ended; finished runs are dropped to fit `height`."""
    counts = {state: sum(seen.status.state == state for seen in observed) for state in _ORDER}
    line = ", ".join(f"{n} {state.lower()}" for state, n in counts.items() if n)
    head = Text(f"{plural(len(observed), 'run')}: {line}")
    notes = _notes(observed)
    rows = sorted(observed, key=lambda seen: _ORDER.index(seen.status.state)) if height else list(observed)
    if height is not None:
        rows = rows[: max(1, height - len(notes) - 4)]
    parts: list[RenderableType] = [head, _status_rows(rows)]
    if len(rows) < len(observed):
        parts.append(Text(f"… and {len(observed) - len(rows)} more"))
    return Group(*parts, *notes)


def _status_rows(rows: Sequence[Observed]) -> Table:
    """One row per run; narrow terminals lose the least important columns."""
    statuses = [seen.status for seen in rows]
    left = [seconds_left(s) for s in statuses]
    columns: list[tuple[str, list[str]]] = [
        ("state", [s.state for s in statuses]),
        ("step", [f"{s.step:,}/{s.steps:,}" if s.steps else "" for s in statuses]),
        ("tokens", [si(s.consumed_tokens) if s.consumed_tokens else "" for s in statuses]),
        ("seqlen", [str(s.seqlen or "") for s in statuses]),
        ("ppl", [f"{s.val_ppl:.3g}" if s.val_ppl is not None else "" for s in statuses]),
        ("tok/s", [si(s.tokens_per_second) if s.tokens_per_second else "" for s in statuses]),
        ("left", [clock(seconds) if seconds is not None else "" for seconds in left]),
        ("try", [str(s.attempt + 1) if s.steps else "" for s in statuses]),
        ("job", [seen.job_id or seen.status.job for seen in rows]),
        ("node", [s.node for s in statuses]),
    ]
    columns = [(name, cells) for name, cells in columns if any(cells)]
    least_important_first = ("node", "try", "tok/s", "seqlen", "job", "tokens")
    width = {name: max(len(c) for c in [name, *cells]) for name, cells in columns}
    for name in least_important_first:
        if sum(width.values()) + 2 * len(width) + 24 <= console.width:
            break
        width.pop(name, None)
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("run", min_width=12, overflow="fold")
    shown = [(name, cells) for name, cells in columns if name in width]
    for name, _ in shown:
        table.add_column(name, justify="left" if name in ("state", "job", "node") else "right", no_wrap=True)
    for number, seen in enumerate(rows):
        cells = [Text(cells[number], style=_COLOURS.get(cells[number].lower(), "")) for _, cells in shown]
        table.add_row(seen.run.run_id, *cells)
    return table


def _notes(observed: Sequence[Observed]) -> list[Text]:
    """Reasons why runs wait, failed or are lost, each once, with the first run concerned."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for seen in observed:
        state: str = seen.status.state
        reason = seen.why
        if state == "FAILED" or (state in ("PREEMPTED", "DIVERGED") and not reason):
            reason = seen.status.error.strip().splitlines()[-1] if seen.status.error.strip() else ""
        if seen.unsure:
            state, reason = "unsure", f"{seen.queue} does not answer ({seen.unsure}); this is the last recorded state"
        if reason and state != "DONE":
            reasons.setdefault((state.lower(), reason), []).append(seen.run.run_id)
    return [
        Text(f"{state}: {names[0]}{f' and {len(names) - 1} more' if len(names) > 1 else ''}: {reason}")
        for (state, reason), names in reasons.items()
    ]
