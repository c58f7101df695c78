"""`cl-bench tune`: search for a curriculum's start length and T with probes, by the recipe of DeepSpeed's tutorial.

A probe is an ordinary run, launched like any other, kept in outputs/runs and identified by its settings. An interrupted
search is therefore started again: finished probes are read, and an unfinished one resumes from its save.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from cl_bench.config import LaunchConfig, RunConfig
from cl_bench.config.tune import TuneConfig
from cl_bench.errors import RunsFailed, plural
from cl_bench.launch import display, estimate, plan, prepare
from cl_bench.launch.grid import Planned
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir, TuneDir
from cl_bench.runs.search_record import Cost, Outcome, Probe, Purpose
from cl_bench.tune import probe as tune_probe
from cl_bench.tune import record
from cl_bench.tune import search as tune_search
from cl_bench.tune.record import Search


class Train(Protocol):
    """Signature of prepare.launch on a backend."""

    def __call__(
        self,
        configs: Sequence[RunConfig],
        settings: LaunchConfig,
        *,
        is_sweep: bool,
        corpora: plan.Corpora,
        terse: bool,
    ) -> list[float | None]:
        """Train runs; returns their final losses."""


WritePage = Callable[[TuneDir], Path]
"""Writes the page of a search from its record; returns its path."""


def tune(run: RunConfig, settings: LaunchConfig, tuning: TuneConfig, train: Train, write_page: WritePage) -> bool:
    """Search, record and print the outcome; returns whether a curriculum was found. A dry run only prints the plan.

    Raises UserError before anything trains, RunsFailed if a probe does not finish.
    """
    space = tune_probe.space(run, tuning)
    plan.check_writable(settings.outputs)
    settings = dataclasses.replace(settings, wait=True)
    prober = _Prober(run, settings, tuning, space, train, write_page)
    prober.print_plan()
    if settings.dry_run:
        return True
    outcome = tune_search.search(space.starts, space.durations, prober, tuning.checks)
    outcome = dataclasses.replace(outcome, words=tuple(describe(outcome, space)))
    prober.search.write(outcome)
    folder, best = prober.search.folder, None
    if outcome.duration is not None:
        best = tune_probe.candidate(run, tuning, outcome.start, outcome.duration)
        record.write_presets(folder, best, outcome.words)
    else:
        folder.preset.unlink(missing_ok=True)
        folder.sweep.unlink(missing_ok=True)
    _print_outcome(prober.search, outcome, best)
    _print(f"page    {write_page(folder)}")
    return outcome.duration is not None


def _print(text: str) -> None:
    display.console.print(text, soft_wrap=True)


class _Prober:
    """Judges pairs of start and T by training a probe or reading a finished one."""

    def __init__(
        self,
        run: RunConfig,
        settings: LaunchConfig,
        tuning: TuneConfig,
        space: tune_probe.Space,
        train: Train,
        write_page: WritePage,
    ) -> None:
        self.run, self.settings, self.tuning, self.space = run, settings, tuning, space
        self.train, self.write_page = train, write_page
        self.corpora = plan.Corpora(prepare.progress("checking"))
        curriculum = dataclasses.replace(run.curriculum, schedule="baseline", max_difficulty=None)
        baseline = self._plan(dataclasses.replace(run, curriculum=curriculum))
        candidate = self._plan(tune_probe.candidate(run, tuning, space.starts[0], space.durations[0]))
        self.search = Search(
            TuneDir(settings.outputs, tuning.name),
            record.settings(candidate.config, tuning, space),
            baseline.extent.tokens,
            baseline.flops,
        )

    def _plan(self, run: RunConfig) -> Planned:
        return plan.build([run], self.settings, self.corpora).runs[0]

    def print_plan(self) -> None:
        """Print the values to search and the largest cost, that of a search in which every probe fluctuates."""
        space, tuning = self.space, self.tuning
        tokens: list[int] = []

        def fluctuates(_: Purpose, start: int, duration: int) -> tune_probe.Judgement:
            tokens.append(tune_probe.probe(self.run, tuning, start, duration).token_budget)
            return tune_probe.Judgement(False, False, tuning.threshold, 0, diverged=False)

        tune_search.search(space.starts, space.durations, fluctuates, tuning.checks)
        most = tune_search.most_probes(len(space.starts), len(space.durations), tuning.checks)
        sizes = " to ".join(dict.fromkeys(map(display.si, (min(tokens), max(tokens)))))
        _print(
            f"{tuning.name}: start length of {_listed(space.starts)}, then T of {_listed(space.durations)} steps\n"
            f"at most {most} probes of {sizes} tokens, {tuning.warmups:g} LR warmups "
            f"each; together at most about {sum(tokens) / self.search.run_tokens:.0%} of a whole run's tokens "
            f"({display.si(self.search.run_tokens)})"
        )

    def __call__(self, purpose: Purpose, start: int, duration: int) -> Probe:
        """Train a probe unless it is finished; judge, record and print it."""
        config = tune_probe.probe(self.run, self.tuning, start, duration)
        planned = self._plan(config)
        run = RunDir(self.settings.outputs, planned.run_id)
        if status.read(run).state not in status.FINISHED:
            self.train([config], self.settings, is_sweep=False, corpora=self.corpora, terse=True)
        latest = status.read(run)
        if latest.state not in status.FINISHED:
            raise RunsFailed(f"{planned.run_id}: the probe did not finish; `cl-bench status` says why; then tune again")
        evals = records.read(run).evals
        beginning = tune_probe.beginning(config)
        judgement = tune_probe.judge(
            evals["consumed_tokens"].tolist(),
            evals["val_ppl"].tolist(),
            tuning=self.tuning,
            beginning=beginning,
            diverged=latest.state == "DIVERGED",
        )
        probe = Probe(
            purpose=purpose,
            start=start,
            duration=duration,
            run_id=planned.run_id,
            beginning_tokens=beginning,
            tokens=latest.consumed_tokens,
            train_seconds=latest.train_seconds,
            eval_seconds=float(evals["eval_seconds"].sum()),
            flops=estimate.training_flops(planned.config, planned.extent)
            * latest.consumed_tokens
            / planned.extent.tokens,
            **dataclasses.asdict(judgement),
            words=judgement.describe(),
        )
        self.search.add(probe)
        self.write_page(self.search.folder)
        _print(
            f"probe {len(self.search.probes)}  start {start}, T {duration}: {probe.words}  "
            f"({display.si(probe.tokens)} tokens in {display.clock(probe.train_seconds)})"
        )
        return probe


def _listed(values: Sequence[int]) -> str:
    """'8', '8, 16, 32', or '100, 200 … 2000'."""
    if len(values) <= 4:
        return ", ".join(map(str, values))
    return f"{values[0]}, {values[1]} … {values[-1]}"


def describe(outcome: Outcome, space: tune_probe.Space) -> list[str]:
    """The outcome in a sentence, and one per caveat."""
    high = space.durations[-1]
    caveats = []
    if not outcome.start_is_steady:
        starts = "every start fluctuates" if len(space.starts) > 1 else "the only start fluctuates"
        caveats.append(f"{starts} at the beginning with T = {high}; T was searched with start {outcome.start}")
    if outcome.contradictions:
        shorter = ", ".join(map(str, outcome.contradictions))
        caveats.append(
            f"but the shorter T = {shorter} fluctuates, contrary to what the search assumes; "
            "look at the curves, at other seeds, and at longer probes (tune.warmups)"
        )
    if outcome.duration is None:
        head = (
            f"no steady T: with start {outcome.start}, probes fluctuate from T = {outcome.fluctuates_at} on; lower "
            "tune.low or the learning rate, or try longer starts"
        )
    else:
        head = f"start {outcome.start}, T = {outcome.duration} steps"
        if outcome.fluctuates_at is None:
            head += f": the longest T searched is steady (tune.high = {high})"
        else:
            head += f": T = {outcome.fluctuates_at} fluctuates"
    return [sentence[0].upper() + sentence[1:] + "." for sentence in (head, *caveats)]


def describe_cost(cost: Cost) -> str:
    """Probes, tokens and time, and their shares of a whole run."""
    return (
        f"{plural(cost.probes, 'probe')}, {display.si(cost.tokens)} tokens, "
        f"{display.clock(cost.train_seconds)} of training and {display.clock(cost.eval_seconds)} of evaluation: "
        f"{cost.share_of_tokens:.0%} of a whole run's tokens, {cost.share_of_flops:.0%} of its FLOPs"
    )


def _print_outcome(search: Search, outcome: Outcome, best: RunConfig | None) -> None:
    for sentence in outcome.words:
        _print(sentence)
    _print(f"cost    {describe_cost(search.cost)}")
    if best is not None:
        folder = search.folder
        preset, sweep = shlex.quote(str(folder.preset)), shlex.quote(str(folder.sweep))
        _print(f"preset  {preset}   (copy it to conf/curriculum/, then curriculum={folder.name})")
        _print(f"sweep   {sweep}   (copy it to sweeps/, then cl-bench sweep -m sweeps={folder.name})")
        _print(f"or      {' '.join(record.overrides(best))}")
