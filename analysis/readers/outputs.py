"""Reader of cl_bench's own folders: a sweep, finished or not, or all runs of an outputs folder."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.readers import checks
from analysis.readers.reader import Option, Reader
from analysis.readers.tidy import default_cell
from analysis.schema import RUN_COLUMNS, TRAIN_COLUMNS, NoRunsError, Row, Runs, perplexity
from analysis.words import printable
from cl_bench import schedules
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import UserError
from cl_bench.runs import identity, records, status, unigram
from cl_bench.runs.paths import ManifestEntry, RunDir, SweepDir, all_runs, read_manifest, read_yaml

MOST_EARLIER_RUNS = 100
"""Runs that `load_finished` reads at most: it is called before every launch."""


def load_runs(folder: str | Path) -> Runs:
    """Read the runs of a sweep's folder (outputs/sweeps/NAME) or all runs of an outputs folder, finished or not.

    Raises NoRunsError for a folder without runs, RecordError for a damaged record.
    """
    path = Path(folder)
    sweep = SweepDir.at(path)
    if is_sweep := sweep.manifest.exists():
        manifest = read_manifest(sweep.manifest)
        entries = {entry.run_id: entry for entry in manifest.runs}
        run_dirs = [RunDir(sweep.outputs, run_id) for run_id in entries]
        name, question = manifest.name, manifest.question
    elif (path / "runs").is_dir():
        run_dirs = all_runs(path)
        entries = _newest_entries(path)
        name, question = path.resolve().name, ""
    else:
        problem = "neither a sweep (manifest.json) nor an outputs folder (runs/)" if path.exists() else "no such folder"
        raise NoRunsError(f"{path}: {problem}; give outputs/sweeps/NAME or outputs")
    runs, notes = _read_all(run_dirs, entries)
    if not runs:
        raise NoRunsError(f"{path}: holds no runs yet; train some: cl-bench sweep -m sweeps=NAME")
    outputs = sweep.outputs if is_sweep else sweep.root
    gathered = gather(name, question, path, runs, notes, is_sweep=is_sweep)
    return dataclasses.replace(gathered, outputs=outputs, unigram=_unigram(gathered.configs, outputs))


def _unigram(configs: Mapping[str, RunConfig], outputs: Path) -> dict[str, float]:
    """The unigram cross-entropy of each run's validation data, where it is known."""
    fingerprints = {run_id: str(config.data.fingerprint) for run_id, config in configs.items()}
    levels = {fingerprint: unigram.read(outputs, fingerprint) for fingerprint in set(fingerprints.values())}
    return {run_id: level for run_id, f in fingerprints.items() if (level := levels[f]) is not None}


def load_finished(outputs: Path, settings: Collection[str]) -> Runs | None:
    """The finished runs of some settings (cl_bench.runs.identity.setting), the newest MOST_EARLIER_RUNS; None without.

    Runs that cannot be read are left out.
    """
    if not (outputs / "runs").is_dir():
        return None
    finished = [(latest.updated, run) for run in all_runs(outputs) if (latest := status.read(run)).state == "DONE"]
    newest = [run for _, run in sorted(finished, key=lambda pair: -pair[0])[:MOST_EARLIER_RUNS]]
    runs, _ = _read_all(newest, {})
    alike = [run for run in runs if identity.setting(run.config) in settings]
    return gather(outputs.name, "", outputs, alike, (), is_sweep=False) if alike else None


def _newest_entries(outputs: Path) -> dict[str, ManifestEntry]:
    """Each run's entry in the newest manifest of an outputs folder that lists it."""
    manifests = sorted((outputs / "sweeps").glob("*/manifest.json"), key=lambda p: p.stat().st_mtime)
    return {entry.run_id: entry for path in manifests for entry in read_manifest(path).runs}


@dataclasses.dataclass(frozen=True)
class OwnRun:
    """A run of cl_bench, read from its folder or from its W&B mirror."""

    run_id: str
    config: RunConfig
    train: dict[str, npt.NDArray[Any]]
    """TRAIN_COLUMNS of its clean curve; emptied by `gather`."""
    evals: pd.DataFrame
    attempts: pd.DataFrame
    state: status.State
    planned_steps: int
    entry: ManifestEntry

    @classmethod
    def from_record(
        cls,
        config: RunConfig,
        record: records.Record,
        state: status.State,
        planned_steps: int,
        entry: ManifestEntry,
    ) -> OwnRun:
        """A run with the analysed part of its record."""
        # Copies: a view would keep every column of the record alive.
        train = {name: record.train[name].to_numpy(dtype=dtype, copy=True) for name, dtype in TRAIN_COLUMNS.items()}
        run_id = printable(entry.run_id)
        return cls(run_id, config, train, record.evals, record.attempts, state, planned_steps, entry)


def _read_all(run_dirs: Sequence[RunDir], entries: Mapping[str, ManifestEntry]) -> tuple[list[OwnRun], list[str]]:
    """The runs that can be read, and notes on the others."""
    runs: list[OwnRun] = []
    notes: list[str] = []
    for run in run_dirs:
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
        state = status.current(run)
        entry = entries.get(run.run_id, ManifestEntry(run.run_id))
        runs.append(OwnRun.from_record(config, record, state.state, state.steps, entry))
    return runs, notes


def gather(
    name: str, question: str, folder: Path, runs: Sequence[OwnRun], notes: Sequence[str], *, is_sweep: bool
) -> Runs:
    """Runs of cl_bench in the tidy schema; unless they form one sweep, named by the settings that differ."""
    if not is_sweep:
        runs, duplicates = _without_duplicates(runs)
        notes = [*notes, *duplicates]
    table = pd.DataFrame([_row(run) for run in runs], columns=list(RUN_COLUMNS))
    configs = [run.config for run in runs]
    evals = [run.evals.assign(run_id=run.run_id) for run in runs]
    attempts = [run.attempts.assign(run_id=run.run_id) for run in runs]
    if not is_sweep:
        _name_by_differences(table, configs)
    return Runs(
        printable(name),
        printable(question),
        folder,
        table,
        _joined_train(runs),
        pd.concat(evals, ignore_index=True),
        pd.concat(attempts, ignore_index=True),
        (*map(printable, notes), *checks.evaluation_sets([_evaluation_set(config) for config in configs])),
        {str(run_id): config for run_id, config in zip(table["run_id"], configs, strict=True)},
    )


def _without_duplicates(runs: Sequence[OwnRun]) -> tuple[list[OwnRun], list[str]]:
    """One run per experiment and seed, the newest finished one, and notes on the others.

    Equal settings have equal run_ids, unless a folder was copied or named by an older release.
    """
    same: dict[str, list[OwnRun]] = {}
    for run in runs:
        same.setdefault(json.dumps(identity.identity(run.config), sort_keys=True), []).append(run)
    kept = {max(copies, key=_precedence).run_id: copies for copies in same.values()}
    notes = [
        f"{run.run_id}: the same experiment, seed and all, as {run_id}; left out."
        for run_id, copies in kept.items()
        for run in copies
        if run.run_id != run_id
    ]
    return [run for run in runs if run.run_id in kept], notes


def _precedence(run: OwnRun) -> tuple[bool, float, str]:
    """Sort key: finished runs above unfinished ones, then by start."""
    started = float(run.attempts["started"].max()) if len(run.attempts) else 0.0
    return run.state in status.FINISHED, 0.0 if math.isnan(started) else started, run.run_id


def _evaluation_set(config: RunConfig) -> str:
    return f"text {config.data.fingerprint}, {config.evaluation.n_blocks} blocks of {config.seqlen} tokens"


def _joined_train(runs: Sequence[OwnRun]) -> pd.DataFrame:
    """The training rows of all runs, moved column by column: two full copies may not fit into memory."""
    lengths = [len(run.train["step"]) for run in runs]
    codes: npt.NDArray[np.int32] = np.repeat(np.arange(len(runs), dtype=np.int32), lengths)
    joined = {name: np.concatenate([run.train.pop(name) for run in runs]) for name in TRAIN_COLUMNS}
    run_ids = pd.Categorical.from_codes(codes, pd.Index([run.run_id for run in runs]))
    return pd.DataFrame({"run_id": run_ids, **joined}, copy=False)


def _name_by_differences(table: pd.DataFrame, configs: list[RunConfig]) -> None:
    """Set variant and curriculum in place to what differs over all runs: manifests know one sweep each.

    Curricula are equal if their resolved forms are. Their length in steps depends on the batch, so they are compared
    within one batch size.
    """
    table["variant"] = identity.variants(configs)
    identities = [identity.identity(c) for c in configs]
    resolved = [json.dumps([i["curriculum"], i["batch_warmup"]], sort_keys=True) for i in identities]
    frame = table.assign(resolved=resolved)
    mixed = frame.groupby(["curriculum", "setting", "global_batch_size"])["resolved"].nunique() > 1
    names = {str(key[0]) for key in mixed.index[mixed]}
    for row, config, text in zip(table.index, configs, resolved, strict=True):
        if table.at[row, "curriculum"] in names:
            shape = schedules.describe(config)
            if config.curriculum.schedule == "custom":  # the label is the function's name, whatever it returned
                shape += f" {hashlib.sha256(text.encode()).hexdigest()[:6]}"
            table.at[row, "curriculum"] = f"{config.method} ({shape})"


def _row(run: OwnRun) -> Row:
    config, entry = run.config, run.entry
    train, evals, attempts = run.train, run.evals, run.attempts
    last = {name: train[name][-1] if len(train["step"]) else 0 for name in ("step", "consumed_tokens", "train_seconds")}
    measured = evals[evals["consumed_tokens"] > 0]
    final = float(measured["val_loss"].iloc[-1]) if len(measured) else math.nan
    seconds, tokens = float(last["train_seconds"]), int(last["consumed_tokens"])
    curriculum = config.method if entry.curriculum is None else entry.curriculum
    default = default_cell(curriculum, config.global_batch_size, config.optim.lr, entry.variant)
    cell = config.cell or default if entry.cell is None else entry.cell
    row = {
        "run_id": run.run_id,
        "cell": cell,
        "role": config.role,
        "curriculum": curriculum,
        "shape": schedules.describe(config) if entry.shape is None else entry.shape,
        "variant": entry.variant,
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
        "named": "" if cell == default else cell,
        "last_step": int(last["step"]),
        "planned_steps": run.planned_steps,
        "hardware": _hardware(attempts),
        "world_size": int(attempts["world_size"].iloc[-1]) if len(attempts) else 0,
        "precision": config.deepspeed.precision,
    }
    return {key: printable(v) if isinstance(v, str) else v for key, v in row.items()}


def _hardware(attempts: pd.DataFrame) -> str:
    """Hardware of the attempts whose steps were kept: one name, or 'mixed: A, B', with world sizes if these differ.

    Older records hold no name, only the device: 'cpu', 'cuda'.
    """
    kept = attempts[attempts["trained_seconds"] > attempts["lost_seconds"]]
    counted = kept if len(kept) else attempts
    names = counted["hardware"].where(counted["hardware"] != "", counted["device"].str.split(":").str[0])
    if counted["world_size"].nunique() > 1:
        names = counted["world_size"].astype(str) + " × " + names
    distinct = list(dict.fromkeys(str(n) for n in names))
    return f"mixed: {', '.join(distinct)}" if len(distinct) > 1 else "".join(distinct)


READER = Reader(
    Option("folder", "outputs/sweeps/NAME", "outputs/sweeps/NAME, or outputs for all runs", is_positional=True),
    load_runs,
    report_folder=lambda location: SweepDir.at(location).root,
)
