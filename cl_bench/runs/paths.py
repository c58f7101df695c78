"""Every file and folder name below `outputs`, spelled once."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from cl_bench.errors import UserError


def config_root() -> Path:
    """The folder that holds conf/ and sweeps/: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "_data"
    return installed if installed.is_dir() else package.parent


class RunDir:
    """One run's folder, self-contained: `outputs/runs/<run_id>`."""

    def __init__(self, outputs: str | Path, run_id: str) -> None:
        self.root = Path(outputs) / "runs" / run_id
        self.run_id = run_id

    @classmethod
    def at(cls, root: str | Path) -> RunDir:
        """The run whose folder is `root`."""
        path = Path(root)
        return cls(path.parent.parent, path.name)

    @property
    def outputs(self) -> Path:
        """The `outputs` folder this run lives in."""
        return self.root.parent.parent

    @property
    def config(self) -> Path:
        """The resolved configuration, written once at submission; the only thing a job reads."""
        return self.root / "config.yaml"

    @property
    def status(self) -> Path:
        """State and progress, rewritten by the job."""
        return self.root / "status.json"

    @property
    def lock(self) -> Path:
        """Held by the process that trains the run."""
        return self.root / "lock"

    @property
    def claim(self) -> Path:
        """Which start of which Slurm job the run belongs to."""
        return self.root / "claim.json"

    @property
    def submission(self) -> Path:
        """The job that is to train the run, as its launch left it."""
        return self.root / "submission.json"

    @property
    def code(self) -> Path:
        """What the run was launched with: commit, difference to it, versions of all packages."""
        return self.root / "code.json"

    @property
    def metrics(self) -> Path:
        """Records of all attempts."""
        return self.root / "metrics"

    def attempt(self, attempt: int) -> Path:
        """Rows of one attempt, one JSON object a line."""
        return self.metrics / f"attempt_{attempt:03d}.jsonl"

    def attempts(self) -> list[Path]:
        """Records of the attempts so far, in order."""
        return sorted(self.metrics.glob("attempt_*.jsonl"))

    def table(self, kind: str) -> Path:
        """Rows of one kind (attempt, train, eval) of a finished run."""
        return self.metrics / f"{kind}.parquet"

    @property
    def checkpoints(self) -> Path:
        """One folder a save, and `latest` naming the newest whole one."""
        return self.root / "checkpoints"

    @property
    def zeroshot(self) -> Path:
        """Zero-shot results of the run's saves, a list for each task."""
        return self.root / "zeroshot.json"

    @property
    def zeroshot_lock(self) -> Path:
        """Held while a zero-shot result is added."""
        return self.root / "zeroshot.lock"

    @property
    def logs(self) -> Path:
        """What the processes printed."""
        return self.root / "logs"

    @property
    def log(self) -> Path | None:
        """What rank 0 printed in the newest attempt; None before the first. Named as submitit names logs."""
        return max(self.logs.glob("*_0_log.out"), key=lambda p: p.stat().st_mtime, default=None)

    @property
    def wandb(self) -> Path:
        """The W&B mirror."""
        return self.root / "wandb"


class SweepDir:
    """One sweep's folder: which runs, which cell, which role; the report."""

    def __init__(self, outputs: str | Path, name: str) -> None:
        self.root = Path(outputs) / "sweeps" / name
        self.name = name

    @classmethod
    def at(cls, root: str | Path) -> SweepDir:
        """The sweep whose folder is `root`; a report on a whole outputs folder is written into that folder, too."""
        path = Path(root).resolve()
        sweep = cls(path.parent.parent, path.name)
        sweep.root = path
        return sweep

    @property
    def outputs(self) -> Path:
        """The `outputs` folder this sweep lives in."""
        return self.root.parent.parent

    @property
    def manifest(self) -> Path:
        """The grid as launched last."""
        return self.root / "manifest.json"

    @property
    def plan(self) -> Path:
        """The plan table of the last launch or dry run."""
        return self.root / "plan.csv"

    @property
    def report(self) -> Path:
        """The page."""
        return self.root / "report.html"

    @property
    def savings(self) -> Path:
        """Savings per pair of runs."""
        return self.root / "savings.csv"

    @property
    def targets(self) -> Path:
        """Savings over every target, one row a target and cell."""
        return self.root / "savings_by_target.csv"

    @property
    def stability(self) -> Path:
        """Stability per run."""
        return self.root / "stability.csv"

    @property
    def cost(self) -> Path:
        """Hours and what they saved, per run."""
        return self.root / "cost.csv"

    @property
    def frontier(self) -> Path:
        """Largest stable learning rate and batch, per curriculum."""
        return self.root / "frontier.csv"

    @property
    def correlation(self) -> Path:
        """Loss ratio against Adam's variance: per run, cell, curriculum and sweep."""
        return self.root / "correlation.csv"

    @property
    def verdict(self) -> Path:
        """The answer, for programs."""
        return self.root / "verdict.json"

    @property
    def figures(self) -> Path:
        """Figures and tables for print, one file each."""
        return self.root / "figures"

    @property
    def paper(self) -> Path:
        """The runs beside the published cells and claims."""
        return self.root / "paper.md"


class TuneDir:
    """One search for a curriculum: `outputs/tune/<name>`."""

    def __init__(self, outputs: str | Path, name: str) -> None:
        self.root = Path(outputs) / "tune" / name
        self.name = name

    @property
    def outputs(self) -> Path:
        """The `outputs` folder this search lives in."""
        return self.root.parent.parent

    @property
    def search(self) -> Path:
        """Settings, probes, outcome and cost."""
        return self.root / "search.json"

    @property
    def preset(self) -> Path:
        """The curriculum found, for a conf/curriculum folder."""
        return self.root / "curriculum" / f"{self.name}.yaml"

    @property
    def sweep(self) -> Path:
        """The curriculum found against the baseline, for a sweeps/ folder."""
        return self.root / "sweeps" / f"{self.name}.yaml"

    @property
    def page(self) -> Path:
        """The page."""
        return self.root / "tune.html"


def slurm_folder(outputs: str | Path, name: str) -> Path:
    """Where one submission to Slurm keeps its batch script and what its jobs print before training takes over."""
    return Path(outputs) / "slurm" / name


def snapshots(outputs: str | Path) -> Path:
    """Copies of the code that jobs run from, one folder per content hash."""
    return Path(outputs) / "snapshots"


def submit_lock(outputs: str | Path) -> Path:
    """Held while a launch decides what is missing and submits it."""
    return Path(outputs) / "submit.lock"


def data_cache(outputs: str | Path) -> Path:
    """Prepared corpora, one folder per content hash."""
    return Path(outputs) / "data"


def all_runs(outputs: str | Path) -> list[RunDir]:
    """Every run below an `outputs` folder."""
    return [RunDir(outputs, p.parent.name) for p in sorted((Path(outputs) / "runs").glob("*/config.yaml"))]


def manifest_runs(sweep: SweepDir) -> list[str]:
    """run_ids of a sweep, in the order of its grid. Raises UserError when its manifest is damaged."""
    return [str(r["run_id"]) for r in read_manifest(sweep.manifest)["runs"]]


def sweeps_of(run: RunDir) -> list[str]:
    """Names of the sweeps whose manifests name a run; a damaged manifest names none."""
    names = []
    for path in sorted((run.outputs / "sweeps").glob("*/manifest.json")):
        with contextlib.suppress(UserError, OSError):
            if run.run_id in manifest_runs(SweepDir.at(path.parent)):
                names.append(path.parent.name)
    return names


def read_manifest(path: Path) -> dict[str, Any]:
    """What a sweep's manifest holds. Raises UserError when it is damaged."""
    try:
        manifest: dict[str, Any] = json.loads(path.read_text())
        _ = manifest["name"], [r["run_id"] for r in manifest["runs"]]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a manifest ({error}); launch the sweep again to rewrite it") from None
    return manifest


def read_yaml(path: Path) -> Any:
    """The plain values of a YAML file, through libyaml (ten times faster) where PyYAML was built with it.

    Raises UserError when it is not YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not YAML ({' '.join(str(error).split())})") from None


def write_atomic(path: Path, text: str | bytes, *, durable: bool = True) -> None:
    """Write a whole file or nothing: temporary name, fsync, rename. `durable=False` skips the fsync (progress)."""
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
