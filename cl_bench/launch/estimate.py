"""What a run costs: its FLOPs, and hours at a rate that was measured, given or assumed."""

from __future__ import annotations

from cl_bench import schedules
from cl_bench.config import RunConfig, from_dict
from cl_bench.errors import UserError
from cl_bench.runs import status
from cl_bench.runs.paths import all_runs, read_yaml

# Sustained TFLOP/s of a rank when nothing was measured: the tiny model on two CPU cores; GPT-2 in half precision on a
# data-centre GPU that nobody has tuned for it.
_ASSUMED = {"CPU": 0.07, "GPU": 40.0}
_RUNS_TO_MEASURE = 20


def training_flops(config: RunConfig, extent: schedules.Extent) -> float:
    """FLOPs of a whole run: 6 N + 12 L C T a token (PaLM, arXiv 2204.02311, appendix B), T the step's length."""
    model = config.model
    total = 0.0
    for length, sequences in extent.sequences:
        per_token = 6 * model.n_parameters() + 12 * model.n_layers * model.hidden_size * length
        total += per_token * schedules.tokens_per_step(config, length, sequences)
    return total


class Rates:
    """Sustained TFLOP/s of a rank, as the newest finished runs below `outputs` had it, else assumed."""

    def __init__(self, outputs: str) -> None:
        self._measured: dict[str, list[float]] = {"CPU": [], "GPU": []}
        self._used: dict[str, str] = {}
        finished = sorted(all_runs(outputs), key=lambda r: r.config.stat().st_mtime, reverse=True)
        for run in finished[:_RUNS_TO_MEASURE]:
            done = status.read(run)
            if done.state == "DONE" and done.train_seconds > 0:
                try:
                    config = from_dict(read_yaml(run.config))
                except (UserError, OSError):
                    continue  # a run of an older version prices nothing, but is no obstacle
                flops = training_flops(config, schedules.extent(config))
                self._measured[_kind(config)].append(flops / done.train_seconds / 1e12 / config.resources.ranks)

    def hours(self, config: RunConfig, flops: float) -> float:
        """Hours of training on all of the run's ranks."""
        kind = _kind(config)
        rates = sorted(self._measured[kind])
        rank = f"{kind} rank" if kind == "CPU" else kind
        if config.resources.tflops:
            rate, basis = config.resources.tflops, f"at {config.resources.tflops:g} TFLOP/s a {rank}"
        elif rates:
            rate = rates[len(rates) // 2]
            basis = f"as measured in {len(rates)} finished run{'s' * (len(rates) > 1)}"
        else:
            rate, basis = _ASSUMED[kind], f"assuming {_ASSUMED[kind]:g} TFLOP/s a {rank}; set resources.tflops"
        self._used[basis] = basis
        return flops / (rate * 1e12 * config.resources.ranks) / 3600

    @property
    def basis(self) -> str:
        """Where the hours asked for so far come from."""
        return "; ".join(self._used)


def _kind(config: RunConfig) -> str:
    return "GPU" if config.resources.gpus_per_node and config.resources.accelerator != "cpu" else "CPU"
