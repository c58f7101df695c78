"""Where methods differ in stability: places of the grid at which one failed and the other did not, in words."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from analysis.answer import Answer
from analysis.schema import Row, cell_of, method_name, place_name, rows_of
from analysis.stats.joint_boundary import MethodStability, PlaceStability
from analysis.stats.outcome import Kind, Outcome

_Method = tuple[str, str, str]
"""Setting, curriculum, variant."""
_Where = tuple[str, str, str, int, float]
"""Setting, curriculum, variant, batch size, learning rate."""


@dataclasses.dataclass(frozen=True)
class Side:
    """How one method's runs ended at one place."""

    learned: int
    diverged: int
    did_not_learn: int
    undecided: int
    """Unfinished, or too slow to have learned below the learning rate at which the method learns best."""

    @property
    def seeds(self) -> int:
        """All runs here."""
        return self.learned + self.diverged + self.did_not_learn + self.undecided

    @property
    def failed(self) -> int:
        """Runs that diverged or did not learn."""
        return self.diverged + self.did_not_learn


@dataclasses.dataclass(frozen=True)
class Contrast:
    """A place of the grid at which a curriculum and the baseline ended differently."""

    setting: str
    curriculum: str
    """With its variant or the sweep's name for it."""
    place: PlaceStability
    ours: Side
    theirs: Side | None
    """None: the baseline was not trained there."""
    p_value: float | None
    """McNemar's exact test over all places and seeds that the two methods share."""
    named_setting: str = ""
    """The setting, if the runs have several."""

    @property
    def favours_curriculum(self) -> bool:
        """Whether the baseline failed more often, or was not trained there."""
        if self.theirs is None:
            return True
        return self.ours.failed * self.theirs.seeds < self.theirs.failed * self.ours.seeds


def contrasts(answer: Answer) -> list[Contrast]:
    """For each curriculum, its farthest place that favours it and its nearest that favours the baseline."""
    judged = answer.instability
    rows = rows_of(answer.runs.runs)
    names, sides = _names(rows), _sides(rows, judged.outcomes, judged.unstable)
    several = len({setting for setting, *_ in names}) > 1
    result: list[Contrast] = []
    for joint in judged.joint:
        base = next(m for m in joint.methods if m.role == "baseline")
        for method in joint.methods:
            if method.role != "baseline":
                name = names[joint.setting, method.curriculum, method.variant]
                found = _of_method(joint.setting, name, method, base, sides)
                result += [dataclasses.replace(c, named_setting=c.setting if several else "") for c in found]
    return result


def did_not_learn(answer: Answer) -> str:
    """How many runs did not learn: '14 of 18 runs did not learn, all 9 baselines among them'; empty if none."""
    roles = {str(run["run_id"]): run["role"] for run in rows_of(answer.runs.runs)}
    failed = [roles[run_id] for run_id, outcome in answer.outcomes.items() if outcome.kind == "did not learn"]
    if not failed:
        return ""
    if len(failed) == len(roles):
        return f"none of {len(roles)} runs learned" if len(roles) > 1 else "the one run did not learn"
    among, of_them = failed.count("baseline"), list(roles.values()).count("baseline")
    text = f"{len(failed)} of {len(roles)} runs did not learn"
    if among == len(failed):
        return f"{text}, all of them baselines" if among > 1 else f"{text}, a baseline"
    if not among:
        return f"{text}, no baseline among them"
    listed = f"{among} of {of_them} baselines" if among < of_them else f"all {among} baselines"
    return f"{text}, {listed if of_them > 1 else 'the baseline'} among them"


def _names(runs: Sequence[Row]) -> dict[_Method, str]:
    """Curriculum and variant of each method; if the sweep has one name for its cells, that instead of the variant."""
    labels: dict[_Method, set[str]] = {}
    for cell in map(cell_of, runs):
        labels.setdefault((cell.setting, cell.curriculum, cell.variant), set()).add(cell.label)
    return {
        method: f"{method[1]} ({label})"
        if method[2] and len(own) == 1 and (label := min(own))
        else method_name(*method[1:])
        for method, own in labels.items()
    }


def _of_method(
    setting: str, name: str, method: MethodStability, base: MethodStability, sides: Mapping[_Where, Side]
) -> list[Contrast]:
    def side(of: MethodStability, place: PlaceStability) -> Side | None:
        return sides.get((setting, of.curriculum, of.variant, place.global_batch_size, place.lr))

    found: list[Contrast] = []
    for place in method.places:
        ours, theirs = side(method, place), side(base, place)
        assert ours is not None
        contrast = Contrast(setting, name, place, ours, theirs, method.p_value)
        differs = theirs is not None and ours.failed * theirs.seeds != theirs.failed * ours.seeds
        if differs or (theirs is None and _beyond(place, ours, base)):
            found.append(contrast)
    good = [c for c in found if c.favours_curriculum]
    bad = [c for c in found if not c.favours_curriculum]
    chosen = [max(good, key=_reach)] if good else []
    return chosen + ([min(bad, key=lambda c: _size(c.place))] if bad else [])


def _beyond(place: PlaceStability, ours: Side, base: MethodStability) -> bool:
    """Whether a curriculum learned on all seeds at a place farther than any the baseline was trained at."""
    farthest = max(_size(p) for p in base.places)
    return ours.learned == ours.seeds and _size(place) > farthest


def _size(place: PlaceStability) -> tuple[float, float]:
    return round(place.batch_multiple * place.lr_multiple, 9), place.batch_multiple


def _reach(contrast: Contrast) -> tuple[bool, bool, tuple[float, float]]:
    """Places without a failure first, then those with a baseline to compare with, then the farthest."""
    return contrast.ours.failed == 0, contrast.theirs is not None, _size(contrast.place)


def _sides(
    runs: Sequence[Row], outcome: Mapping[str, Outcome], unstable: Mapping[str, bool | None]
) -> dict[_Where, Side]:
    """The runs of each place; a run that was only slow, at a batch size where others of its method learned, is none."""
    places = [_place(run) for run in runs]
    kinds = [outcome[str(run["run_id"])].kind for run in runs]
    learning = {place[:-1] for place, kind in zip(places, kinds, strict=True) if kind == "learned"}
    counts: dict[_Where, Counter[Kind]] = {}
    for run, place, kind in zip(runs, places, kinds, strict=True):
        slow = kind == "did not learn" and not unstable[str(run["run_id"])] and place[:-1] in learning
        counts.setdefault(place, Counter())["unfinished" if slow else kind] += 1
    return {
        place: Side(n["learned"], n["diverged"], n["did not learn"], n["unfinished"]) for place, n in counts.items()
    }


def _place(run: Row) -> _Where:
    cell = cell_of(run)
    return cell.setting, cell.curriculum, cell.variant, cell.global_batch_size, cell.lr


def stability_headline(found: Iterable[Contrast]) -> str:
    """The contrasts in a sentence; curricula that ended alike at the same place are named together."""
    clauses: dict[tuple[bool, str, str], list[str]] = {}
    ordered = sorted(found, key=lambda c: (not c.favours_curriculum, -_size(c.place)[0]))
    for contrast in ordered:
        clauses.setdefault((contrast.favours_curriculum, *_clause(contrast)), []).append(contrast.curriculum)
    parts = [f"{_listed(names)} {ours}{theirs}" for (_, ours, theirs), names in clauses.items()]
    text = "; ".join(parts[:2])
    more = len(parts) - 2
    text += f"; {more} more difference{'s' * (more > 1)} in stability in the table" if more > 0 else ""
    return f"{text}." if text else ""


def _clause(contrast: Contrast) -> tuple[str, str]:
    """What the curriculum did and where; what the baseline did there."""
    ours, theirs = contrast.ours, contrast.theirs
    where = _where(contrast.place, contrast.named_setting)
    one_seed = ours.seeds == 1 and (theirs is None or theirs.seeds == 1)
    text = _ending(ours, f"at {where}")
    if theirs is None:
        return text, "; the baseline was not trained there" + (" (one seed)" if one_seed else "")
    other = _ending(theirs, "", short=ours.seeds == theirs.seeds)
    return text, f", where the baseline {other}" + (" (one seed each)" if one_seed else "")


def _ending(side: Side, where: str, *, short: bool = False) -> str:
    """'stayed stable at … on 3 of 3 seeds', 'diverged on 2 and did not learn on 1 of 3 seeds'.

    Where some are undecided, the others 'learned': a run that was only slow was no less stable.
    """
    seeds = "" if short else f" seed{'s' * (side.seeds > 1)}"
    at = f" {where}" if where else ""
    counts = [(side.diverged, "diverged"), (side.did_not_learn, "did not learn")]
    failures = [(n, words) for n, words in counts if n]
    if not failures:
        if not side.learned:
            return f"has not finished{at}"
        failures = [(side.learned, "learned" if side.undecided else "stayed stable")]
    if side.seeds == 1:
        return f"{failures[0][1]}{at}"
    if len(failures) == 1:
        n, words = failures[0]
        return f"{words}{at} on {n} of {side.seeds}{seeds}"
    (n, words), (m, others) = failures
    return f"{words}{at} on {n} and {others} on {m} of {side.seeds}{seeds}"


def _where(place: PlaceStability, setting: str = "") -> str:
    """'8x the batch and 4x the learning rate (batch 64, LR 8e-3)'; the place alone if it is the reference's."""
    multiples = [(place.batch_multiple, "the batch"), (place.lr_multiple, "the learning rate")]
    parts = [f"{value:.3g}x {what}" for value, what in multiples if abs(value - 1) > 1e-9]
    here = place_name(place.global_batch_size, place.lr) + (f", setting {setting}" if setting else "")
    return f"{' and '.join(parts)} ({here})" if parts else here


def _listed(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}" if len(names) > 1 else names[0]
