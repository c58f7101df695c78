"""Submitting 200 runs to a real Slurm and asking for the state of 1,000, against doing it job by job."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import heading, result

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from cl_bench.runs import status, submission
from cl_bench.runs.paths import RunDir
from tests.slurm import cluster as clusters

_PEER_JOBS = 20


def main() -> None:
    """Measure and print."""
    heading("200 runs to Slurm, the state of 1,000 runs")
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
    command += [f"seed={','.join(map(str, range(1, 101)))}", "hydra/launcher=slurm", f"outputs={outputs}"]
    command += ["+resources.sbatch.hold=true"]
    started = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = time.perf_counter() - started
    assert out.count("submitted job") == 1, out
    assert "200 runs" in out, out
    started = time.perf_counter()
    for _ in range(_PEER_JOBS):
        hold = ["sbatch", "--hold", "-o", "/dev/null", "--wrap", "true"]
        subprocess.run(hold, check=True, capture_output=True)
    one_by_one = (time.perf_counter() - started) / _PEER_JOBS * 200
    result("seconds, from the shell to 200 queued runs in one sbatch", f"{ours:.2f} s", "<= 10 s", ours <= 10)
    print(f"  of which an sbatch for each run, checks and plan aside, would take {one_by_one:.1f} s")
    subprocess.run(["scancel", "-u", str(os.geteuid())], check=True)


def _states(outputs: Path, cluster: clusters.Cluster) -> None:
    """1,000 runs as a sweep in progress leaves them: 400 done, 600 in the queue."""
    held = ["--hold", "--parsable", "--array=0-599", "-o", "/dev/null", "--wrap", "true"]
    job = cluster.run("sbatch", *held).strip()
    for number in range(1000):
        run = RunDir(outputs, f"run_{number:04d}")
        run.root.mkdir(parents=True)
        run.config.write_text("{}\n")
        index = f"{job}_{number - 400}"
        submission.write(run, submission.Submission(launcher="slurm", job_id=index if number >= 400 else "1"))
        if number < 400:
            status.write(run, status.Status(), state="DONE", steps=100, step=100, job="1")
    command = [str(Path(sys.executable).parent / "cl-bench"), "status", "--json", "--outputs", str(outputs)]
    started = time.perf_counter()
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    ours = time.perf_counter() - started
    assert out.count('"DONE"') == 400, out[:500]
    assert out.count('"state": "PENDING"') == 600, out[:500]
    started = time.perf_counter()
    for index in range(_PEER_JOBS):
        subprocess.run(["squeue", "-h", "-j", f"{job}_{index}", "-o", "%T"], check=True, capture_output=True)
    one_by_one = (time.perf_counter() - started) / _PEER_JOBS * 600
    result("seconds, from the shell to the state of 1,000 runs", f"{ours:.2f} s", "<= 2 s", ours <= 2)
    print(f"  a squeue for each of the 600 waiting runs would take {one_by_one:.1f} s")


if __name__ == "__main__":
    main()
