"""Our own run folders -> tidy DataFrames: whole sweeps, partial and running ones too."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.readers import checks
from analysis.readers.tidy import default_cell
from analysis.schema import RUN_COLUMNS, TRAIN_COLUMNS, NoRunsError, Runs, perplexity
from analysis.words import printable
from cl_bench import schedules
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import UserError
from cl_bench.runs import identity, records, status
from cl_bench.runs.paths import RunDir, SweepDir, all_runs, read_manifest, read_yaml


def load_runs(folder: str | Path) -> Runs:
    """Read a sweep's folder (outputs/sweeps/NAME), or every run of an outputs folder, finished or not.

    Raises NoRunsError where there are none, RecordError for a damaged record.
    """
    path = Path(folder)
    sweep = SweepDir.at(path)
    if sweep.manifest.exists():
        manifest = read_manifest(sweep.manifest)
        entries = {str(r["run_id"]): r for r in manifest["runs"]}
        found = [RunDir(sweep.outputs, run_id) for run_id in entries]
        name, question = str(manifest["name"]), str(manifest.get("question", ""))
    elif (path / "runs").is_dir():
        found = all_runs(path)
        entries = _known_entries(path)
        name, question = path.resolve().name, ""
    else:
        what = (
            "no such folder" if not path.exists() else "neither a sweep (manifest.json) nor an outputs folder (runs/)"
        )
        raise NoRunsError(f"{path}: {what}; give outputs/sweeps/NAME or outputs")
    return _collect(name, question, path, found, entries, sweep.manifest.exists())


def _known_entries(outputs: Path) -> dict[str, Any]:
    """What the sweeps of an outputs folder call their runs; the newest manifest wins."""
    manifests = sorted((outputs / "sweeps").glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)
    return {str(r["run_id"]): r for path in manifests for r in read_manifest(path)["runs"]}


@dataclasses.dataclass(frozen=True)
class Known:
    """One of our runs, wherever its rows were kept."""

    run_id: str
    config: RunConfig
    train: dict[str, npt.NDArray[Any]]
    """TRAIN_COLUMNS of its clean curve; taken apart when the runs are put together."""
    evals: pd.DataFrame
    attempts: pd.DataFrame
    state: status.State
    planned_steps: int
    entry: Mapping[str, Any]
    """What its sweep's manifest calls it: cell, curriculum, shape, variant."""

    @classmethod
    def of(
        cls,
        config: RunConfig,
        record: records.Record,
        state: status.State,
        planned_steps: int,
        entry: Mapping[str, Any],
        run_id: str,
    ) -> Known:
        """A run and what of its record is analysed; the record itself may go."""
        # Copies: a view would keep every column of the record alive.
        train = {name: record.train[name].to_numpy(dtype=dtype, copy=True) for name, dtype in TRAIN_COLUMNS.items()}
        return cls(printable(run_id), config, train, record.evals, record.attempts, state, planned_steps, entry)


def _collect(
    name: str, question: str, folder: Path, found: list[RunDir], entries: dict[str, Any], is_sweep: bool
) -> Runs:
    known: list[Known] = []
    notes: list[str] = []
    for run in found:
        try:
            config = from_dict(read_yaml(run.config))
        except FileNotFoundError:
            notes.append(f"{run.run_id}: no folder {run.root}; left out")
            continue
        except UserError as error:
            notes.append(f"{run.run_id}: its config.yaml cannot be read ({str(error).splitlines()[0]}); left out")
            continue
        record = records.read(run)
        notes += record.notes
        stands = status.current(run)
        known.append(Known.of(config, record, stands.state, stands.steps, entries.get(run.run_id, {}), run.run_id))
    if not known:
        raise NoRunsError(f"{folder}: holds no runs yet; train some: python -m cl_bench.sweep -m sweeps=NAME")
    return gather(name, question, folder, known, notes, is_sweep=is_sweep)


def gather(
    name: str, question: str, folder: Path, known: Sequence[Known], notes: Sequence[str], *, is_sweep: bool
) -> Runs:
    """Runs of ours in the tidy schema; those of no one sweep are named by what differs over all of them."""
    if not is_sweep:
        known, doubles = _one_of_each(known)
        notes = [*notes, *doubles]
    table = pd.DataFrame([_row(run) for run in known], columns=list(RUN_COLUMNS))
    configs = [run.config for run in known]
    evals = [run.evals.assign(run_id=run.run_id) for run in known]
    attempts = [run.attempts.assign(run_id=run.run_id) for run in known]
    if not is_sweep:
        _tell_apart(table, configs)
    return Runs(
        printable(name),
        printable(question),
        folder,
        table,
        _one_frame(known),
        pd.concat(evals, ignore_index=True),
        pd.concat(attempts, ignore_index=True),
        (*map(printable, notes), *checks.evaluation_sets([_evaluation_set(config) for config in configs])),
        {str(run_id): config for run_id, config in zip(table["run_id"], configs, strict=True)},
    )


def _one_of_each(known: Sequence[Known]) -> tuple[list[Known], list[str]]:
    """One run of each experiment, seed and all: the newest that finished; and what to say of the others.

    The same settings have the same run_id, unless a folder was copied or an older release named it.
    """
    same: dict[str, list[Known]] = {}
    for run in known:
        same.setdefault(json.dumps(identity.identity(run.config), sort_keys=True), []).append(run)
    kept = {max(runs, key=_standing).run_id: runs for runs in same.values()}
    notes = [
        f"{run.run_id}: the same experiment, seed and all, as {run_id}; left out."
        for run_id, runs in kept.items()
        for run in runs
        if run.run_id != run_id
    ]
    return [run for run in known if run.run_id in kept], notes


def _standing(run: Known) -> tuple[bool, float, str]:
    """Finished before unfinished, then the newest."""
    started = float(run.attempts["started"].max()) if len(run.attempts) else 0.0
    return run.state in status.FINISHED, 0.0 if math.isnan(started) else started, run.run_id


def _evaluation_set(config: RunConfig) -> str:
    return f"text {config.data.fingerprint}, {config.evaluation.n_blocks} blocks of {config.seqlen} tokens"


def _one_frame(known: Sequence[Known]) -> pd.DataFrame:
    """All runs' training rows end to end, column by column: both forms at once would not fit beside each other."""
    lengths = [len(run.train["step"]) for run in known]
    codes: npt.NDArray[np.int32] = np.repeat(np.arange(len(known), dtype=np.int32), lengths)
    joined = {name: np.concatenate([run.train.pop(name) for run in known]) for name in TRAIN_COLUMNS}
    run_ids = pd.Categorical.from_codes(codes, pd.Index([run.run_id for run in known]))
    return pd.DataFrame({"run_id": run_ids, **joined}, copy=False)


def _tell_apart(table: pd.DataFrame, configs: list[RunConfig]) -> None:
    """Name what differs over runs of several sweeps, in place: each sweep only named what differed within itself.

    Two curricula are the same where their resolved forms are; their length in steps depends on the batch, so they are
    compared within one batch size.
    """
    table["variant"] = identity.variants(configs)
    identities = [identity.identity(c) for c in configs]
    resolved = [json.dumps([i["curriculum"], i["batch_warmup"]], sort_keys=True) for i in identities]
    frame = table.assign(resolved=resolved)
    mixed = frame.groupby(["curriculum", "setting", "global_batch_size"])["resolved"].nunique() > 1
    names = {str(key[0]) for key in mixed.index[mixed]}
    for row, config, text in zip(table.index, configs, resolved, strict=True):
        if table.at[row, "curriculum"] in names:
            what = schedules.describe(config)
            if config.curriculum.schedule == "custom":  # the label is the function's name, whatever it returned
                what += f" {hashlib.sha256(text.encode()).hexdigest()[:6]}"
            table.at[row, "curriculum"] = f"{config.method} ({what})"


def _row(run: Known) -> dict[str, Any]:
    config, entry = run.config, run.entry
    train, evals, attempts = run.train, run.evals, run.attempts
    last = {name: train[name][-1] if len(train["step"]) else 0 for name in ("step", "consumed_tokens", "train_seconds")}
    measured = evals[evals["consumed_tokens"] > 0]
    final = float(measured["val_loss"].iloc[-1]) if len(measured) else math.nan
    seconds, tokens = float(last["train_seconds"]), int(last["consumed_tokens"])
    curriculum, variant = entry.get("curriculum", config.method), entry.get("variant", "")
    plain = default_cell(curriculum, config.global_batch_size, config.optim.lr, variant)
    cell = entry.get("cell", config.cell or plain)
    row = {
        "run_id": run.run_id,
        "cell": cell,
        "role": "baseline" if config.is_baseline else "curriculum",
        "curriculum": curriculum,
        "shape": entry.get("shape", schedules.describe(config)),
        "variant": variant,
        "setting": identity.setting(config),
        "model": config.model.name,
        "global_batch_size": config.global_batch_size,
        "lr": config.optim.lr,
        "seed": config.seed,
        "state": run.state,
        "token_budget": config.token_budget,
        "max_seqlen": config.seqlen,
        "consumed_tokens": tokens,
        "train_seconds": seconds,
        "final_loss": final,
        "final_ppl": perplexity(final),
        "best_ppl": perplexity(float(evals["val_loss"].min())) if len(evals) else math.nan,
        "tokens_per_second": tokens / seconds if seconds else math.nan,
        "named": "" if cell == plain else cell,
        "last_step": int(last["step"]),
        "planned_steps": run.planned_steps,
        "hardware": _hardware(attempts),
        "world_size": int(attempts["world_size"].iloc[-1]) if len(attempts) else 0,
        "precision": config.deepspeed.precision,
    }
    return {key: printable(v) if isinstance(v, str) else v for key, v in row.items()}


def _hardware(attempts: pd.DataFrame) -> str:
    """What the attempts whose steps were kept ran on: one name, or 'mixed: A, B'; with the ranks where these differ.

    Older records have no name, only the device: 'cpu', 'cuda'.
    """
    kept = attempts[attempts["trained_seconds"] > attempts["lost_seconds"]]
    counted = kept if len(kept) else attempts
    names = counted["hardware"].where(counted["hardware"] != "", counted["device"].str.split(":").str[0])
    if counted["world_size"].nunique() > 1:
        names = counted["world_size"].astype(str) + " × " + names
    distinct = list(dict.fromkeys(str(n) for n in names))
    return f"mixed: {', '.join(distinct)}" if len(distinct) > 1 else "".join(distinct)
