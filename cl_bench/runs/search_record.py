"""The record of a search for a curriculum (`outputs/tune/<name>/search.json`): its format, reader and writer."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from cl_bench.errors import UserError
from cl_bench.runs.paths import TuneDir, write_atomic

Purpose = Literal["start", "T", "check"]


@dataclasses.dataclass(frozen=True)
class Probe:
    """One probe: a short run, its cost, and the verdict on its validation perplexity."""

    purpose: Purpose
    """The part of the search that it serves."""
    start: int
    """Start length in tokens."""
    duration: int
    """T in steps."""
    run_id: str
    beginning_tokens: int
    """End of the very beginning, in consumed tokens."""
    tokens: int
    train_seconds: float
    """Seconds of training steps."""
    eval_seconds: float
    flops: float
    steady: bool
    """Whether the perplexity was steady throughout."""
    begins_steady: bool
    """Whether it was steady at the very beginning."""
    worst_ratio: float
    """Largest perplexity over the best before it; inf if it was not finite."""
    worst_tokens: int
    """Consumed tokens at that evaluation."""
    diverged: bool
    words: str
    """The verdict as text."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of all probes, also as shares of one whole run at full length."""

    probes: int
    tokens: int
    train_seconds: float
    eval_seconds: float
    share_of_tokens: float
    share_of_flops: float


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Result of a finished search."""

    start: int
    duration: int | None
    """The longest steady T; None if no probe was steady."""
    start_is_steady: bool
    """False if every start fluctuated at the beginning, and the search continued with the longest."""
    fluctuates_at: int | None
    """The shortest T above `duration` that fluctuates; None if there is none."""
    contradictions: tuple[int, ...] = ()
    """Every T that fluctuates although a longer one is steady, against the search's assumption."""
    words: tuple[str, ...] = ()
    """The outcome in a sentence, then its caveats."""


@dataclasses.dataclass(frozen=True)
class SearchRecord:
    """Everything that search.json holds."""

    name: str
    settings: Mapping[str, Any]
    """All settings that determine the search, flat, as JSON values."""
    run_tokens: int
    """Token budget of one whole run at full length."""
    run_flops: float
    probes: tuple[Probe, ...] = ()
    outcome: Outcome | None = None
    """None until the search has ended."""
    cost: Cost = Cost(0, 0, 0.0, 0.0, 0.0, 0.0)

    def cost_of(self, probes: tuple[Probe, ...]) -> Cost:
        """Cost of some probes of this search."""
        tokens, flops = sum(p.tokens for p in probes), sum(p.flops for p in probes)
        return Cost(
            probes=len(probes),
            tokens=tokens,
            train_seconds=sum(p.train_seconds for p in probes),
            eval_seconds=sum(p.eval_seconds for p in probes),
            share_of_tokens=tokens / self.run_tokens,
            share_of_flops=flops / self.run_flops,
        )


def read(folder: TuneDir) -> SearchRecord:
    """Read a search's record. Raises UserError for a damaged one, OSError for a missing one."""
    text = folder.search.read_text(encoding="utf-8")
    try:
        plain = json.loads(text)
        outcome = plain["outcome"]
        return SearchRecord(
            name=str(plain["name"]),
            settings=dict(plain["settings"]),
            run_tokens=plain["run"]["tokens"],
            run_flops=plain["run"]["flops"],
            probes=tuple(_probe(probe) for probe in plain["probes"]),
            outcome=_outcome(outcome) if outcome else None,
            cost=Cost(**plain["cost"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder.search}: not the record of a search ({type(error).__name__}: {error}); delete it and tune again: "
            "finished probes are reused"
        ) from None


def write(folder: TuneDir, record: SearchRecord) -> None:
    """Write a search's record."""
    probes = [dataclasses.asdict(probe) for probe in record.probes]
    for probe in probes:
        if math.isinf(probe["worst_ratio"]):
            probe["worst_ratio"] = None  # JSON has no infinity
    plain = {
        "name": record.name,
        "settings": record.settings,
        "run": {"tokens": record.run_tokens, "flops": record.run_flops},
        "probes": probes,
        "cost": dataclasses.asdict(record.cost),
        "outcome": dataclasses.asdict(record.outcome) if record.outcome else None,
    }
    write_atomic(folder.search, json.dumps(plain, indent=1, allow_nan=False))


def _outcome(plain: Mapping[str, Any]) -> Outcome:
    lists = {key: tuple(plain[key]) for key in ("contradictions", "words")}
    return Outcome(**{**plain, **lists})


def _probe(plain: Mapping[str, Any]) -> Probe:
    ratio = plain["worst_ratio"]
    return Probe(**{**plain, "worst_ratio": math.inf if ratio is None else ratio})
