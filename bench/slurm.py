"""Submitting 200 runs to a real Slurm and observing 1,000, beside one Slurm command per run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import heading, ratio, result, size

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cl_bench.runs import status, submission
from cl_bench.runs.paths import RunDir
from tests.slurm import cluster as clusters

_PEER_JOBS = size(20, 2)
_SEEDS = size(100, 2)
_DONE, _QUEUED = size((400, 600), (4, 6))


def main() -> None:
    """Measure and print."""
    heading(f"submitting {2 * _SEEDS} runs to Slurm, observing {_DONE + _QUEUED:,}")
    if problem := clusters.missing():
        print(f"  not measured: {problem}")
        return
    with tempfile.TemporaryDirectory() as folder:
        cluster = clusters.Cluster(Path(folder) / "slurm")
        try:
            cluster.up()
            os.environ.update(SLURM_CONF=cluster.env["SLURM_CONF"], PATH=cluster.env["PATH"])
            _submit(Path(folder) / "outputs")
            _states(Path(folder) / "many", cluster)
        finally:
            cluster.down()


def _submit(outputs: Path) -> None:
    command = [sys.executable, "-m", "cl_bench.sweep", "-m", "sweeps=smoke", "curriculum=baseline,fixed_linear"]
    command += [f"seed={','.join(map(str, range(1, _SEEDS + 1)))}", "hydra/launcher=slurm", f"outputs={outputs}"]
    command += ["+resources.sbatch.hold=true"]
    started = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = time.perf_counter() - started
    assert out.count("submitted job") == 1, out
    assert f"{2 * _SEEDS} runs" in out, out
    started = time.perf_counter()
    for _ in range(_PEER_JOBS):
        hold = ["sbatch", "--hold", "-o", "/dev/null", "--wrap", "true"]
        subprocess.run(hold, check=True, capture_output=True)
    one_by_one = (time.perf_counter() - started) / _PEER_JOBS * 2 * _SEEDS
    result(f"seconds, from the shell to {2 * _SEEDS} queued runs in one sbatch", f"{ours:.2f} s", "<= 10 s", ours <= 10)
    ratio("one sbatch per run, without checks and plan", ours / one_by_one)
    subprocess.run(["scancel", "-u", str(os.geteuid())], check=True)


def _states(outputs: Path, cluster: clusters.Cluster) -> None:
    """Observe runs as a sweep in progress leaves them: some done, the others in the queue."""
    held = ["--hold", "--parsable", f"--array=0-{_QUEUED - 1}", "-o", "/dev/null", "--wrap", "true"]
    job = cluster.run("sbatch", *held).strip()
    for number in range(_DONE + _QUEUED):
        run = RunDir(outputs, f"run_{number:04d}")
        run.root.mkdir(parents=True)
        run.config.write_text("{}\n")
        index = f"{job}_{number - _DONE}"
        submission.write(run, submission.Submission(launcher="slurm", job_id=index if number >= _DONE else "1"))
        if number < _DONE:
            status.write(run, status.Status(), state="DONE", steps=100, step=100, job="1")
    command = [str(Path(sys.executable).parent / "cl-bench"), "status", "--json", "--outputs", str(outputs)]
    started = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = time.perf_counter() - started
    assert out.count('"DONE"') == _DONE, out[:500]
    assert out.count('"state": "PENDING"') == _QUEUED, out[:500]
    started = time.perf_counter()
    for index in range(_PEER_JOBS):
        subprocess.run(["squeue", "-h", "-j", f"{job}_{index}", "-o", "%T"], check=True, capture_output=True)
    one_by_one = (time.perf_counter() - started) / _PEER_JOBS * _QUEUED
    result(f"seconds, from the shell to the state of {_DONE + _QUEUED:,} runs", f"{ours:.2f} s", "<= 2 s", ours <= 2)
    ratio("one squeue per waiting run", ours / one_by_one)


if __name__ == "__main__":
    main()
