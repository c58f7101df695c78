"""`cl-bench tune`: start length and T of a curriculum by the recipe of DeepSpeed's tutorial, each probe a short run.

A probe is an ordinary run: launched like any other, kept in outputs/runs, known by its settings. So a search that was
interrupted is started again and finds what it has: finished probes are read, an unfinished one goes on from its save.
"""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Sequence
from typing import Protocol

from cl_bench.config import LaunchConfig, RunConfig
from cl_bench.config.tune import TuneConfig
from cl_bench.launch import display, estimate, plan, prepare
from cl_bench.launch.prepare import RunsFailed
from cl_bench.runs import records, status
from cl_bench.runs.paths import RunDir, TuneDir
from cl_bench.tune import probe as tune_probe
from cl_bench.tune import record
from cl_bench.tune import search as tune_search
from cl_bench.tune.record import Cost, Probe, Search
from cl_bench.tune.search import Found, Purpose


class Train(Protocol):
    """local.train_grid or slurm.submit_grid."""

    def __call__(
        self,
        configs: Sequence[RunConfig],
        settings: LaunchConfig,
        *,
        is_sweep: bool,
        corpora: plan.Corpora,
        terse: bool,
    ) -> list[float | None]: ...


def tune(run: RunConfig, settings: LaunchConfig, asked: TuneConfig, train: Train) -> bool:
    """Search, record, and say what was found; whether anything was. Ends after the plan when `settings.dry_run`.

    Raises ConfigError before anything trains, RunsFailed where a probe does not end.
    """
    space = tune_probe.space(run, asked)
    plan.check_writable(settings.outputs)
    settings = dataclasses.replace(settings, wait=True)
    prober = _Prober(run, settings, asked, space, train)
    prober.print_plan()
    if settings.dry_run:
        return True
    found = tune_search.search(space.starts, space.durations, prober, asked.checks)
    words = in_words(found, space)
    prober.search.write(found, words)
    if found.duration is not None:
        chosen = tune_probe.candidate(run, asked, found.start, found.duration)
        record.write_presets(prober.search.folder, chosen, words)
        _print_found(prober.search, words, chosen)
    else:
        prober.search.folder.preset.unlink(missing_ok=True)
        prober.search.folder.sweep.unlink(missing_ok=True)
        _print_found(prober.search, words, None)
    return found.duration is not None


class _Prober:
    """Answers the search's questions by training, or by reading what was trained."""

    def __init__(
        self, run: RunConfig, settings: LaunchConfig, asked: TuneConfig, space: tune_probe.Space, train: Train
    ) -> None:
        self.run, self.settings, self.asked, self.space, self.train = run, settings, asked, space, train
        self.corpora = plan.Corpora(prepare.progress("checking"))
        baseline = dataclasses.replace(run.curriculum, schedule="baseline", max_difficulty=None)
        plain = plan.build([dataclasses.replace(run, curriculum=baseline)], settings, self.corpora).runs[0]
        any_one = tune_probe.candidate(run, asked, space.starts[0], space.durations[0])
        whole = plan.build([any_one], settings, self.corpora).runs[0].config
        self.search = Search(
            TuneDir(settings.outputs, asked.name),
            record.settings(whole, asked, space),
            plain.extent.tokens,
            plain.flops,
        )

    def print_plan(self) -> None:
        """What is searched, and what it costs where everything fluctuates: shorter values of T take more tokens."""
        space, asked = self.space, self.asked
        tokens: list[int] = []

        def fluctuates(_: Purpose, start: int, duration: int) -> tune_probe.Judged:
            tokens.append(tune_probe.probe(self.run, asked, start, duration).token_budget)
            return tune_probe.Judged(False, False, asked.threshold, 0, diverged=False)

        tune_search.search(space.starts, space.durations, fluctuates, asked.checks)
        most = tune_search.most_probes(len(space.starts), len(space.durations), asked.checks)
        sizes = " to ".join(dict.fromkeys(map(display.si, (min(tokens), max(tokens)))))
        display.console.print(
            f"{asked.name}: start length of {_listed(space.starts)}, then T of {_listed(space.durations)} steps\n"
            f"at most {most} probes of {sizes} tokens, {asked.warmups:g} LR warmups "
            f"each; in all at most about {sum(tokens) / self.search.run_tokens:.0%} of the tokens of a whole run "
            f"({display.si(self.search.run_tokens)})",
            soft_wrap=True,
        )

    def __call__(self, purpose: Purpose, start: int, duration: int) -> Probe:
        """Train a probe unless that is done already, judge, record and print it."""
        from analysis.page import tune as tune_page

        config = tune_probe.probe(self.run, self.asked, start, duration)
        planned = plan.build([config], self.settings, self.corpora).runs[0]
        run = RunDir(self.settings.outputs, planned.run_id)
        if status.read(run).state not in status.FINISHED:
            self.train([config], self.settings, is_sweep=False, corpora=self.corpora, terse=True)
        known = status.read(run)
        if known.state not in status.FINISHED:
            raise RunsFailed(f"{planned.run_id}: this probe is not over; `cl-bench status` says why, then tune again")
        evals = records.read(run).evals
        beginning = tune_probe.beginning(config)
        probe = Probe(
            purpose=purpose,
            start=start,
            duration=duration,
            run_id=planned.run_id,
            judged=tune_probe.judge(
                evals["consumed_tokens"].tolist(),
                evals["val_ppl"].tolist(),
                asked=self.asked,
                beginning=beginning,
                diverged=known.state == "DIVERGED",
            ),
            beginning_tokens=beginning,
            tokens=known.consumed_tokens,
            train_seconds=known.train_seconds,
            eval_seconds=float(evals["eval_seconds"].sum()),
            flops=estimate.training_flops(planned.config, planned.extent)
            * known.consumed_tokens
            / planned.extent.tokens,
        )
        self.search.add(probe)
        tune_page.write(self.search.folder)
        display.console.print(
            f"probe {len(self.search.probes)}  start {start}, T {duration}: {probe.judged.in_words()}  "
            f"({display.si(probe.tokens)} tokens in {display.clock(probe.train_seconds)})",
            soft_wrap=True,
        )
        return probe


def _listed(values: Sequence[int]) -> str:
    """'8', '8, 16, 32', or '100, 200 … 2000'."""
    if len(values) <= 4:
        return ", ".join(map(str, values))
    return f"{values[0]}, {values[1]} … {values[-1]}"


def in_words(found: Found, space: tune_probe.Space) -> list[str]:
    """The outcome in a sentence, and one for each caveat."""
    high = space.durations[-1]
    caveats = []
    if not found.start_is_steady:
        tried = "every start fluctuates" if len(space.starts) > 1 else "the only start fluctuates"
        caveats.append(f"{tried} at the beginning with T = {high}; the search of T went on with {found.start}")
    if found.contradictions:
        shorter = ", ".join(map(str, found.contradictions))
        caveats.append(
            f"but T = {shorter} fluctuates, which is shorter: what the search takes for granted does not hold here; "
            "look at the curves, at other seeds, and at longer probes (tune.warmups)"
        )
    if found.duration is None:
        head = (
            f"no T was found: with start {found.start} everything tried from T = {found.fluctuates_at} on fluctuates; "
            "lower tune.low or the learning rate, or try longer starts"
        )
    else:
        head = f"start {found.start}, T = {found.duration} steps"
        if found.fluctuates_at is None:
            head += f": the longest that was tried is steady (tune.high = {high})"
        else:
            head += f": T = {found.fluctuates_at} fluctuates"
    return [sentence[0].upper() + sentence[1:] + "." for sentence in (head, *caveats)]


def cost_in_words(cost: Cost) -> str:
    """Probes, tokens, time, and what share of a whole run that is."""
    return (
        f"{cost.probes} probe{'s' * (cost.probes != 1)}, {display.si(cost.tokens)} tokens, "
        f"{display.clock(cost.train_seconds)} of training and {display.clock(cost.eval_seconds)} of evaluation: "
        f"{cost.share_of_tokens:.0%} of a whole run's tokens, {cost.share_of_flops:.0%} of its FLOPs"
    )


def _print_found(search: Search, words: Sequence[str], chosen: RunConfig | None) -> None:
    from analysis.page import tune as tune_page

    folder = search.folder

    def say(text: str) -> None:
        display.console.print(text, soft_wrap=True)

    for sentence in words:
        say(sentence)
    say(f"cost    {cost_in_words(search.cost())}")
    if chosen is not None:
        at = shlex.quote(str(folder.preset))
        say(f"preset  {at}   (copy it to conf/curriculum/, then curriculum={folder.name})")
        sweep = shlex.quote(str(folder.sweep))
        say(f"sweep   {sweep}   (copy it to sweeps/, then python -m cl_bench.sweep -m sweeps={folder.name})")
        say(f"or      {' '.join(record.overrides(chosen))}")
    say(f"page    {tune_page.write(folder)}")
