"""Every file and folder name below `outputs`, spelled once."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import yaml

from cl_bench.errors import UserError

_T = TypeVar("_T")


def config_root() -> Path:
    """The folder that holds conf/ and sweeps/: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


class _Child:
    """A file or folder of fixed name within a `_Folder`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: _Folder, owner: type[_Folder]) -> Path:
        return folder.root / self.name


class _Folder:
    """The folder `outputs/<KIND>/<name>`."""

    KIND: str

    def __init__(self, outputs: str | Path, name: str) -> None:
        self.root = Path(outputs) / self.KIND / name
        self.name = name

    @classmethod
    def at(cls, root: str | Path) -> Self:
        """The run, sweep or search whose folder is `root`."""
        path = Path(root)
        return cls(path.parent.parent, path.name)

    @property
    def outputs(self) -> Path:
        """The `outputs` folder that contains this one."""
        return self.root.parent.parent


class RunDir(_Folder):
    """One run's folder, self-contained: `outputs/runs/<run_id>`."""

    KIND = "runs"

    config = _Child("config.yaml")
    """The resolved configuration, written once at submission; the only file a job reads."""
    status = _Child("status.json")
    """State and progress, rewritten by the job."""
    lock = _Child("lock")
    """Held by the process that trains the run."""
    claim = _Child("claim.json")
    """The Slurm job and restart that own the run."""
    submission = _Child("submission.json")
    """The job submitted to train the run."""
    code = _Child("code.json")
    """The launched code: commit, uncommitted changes, package versions."""
    metrics = _Child("metrics")
    """Records of all attempts."""
    checkpoints = _Child("checkpoints")
    """One folder per save, and `latest` with the name of the newest complete one."""
    zeroshot = _Child("zeroshot.json")
    """Zero-shot results of the run's saves, a list per task."""
    zeroshot_lock = _Child("zeroshot.lock")
    """Held while a zero-shot result is added."""
    logs = _Child("logs")
    """Output of the processes."""
    wandb = _Child("wandb")
    """The W&B mirror."""

    @property
    def run_id(self) -> str:
        """The run's name."""
        return self.name

    def attempt(self, attempt: int) -> Path:
        """Rows of one attempt, one JSON object per line."""
        return self.metrics / f"attempt_{attempt:03d}.jsonl"

    def attempts(self) -> list[Path]:
        """Records of the attempts so far, in order."""
        return sorted(self.metrics.glob("attempt_*.jsonl"))

    def table(self, kind: str) -> Path:
        """Rows of one kind (attempt, train, eval) of a finished run."""
        return self.metrics / f"{kind}.parquet"

    @property
    def log(self) -> Path | None:
        """Output of rank 0 in the newest attempt, under submitit's file name; None before the first attempt."""
        return max(self.logs.glob("*_0_log.out"), key=lambda p: p.stat().st_mtime, default=None)


class SweepDir(_Folder):
    """One sweep's folder, `outputs/sweeps/<name>`: the grid with its cells and roles, and the report."""

    KIND = "sweeps"

    manifest = _Child("manifest.json")
    """The grid of the last launch."""
    plan = _Child("plan.csv")
    """The plan table of the last launch or dry run."""
    report = _Child("report.html")
    """The page."""
    savings = _Child("savings.csv")
    """Savings per pair of runs."""
    targets = _Child("savings_by_target.csv")
    """Savings over every target, one row per target and cell."""
    stability = _Child("stability.csv")
    """Stability per run."""
    cost = _Child("cost.csv")
    """Hours and their saving, per run."""
    frontier = _Child("frontier.csv")
    """Largest stable learning rate and batch, per curriculum."""
    correlation = _Child("correlation.csv")
    """Loss ratio against Adam's variance: per run, cell, curriculum and sweep."""
    verdict = _Child("verdict.json")
    """The answer, for programs."""
    figures = _Child("figures")
    """Figures and tables for print, one file each."""
    paper = _Child("paper.md")
    """The runs beside the published cells and claims."""

    @classmethod
    def at(cls, root: str | Path) -> SweepDir:
        """The sweep whose folder is `root`, or any other folder that receives a report."""
        path = Path(root).resolve()
        sweep = cls(path.parent.parent, path.name)
        sweep.root = path
        return sweep


class TuneDir(_Folder):
    """One search for a curriculum: `outputs/tune/<name>`."""

    KIND = "tune"

    search = _Child("search.json")
    """Settings, probes, outcome and cost."""
    page = _Child("tune.html")
    """The page."""

    @property
    def preset(self) -> Path:
        """The resulting curriculum, for a conf/curriculum folder."""
        return self.root / "curriculum" / f"{self.name}.yaml"

    @property
    def sweep(self) -> Path:
        """The resulting curriculum against the baseline, for a sweeps/ folder."""
        return self.root / "sweeps" / f"{self.name}.yaml"


def slurm_folder(outputs: str | Path, name: str) -> Path:
    """The folder of one submission to Slurm: its batch script and the output of its jobs before training starts."""
    return Path(outputs) / "slurm" / name


def snapshots(outputs: str | Path) -> Path:
    """Copies of the code that jobs run from, one folder per content hash."""
    return Path(outputs) / "snapshots"


def submit_lock(outputs: str | Path) -> Path:
    """Lock of a launch while it determines and submits the missing runs."""
    return Path(outputs) / "submit.lock"


def data_cache(outputs: str | Path) -> Path:
    """Prepared corpora, one folder per content hash."""
    return Path(outputs) / "data"


def all_runs(outputs: str | Path) -> list[RunDir]:
    """Every run below an `outputs` folder."""
    return [RunDir(outputs, p.parent.name) for p in sorted((Path(outputs) / "runs").glob("*/config.yaml"))]


@dataclasses.dataclass(frozen=True)
class ManifestEntry:
    """A run in its sweep's manifest; a name is None if the manifest lacks it."""

    run_id: str
    cell: str | None = None
    curriculum: str | None = None
    shape: str | None = None
    variant: str = ""


@dataclasses.dataclass(frozen=True)
class Manifest:
    """A sweep's grid as read from its `manifest.json`."""

    name: str
    question: str
    runs: tuple[ManifestEntry, ...]


def read_manifest(path: Path) -> Manifest:
    """A sweep's manifest. Raises UserError for a damaged one."""
    try:
        manifest = json.loads(path.read_text())
        names = [field.name for field in dataclasses.fields(ManifestEntry)]
        entries = [{name: run[name] for name in names if name in run} for run in manifest["runs"]]
        runs = tuple(ManifestEntry(**entry | {"run_id": str(entry["run_id"])}) for entry in entries)
        return Manifest(str(manifest["name"]), str(manifest.get("question", "")), runs)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a manifest ({error}); launch the sweep again to rewrite it") from None


def manifest_runs(sweep: SweepDir) -> list[str]:
    """run_ids of a sweep, in the order of its grid. Raises UserError for a damaged manifest."""
    return [entry.run_id for entry in read_manifest(sweep.manifest).runs]


def sweeps_of(run: RunDir) -> list[str]:
    """Names of the sweeps whose manifests list a run; damaged manifests are skipped."""
    names = []
    for path in sorted((run.outputs / "sweeps").glob("*/manifest.json")):
        with contextlib.suppress(UserError, OSError):
            if run.run_id in manifest_runs(SweepDir.at(path.parent)):
                names.append(path.parent.name)
    return names


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file, read by libyaml (ten times faster) if PyYAML was built with it.

    Raises UserError for a file that is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None


def read_record(path: Path, cls: type[_T]) -> _T | None:
    """The dataclass that a JSON file holds, unknown keys ignored; None for a missing or unreadable file."""
    try:
        plain = json.loads(path.read_text())
        names = {field.name for field in dataclasses.fields(cast(Any, cls))}
        return cls(**{name: value for name, value in plain.items() if name in names})
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def write_atomic(path: Path, text: str | bytes, *, durable: bool = True) -> None:
    """Write a file whole or not at all: temporary name, fsync, rename. `durable=False` skips the fsync."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    data = text.encode() if isinstance(text, str) else text
    try:
        with temporary.open("wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
