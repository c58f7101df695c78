"""Our own run folders -> tidy DataFrames: whole sweeps, partial and running ones too."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from analysis.schema import RUN_COLUMNS, TRAIN_COLUMNS, NoRunsError, Runs, perplexity
from cl_bench import identity, records, status
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import UserError
from cl_bench.paths import RunDir, SweepDir, all_runs, read_manifest, read_yaml


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


def _collect(
    name: str, question: str, folder: Path, found: list[RunDir], entries: dict[str, Any], is_sweep: bool
) -> Runs:
    rows: list[dict[str, Any]] = []
    configs: list[RunConfig] = []
    trains: dict[str, list[npt.NDArray[Any]]] = {c: [] for c in TRAIN_COLUMNS}
    evals: list[pd.DataFrame] = []
    attempts: list[pd.DataFrame] = []
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
        rows.append(_row(run, config, record, entries.get(run.run_id, {})))
        configs.append(config)
        for column, dtype in TRAIN_COLUMNS.items():
            trains[column].append(record.train[column].to_numpy(dtype=dtype))
        evals.append(record.evals.assign(run_id=run.run_id))
        attempts.append(record.attempts.assign(run_id=run.run_id))
    if not rows:
        raise NoRunsError(f"{folder}: holds no runs yet; train some: python -m cl_bench.sweep -m sweeps=NAME")
    table = pd.DataFrame(rows, columns=list(RUN_COLUMNS))
    if not is_sweep:
        _tell_apart(table, configs)
    return Runs(
        name,
        question,
        folder,
        table,
        _one_frame(table["run_id"].tolist(), trains),
        pd.concat(evals, ignore_index=True),
        pd.concat(attempts, ignore_index=True),
        tuple(notes),
        {str(run_id): config for run_id, config in zip(table["run_id"], configs, strict=True)},
    )


def _one_frame(run_ids: list[str], columns: dict[str, list[npt.NDArray[Any]]]) -> pd.DataFrame:
    """All runs' columns end to end, taken apart on the way: both forms at once would not fit beside each other."""
    lengths = [len(part) for part in columns["step"]]
    codes = np.repeat(np.arange(len(run_ids), dtype=np.int32), lengths)
    joined = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    return pd.DataFrame({"run_id": pd.Categorical.from_codes(codes, pd.Index(run_ids)), **joined}, copy=False)


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
            what = config.shape
            if config.curriculum.schedule == "custom":  # the label is the function's name, whatever it returned
                what += f" {hashlib.sha256(text.encode()).hexdigest()[:6]}"
            table.at[row, "curriculum"] = f"{config.method} ({what})"


def _row(run: RunDir, config: RunConfig, record: records.Record, entry: dict[str, Any]) -> dict[str, Any]:
    train, evals, attempts = record.train, record.evals, record.attempts
    measured = evals[evals["consumed_tokens"] > 0]
    final = float(measured["val_loss"].iloc[-1]) if len(measured) else math.nan
    seconds = float(train["train_seconds"].iloc[-1]) if len(train) else 0.0
    tokens = int(train["consumed_tokens"].iloc[-1]) if len(train) else 0
    known = status.current(run)
    curriculum, variant = entry.get("curriculum", config.method), entry.get("variant", "")
    default_cell = f"{curriculum} b{config.global_batch_size} lr{identity.short_float(config.optim.lr)}"
    default_cell += f" {variant}" if variant else ""
    cell = entry.get("cell", config.cell or default_cell)
    return {
        "run_id": run.run_id,
        "cell": cell,
        "role": "baseline" if config.is_baseline else "curriculum",
        "curriculum": curriculum,
        "shape": entry.get("shape", config.shape),
        "variant": variant,
        "setting": identity.setting(config),
        "model": config.model.name,
        "global_batch_size": config.global_batch_size,
        "lr": config.optim.lr,
        "seed": config.seed,
        "state": known.state,
        "token_budget": config.token_budget,
        "max_seqlen": config.seqlen,
        "consumed_tokens": tokens,
        "train_seconds": seconds,
        "final_loss": final,
        "final_ppl": perplexity(final),
        "best_ppl": perplexity(float(evals["val_loss"].min())) if len(evals) else math.nan,
        "tokens_per_second": tokens / seconds if seconds else math.nan,
        "named": "" if cell == default_cell else cell,
        "last_step": int(train["step"].iloc[-1]) if len(train) else 0,
        "planned_steps": known.steps,
        "hardware": _hardware(attempts),
        "world_size": int(attempts["world_size"].iloc[-1]) if len(attempts) else 0,
        "precision": config.deepspeed.precision,
    }


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
