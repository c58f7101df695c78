"""The model of a run's newest checkpoint, loaded in one process without an engine."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import pickle
from pathlib import Path

import torch
from torch import Tensor

from cl_bench.config import RunConfig
from cl_bench.errors import UserError
from cl_bench.runs.paths import RunDir
from cl_bench.training import checkpoint, engine
from cl_bench.training.model import GPT2

# DeepSpeed's file names of rank 0's training state; only the first holds whole weights.
_WHOLE = "mp_rank_00_model_states.pt"
_PARTITIONED = "zero_pp_rank_0_mp_rank_00_model_states.pt"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_TIED = "head.weight"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A model from a run's checkpoint."""

    model: GPT2
    """On the CPU, in float32, in evaluation mode."""
    step: int
    consumed_tokens: int


def load(run: RunDir, config: RunConfig) -> Trained:
    """Load the model of the run's newest complete checkpoint.

    Its weights are those of the training's forward pass: in a bf16 or fp16 run the 16-bit values, widened to float32,
    at every ZeRO stage. Raises UserError if there is no checkpoint, or it is damaged.
    """
    folder = checkpoint.newest(run)
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{run.run_id}: has no checkpoint in {run.checkpoints}; train it first (a run saves at its end, when it is "
            "stopped, and every checkpoint.interval_steps)"
        )
    is_partitioned = config.deepspeed.zero_stage == 3
    file = folder / (_PARTITIONED if is_partitioned else _WHOLE)
    try:
        saved = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        model = _model(config, _gather(folder) if is_partitioned else saved["module"])
        return Trained(model, int(saved["state"]["step"]), int(saved["state"]["consumed_tokens"]))
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: damaged, or not a save of this run ({reason}); if the run is training now, try again; if not, "
            f"delete {run.root} and train it again"
        ) from None


def _gather(folder: Path) -> dict[str, Tensor]:
    """Whole float32 weights from the optimizer partitions of ZeRO 3."""
    engine.choose_accelerator("auto")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        state: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(folder.parent), tag=folder.name)
    return state


def _model(config: RunConfig, state: dict[str, Tensor]) -> GPT2:
    """The model with the weights `state`, with or without the tied head."""
    dtype = _DTYPES[config.deepspeed.precision]
    with torch.device("meta"):
        model = GPT2(config.model)
    float32 = {name: tensor.to(dtype).float().contiguous() for name, tensor in state.items() if name != _TIED}
    missing, unexpected = model.load_state_dict(float32, strict=False, assign=True)
    if unexpected or missing != [_TIED]:
        raise ValueError(f"unexpected or missing weights: {[*unexpected, *missing][:3]}")
    model.head.weight = model.tokens.weight
    return model.eval()
