"""The Slurm backend: queues a grid as job arrays and observes its jobs."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from cl_bench.errors import UserError, plural
from cl_bench.launch import observe
from cl_bench.launch.backend import Backend, Observed
from cl_bench.launch.grid import Plan
from cl_bench.launch.slurm import packing, queue, submit
from cl_bench.runs import submission
from cl_bench.runs.paths import RunDir, all_runs
from cl_bench.runs.status import FINISHED
from cl_bench.runs.submission import Submission

_IDS_PER_COMMAND = 500


class SlurmBackend:
    """Queues runs on a Slurm cluster; they outlive the launch."""

    label = "Slurm"
    detached = True

    def check(self, plan: Plan) -> None:
        """Raise UserError for runs that no job can train, and on a machine without Slurm."""
        if plan.to_train and not shutil.which("sbatch"):
            raise UserError(
                "hydra/launcher=slurm: no sbatch on this machine; log in to the cluster, or use hydra/launcher=local"
            )
        for run in (r.config for r in plan.to_train):
            if run.resources.gpus_per_node == 0 or run.resources.accelerator == "cpu":
                if run.resources.accelerator == "cuda":
                    raise UserError("resources.accelerator = cuda needs GPUs, and resources.gpus_per_node = 0; set it")
                if run.deepspeed.precision == "fp16":
                    raise UserError("deepspeed.precision = fp16 needs a GPU; set resources.gpus_per_node")

    def requests(self, plan: Plan) -> Sequence[str]:
        """One line per shape of resources."""
        lines = []
        for alike in packing.by_shape(packing.pack(plan)):
            runs = sum(len(job.runs) for job in alike)
            packed = f" in {len(alike)} jobs" if runs > len(alike) else ""
            lines.append(f"{plural(runs, 'run')}{packed} with {packing.describe(alike[0].resources)}")
        return lines

    def submit(self, plan: Plan, *, terse: bool) -> None:
        """Queue the missing runs, all or none."""
        submit.submit(plan)

    def observe(self, submissions: Sequence[Submission]) -> Callable[[Observed], Observed]:
        """Query squeue (and sacct) once about the jobs of these submissions."""
        jobs = queue.Queue(s.job_id for s in submissions)

        def complete(seen: Observed) -> Observed:
            return observe.with_job(seen, jobs.get(seen.job_id), queue=self.label, problem=jobs.problem)

        return complete

    def cancel(self, runs: Sequence[Observed]) -> int:
        """Cancel with scancel; a packed job only if all of its live runs are in `runs`."""
        live = [seen for seen in runs if seen.job is not None and not seen.job.is_over]
        jobs: dict[str, list[Observed]] = {}
        for seen in live:
            jobs.setdefault(seen.job_id, []).append(seen)
        for job_id, members in jobs.items():
            _refuse_to_split(job_id, members)
        ids = sorted(jobs)
        for i in range(0, len(ids), _IDS_PER_COMMAND):  # the length of a command line is limited
            out = queue.ask("scancel", *ids[i : i + _IDS_PER_COMMAND])
            if out.returncode:
                raise UserError(f"scancel: {out.stderr.strip() or out.returncode}")
        for seen in live:
            if seen.submission is not None:
                submission.write(seen.run, dataclasses.replace(seen.submission, cancelled=True))
        return len(live)

    def log(self, run: RunDir, submission: Submission) -> Path | None:
        """Log of the run, or of its batch script if the job did not reach the run."""
        own = run.log
        if own is not None and own.name.startswith(f"{submission.job_id}_"):
            return own
        return submission.batch_log if submission.batch_log.exists() else own


def _refuse_to_split(job_id: str, members: Sequence[Observed]) -> None:
    """Raise UserError if the job has live runs besides `members`."""
    shared = members[0].submission
    if shared is None or len(members) == shared.runs_in_job:
        return
    ours = {member.run.run_id for member in members}
    others = [run for run in all_runs(members[0].run.outputs) if run.run_id not in ours]
    live = [s for s in observe.observe(others) if s.job_id == job_id and s.status.state not in FINISHED]
    if live:
        raise UserError(
            f"{members[0].run.run_id} shares job {job_id} with {live[0].run.run_id}"
            f"{f' and {len(live) - 1} more' if len(live) > 1 else ''}; cancel the sweep, or `scancel {job_id}`"
        )


BACKEND: Backend = SlurmBackend()
