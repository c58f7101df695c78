"""Measured and published figures in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from cl_bench.runs.identity import short_float

NOT_MEASURED = "not measured"
NONE = "–"


def published_setting(cell: dict[str, Any], standing: str) -> str:
    """The verified values of a published cell."""
    rate = f"LR {short_float(cell['lr'])}" if cell["lr"] else "LR open"
    if "optim.lr" in cell["below"]:
        rate = f"LR below {short_float(cell['below']['optim.lr'])}"
    parts = [f"batch {cell['batch']}", rate]
    if "optim.grad_clip" in cell["below"]:
        parts.append(f"clip below {cell['below']['optim.grad_clip']:g}")
    if cell["method"] == "length":
        by = f", by {cell['by']}" if cell["by"] else ""
        parts.append(f"{cell['start']}→full over {cell['until']:,} steps{by}")
    elif cell["method"] == "two_stage":
        parts.append(f"two stages, {cell['until']:,} steps")
    elif cell["method"] == "batch_warmup":
        grows = f"from {cell['start']} by {cell['by']}, " if cell["start"] else ""
        parts.append(f"batch warmup {grows}{cell['until']:,} {cell['until_unit']}")
    return ", ".join(parts) + (f" ({standing})" if standing else "")


def settings_here(measured: Sequence[dict[str, Any]]) -> str:
    """The settings of all groups of runs of a cell."""
    return "; ".join(dict.fromkeys(setting_here(m) for m in measured)) or "no run"


def setting_here(measured: dict[str, Any]) -> str:
    """Batch, learning rate and shape of a group of runs."""
    c = measured["configuration"]
    return f"batch {c['batch']}, LR {short_float(c['lr'])}, {c['shape']}"


def facts_of(measured: dict[str, Any]) -> list[tuple[str, str]]:
    """(what, measured here) of a group of runs, its end step first."""
    runs = measured["runs"]
    facts = [("end step", _steps(runs))]
    if not measured["steps"]:
        return facts
    facts.append(("validation ppl", _final_ppl(measured)))
    diverged = f"{measured['diverged']} of {len(runs)}"
    facts.append(("diverged", diverged))
    top = measured["max_loss_ratio"]
    if top is not None:
        above = f"{measured['steps_above_1_2']:,} and {measured['steps_above_1_5']:,} of {measured['steps']:,}"
        facts.append(("largest loss ratio", f"{top:.2f}"))
        facts.append(("steps above 1.2, 1.5", above))
    if saved := measured.get("saved"):
        against = f"(against {saved['against']})"
        if saved["tokens"] is None or saved["time"] is None:
            facts.append(("tokens, time saved", f"{NOT_MEASURED}: {saved['why_not']} {against}"))
        else:
            facts.append(("tokens to equal ppl", f"{saving_words(saved['tokens'])} {against}"))
            facts.append(("time to equal ppl", saving_words(saved["time"])))
    zeroshot = measured["zeroshot"]
    if not any(zeroshot.values()):
        return [*facts, ("zero-shot", NOT_MEASURED)]
    for task, name in (("wikitext103", "WikiText-103 ppl"), ("lambada", "LAMBADA accuracy")):
        facts.append((name, _zeroshot(zeroshot[task], task)))
    return facts


def _steps(runs: Sequence[dict[str, Any]]) -> str:
    """'300,000, done (3 seeds)', or seed by seed where they differ."""

    def one(run: dict[str, Any]) -> str:
        state = str(run["state"]).lower()
        planned = f" of {run['planned_steps']:,}" if run["planned_steps"] and run["state"] != "DONE" else ""
        if run["state"] == "PENDING" or not run["step"]:
            return "not started" if run["state"] == "PENDING" else f"no step yet, {state}"
        return f"{run['step']:,}{planned}, " + (state if run["state"] in ("DONE", "DIVERGED") else f"partial, {state}")

    texts = [one(run) for run in runs]
    if len(set(texts)) == 1:
        seeds = ", ".join(str(r["seed"]) for r in runs)
        return f"{texts[0]} (seed{'s' * (len(runs) > 1)} {seeds})"
    return "; ".join(f"seed {run['seed']}: {text}" for run, text in zip(runs, texts, strict=True))


def _final_ppl(measured: dict[str, Any]) -> str:
    value, seeds, total = measured["final_ppl"], measured["final_ppl_seeds"], len(measured["runs"])
    if value is None:
        last = [r["last_ppl"] for r in measured["runs"] if r["last_ppl"] is not None]
        so_far = f"; so far {', '.join(ppl(p) for p in last)}" if last else ""
        return f"{NOT_MEASURED}: no run is done{so_far}"
    text = ppl(value)
    if seeds > 1:
        text += f" ({ppl(measured['final_ppl_lowest'])} to {ppl(measured['final_ppl_highest'])})"
    return text if seeds == total else f"{text}, {seeds} of {total} seeds"


def ppl(value: float) -> str:
    """Four significant digits, never in exponents below a million: 12.35, 12,346."""
    if not 1e-3 < value < 1e6:
        return f"{value:.3g}"
    return f"{value:,.{max(0, 3 - math.floor(math.log10(value)))}f}"


def _zeroshot(found: dict[str, Any] | None, task: str) -> str:
    if found is None:
        return NOT_MEASURED

    def show(value: float) -> str:
        return f"{value:.2%}" if task == "lambada" else ppl(value)

    text = show(found["mean"])
    if found["seeds"] > 1:
        text += f" ({show(found['lowest'])} to {show(found['highest'])})"
    return text if found["seeds"] == found["of"] else f"{text}, {found['seeds']} of {found['of']} seeds"


def saving_words(figure: dict[str, Any], form: str = "percent", what: str = "") -> str:
    """A saving in a claim's own form: '−58% (95%: −61 to −55%, 3 seeds)' or '2.4x fewer (one seed: no interval)'."""

    def show(saved: float) -> str:
        if form == "factor":
            return f"{1 / (1 - saved):.1f}x"
        whole = round(saved * 100)
        return f"−{whole}%" if whole > 0 else f"+{-whole}%" if whole < 0 else "0%"

    word = f" {'fewer' if what == 'tokens' else 'less'}" if form == "factor" else ""
    if figure["low"] is None:
        return f"{show(figure['value'])}{word} (one seed: no interval)"
    ends = sorted((figure["low"], figure["high"]), reverse=form != "factor")
    return f"{show(figure['value'])}{word} (95%: {show(ends[0])} to {show(ends[1])}, {figure['seeds']} seeds)"


def measured_claim(claim: dict[str, Any]) -> str:
    """What the runs here say of a claim, curriculum by curriculum."""
    entries = claim["measured_here"]
    whys = list(dict.fromkeys(e["why_not"] for e in entries))
    if all(whys):
        return f"{NOT_MEASURED}: {'; '.join(whys)}"
    parts = []
    for e in entries:
        if e["why_not"]:
            parts.append(f"{e['cell']}: {NOT_MEASURED}: {e['why_not'].removeprefix(e['cell'] + ': ')}")
        elif "diverged" in e:
            parts.append(f"{e['cell']}: {e['diverged']} of {e['of']} diverged")
        else:
            least = "at least " if e["at_least"] else ""
            parts.append(f"{e['cell']}: {least}{saving_words(e['saved'], claim['form'], claim['what'])}")
    return "; ".join(parts)
