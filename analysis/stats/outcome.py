"""How each run ended: it learned, it diverged, it did not learn, or it is not finished.

A run *diverged* by any of three rules, each of which can be switched off:

- its training loss was not finite;
- its training loss stayed above `loss_ratio` times its earlier minimum for `loss_ratio_share` of the token budget;
- its final validation loss lies above the one it had after `early_share` of the token budget.

A finished run *did not learn* if its final validation loss is not below the unigram cross-entropy of the validation
data, less a margin. Small models fail this way: at too high a learning rate they collapse to token frequencies, with a
finite loss and no spikes. Training that is merely slow ends there as well, so a run that did not learn counts as
unstable only above the learning rate at which its method learns best (:func:`instability`).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import Runs, rows_of, stretches
from cl_bench.errors import UserError, did_you_mean

Floats = npt.NDArray[np.float64]
Kind = Literal["learned", "diverged", "did not learn", "unfinished"]
Rule = Literal["", "stopped", "non-finite", "loss ratio", "worse than early", "unigram"]


@dataclasses.dataclass(frozen=True)
class Rules:
    """When a run counts as diverged or as not having learned; None (or False) switches a rule off."""

    non_finite: bool = True
    """A training loss that is not finite."""
    loss_ratio: float | None = 2.0
    """Training loss over its earlier minimum that must not be exceeded for long."""
    loss_ratio_share: float = 0.02
    """For how long: consecutive tokens, as a share of the token budget."""
    early_share: float | None = 0.10
    """Share of the token budget after which the validation loss must not be below the final one."""
    unigram_margin: float | None = 0.05
    """Nats by which the final validation loss must lie below the unigram cross-entropy."""

    def sentence(self, runs: int = 0, without_unigram: int = 0) -> str:
        """The rules in words, for a reader of the report; `without_unigram` of its `runs` have no unigram level."""
        parts = []
        if self.non_finite:
            parts.append("its training loss was not finite")
        if self.loss_ratio is not None:
            parts.append(
                f"its training loss stayed above {self.loss_ratio:g} times its earlier minimum for "
                f"{self.loss_ratio_share:.0%} of the token budget"
            )
        if self.early_share is not None:
            parts.append(f"it ended at a validation loss above the one it had at {self.early_share:.0%} of the budget")
        text = f"A run diverged if {', or '.join(parts)}." if parts else "No rule of divergence is in force."
        if self.unigram_margin is not None:
            text += (
                f" It did not learn if its final validation loss is not {self.unigram_margin:g} nats below the unigram "
                "cross-entropy of the validation data; that counts as instability above the learning rate at which "
                "the method learns best."
            )
            if without_unigram:
                which = "these runs" if without_unigram == runs else f"{without_unigram} of {runs} runs"
                text += f" That rule could not be applied to {which}: the token frequencies of their data are unknown."
        return text

    def arguments(self) -> str:
        """The rules that differ from the defaults, as arguments of the command line."""
        return "".join(
            f" --rule {name}={setting.shown(setting.value(self))}"
            for name, setting in _SETTINGS.items()
            if setting.value(self) != setting.value(DEFAULT)
        )


DEFAULT = Rules()


@dataclasses.dataclass(frozen=True)
class _Setting:
    """A rule's value on the command line: a number between two others, both excluded, or off (None)."""

    value: Callable[[Rules], float | None]
    with_value: Callable[[Rules, float | None], Rules]
    low: float = 0.0
    high: float = math.inf
    is_number: bool = True
    """Else on or off."""
    can_be_off: bool = True

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        upper = f" and below {self.high:g}" if math.isfinite(self.high) else ""
        words = f"a number above {self.low:g}{upper}" if self.is_number else "on"
        return f"{words} or off" if self.can_be_off else words

    def shown(self, value: float | None) -> str:
        """A value as it is typed."""
        return "off" if value is None else f"{value:g}" if self.is_number else "on"

    def parse(self, text: str) -> float | None:
        """The value of `text`. Raises ValueError."""
        if text == "off" and self.can_be_off:
            return None
        if not self.is_number:
            if text == "on":
                return 1.0
            raise ValueError
        number = float(text)
        if not self.low < number < self.high:
            raise ValueError
        return number


_SETTINGS = {
    "non-finite": _Setting(
        lambda rules: 1.0 if rules.non_finite else None,
        lambda rules, value: dataclasses.replace(rules, non_finite=value is not None),
        is_number=False,
    ),
    "ratio": _Setting(
        lambda rules: rules.loss_ratio, lambda rules, value: dataclasses.replace(rules, loss_ratio=value), low=1.0
    ),
    "ratio-share": _Setting(
        lambda rules: rules.loss_ratio_share,
        lambda rules, value: dataclasses.replace(rules, loss_ratio_share=value or DEFAULT.loss_ratio_share),
        high=1.0,
        can_be_off=False,
    ),
    "early": _Setting(
        lambda rules: rules.early_share, lambda rules, value: dataclasses.replace(rules, early_share=value), high=1.0
    ),
    "unigram": _Setting(
        lambda rules: rules.unigram_margin, lambda rules, value: dataclasses.replace(rules, unigram_margin=value)
    ),
}
"""By the rules' names on the command line."""


def parse_rules(texts: Iterable[str]) -> Rules:
    """Rules from NAME=VALUE or NAME=off, the defaults for all others.

    Raises UserError for an unknown name and for a value that is not allowed.
    """
    rules = DEFAULT
    for text in texts:
        name, _, value = text.partition("=")
        if name not in _SETTINGS:
            raise UserError(f"--rule {text}: no rule '{name}'; {did_you_mean(name, list(_SETTINGS))}")
        setting = _SETTINGS[name]
        try:
            rules = setting.with_value(rules, setting.parse(value))
        except ValueError:
            raise UserError(f"--rule {text}: '{value}' is not allowed; give {name}={setting.allowed}") from None
    return rules


@dataclasses.dataclass(frozen=True)
class Outcome:
    """How a run ended, and by which rule."""

    kind: Kind
    rule: Rule = ""
    reason: str = ""
    """For a reader, with the numbers that decided; empty for a run that learned."""

    @property
    def diverged(self) -> bool:
        """Whether the run diverged."""
        return self.kind == "diverged"


def outcomes(runs: Runs, unigram: Mapping[str, float] | None = None, rules: Rules = DEFAULT) -> dict[str, Outcome]:
    """The outcome of each run_id, judged from its record.

    `unigram` has the unigram cross-entropy (nats per token) of each run's validation data; runs without one are not
    judged by it.
    """
    train = dict(stretches(runs.train))
    tokens, losses = (runs.train[c].to_numpy(dtype=float) for c in ("consumed_tokens", "loss"))
    evals = dict(stretches(runs.evals))
    eval_tokens, eval_losses = (runs.evals[c].to_numpy(dtype=float) for c in ("consumed_tokens", "val_loss"))
    nothing = slice(0, 0)
    result = {}
    for run in rows_of(runs.runs):
        run_id = str(run["run_id"])
        steps, looks = train.get(run_id, nothing), evals.get(run_id, nothing)
        budget = float(run["token_budget"])
        result[run_id] = judge(
            str(run["state"]),
            (tokens[steps], losses[steps]),
            (eval_tokens[looks], eval_losses[looks]),
            budget if budget > 0 else float(run["consumed_tokens"]),
            (unigram or {}).get(run_id),
            rules,
        )
    return result


def judge(
    state: str,
    train: tuple[Floats, Floats],
    evals: tuple[Floats, Floats],
    token_budget: float,
    unigram: float | None,
    rules: Rules = DEFAULT,
) -> Outcome:
    """One run's outcome. `train` and `evals` are (consumed_tokens, loss in nats), each of shape (n,)."""
    tokens, losses = train
    if rules.non_finite and len(losses) and not np.isfinite(losses).all():
        return Outcome("diverged", "non-finite", "the training loss was not finite")
    if rules.loss_ratio is not None:
        share = longest_above(tokens, losses, rules.loss_ratio) / token_budget
        if share >= rules.loss_ratio_share:
            reason = (
                f"the training loss stayed above {rules.loss_ratio:g} times its minimum for {share:.0%} of the budget"
            )
            return Outcome("diverged", "loss ratio", reason)
    if state == "DIVERGED":
        return Outcome("diverged", "stopped", "training stopped it as diverged")
    if state != "DONE" or not len(evals[1]):
        return Outcome("unfinished")
    return _ended(evals, token_budget, unigram, rules)


def _ended(evals: tuple[Floats, Floats], token_budget: float, unigram: float | None, rules: Rules) -> Outcome:
    """The outcome of a finished run by its validation losses."""
    tokens, losses = evals
    final = float(losses[-1])
    if not math.isfinite(final):
        return Outcome("diverged", "non-finite", "the final validation loss was not finite")
    if rules.early_share is not None and len(losses) > 1:
        at = rules.early_share * token_budget
        early = float(np.interp(at, tokens, losses)) if tokens[0] <= at <= tokens[-1] else math.nan
        if final > early:
            reason = f"it ended at loss {final:.3g}, above its {early:.3g} at {rules.early_share:.0%} of the budget"
            return Outcome("diverged", "worse than early", reason)
    if rules.unigram_margin is not None and unigram is not None and final > unigram - rules.unigram_margin:
        reason = f"it ended at loss {final:.3g}, where token frequencies alone give {unigram:.3g}"
        return Outcome("did not learn", "unigram", reason)
    return Outcome("learned")


def longest_above(tokens: Floats, losses: Floats, ratio: float) -> float:
    """Tokens of the longest unbroken stretch of steps whose loss exceeds `ratio` times its earlier minimum.

    Arrays of shape (steps,): consumed_tokens after each step, and its training loss.
    """
    if len(losses) < 2:
        return 0.0
    minimum = np.fmin.accumulate(losses)
    above = np.zeros(len(losses) + 2, dtype=bool)
    above[2:-1] = losses[1:] > ratio * minimum[:-1]
    starts, ends = (np.flatnonzero(np.diff(above.astype(np.int8)) == sign) for sign in (1, -1))
    consumed = np.concatenate([[0.0], tokens])
    return float((consumed[ends] - consumed[starts]).max(initial=0.0))


def instability(runs: pd.DataFrame, outcome: Mapping[str, Outcome]) -> dict[str, bool | None]:
    """Whether each run was unstable; None where that is undecided: unfinished, or too slow to have learned.

    A run that did not learn is unstable if its learning rate lies above the one at which its curriculum, at its batch
    size, reached the lowest mean final loss; if none of that line's runs learned, nothing tells too high from too low.
    """
    result: dict[str, bool | None] = {}
    line = ["setting", "role", "curriculum", "variant", "global_batch_size"]
    for _, rows in runs.groupby(line, sort=False, dropna=False):
        best = _best_learning_rate(rows, outcome)
        for run_id, lr in zip(rows["run_id"], rows["lr"], strict=True):
            kind = outcome[str(run_id)].kind
            if kind == "did not learn":
                result[str(run_id)] = True if best is not None and float(lr) > best else None
            else:
                result[str(run_id)] = {"learned": False, "diverged": True}.get(kind)
    return result


def _best_learning_rate(rows: pd.DataFrame, outcome: Mapping[str, Outcome]) -> float | None:
    """The learning rate of the lowest mean final loss among those with a run that learned."""
    kinds = [outcome[str(run_id)].kind for run_id in rows["run_id"]]
    ended = rows.assign(kind=kinds)
    learned = ended.loc[ended["kind"] == "learned", "lr"].unique()
    ended = ended[ended["kind"].isin(["learned", "did not learn"]) & ended["lr"].isin(learned)]
    if ended.empty:
        return None
    means = ended.groupby("lr")["final_loss"].mean()
    return float(means.index.to_numpy(dtype=float)[means.to_numpy().argmin()])
