"""A trained model out of a run's newest save, in one process and without an engine."""

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

# DeepSpeed's names of rank 0's file in a save, which holds the training state; whole weights are in the first alone.
_WHOLE = "mp_rank_00_model_states.pt"
_PARTITIONED = "zero_pp_rank_0_mp_rank_00_model_states.pt"
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_TIED = "head.weight"


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run's model as it was saved."""

    model: GPT2
    """On the CPU, in float32, in evaluation mode."""
    step: int
    consumed_tokens: int


def load(run: RunDir, config: RunConfig) -> Trained:
    """The model of the run's newest whole save.

    Its weights are those that the training's forward pass used: of a bf16 or fp16 run the 16-bit values, widened to
    float32, at every ZeRO stage. Raises UserError when there is no save, or it is damaged.
    """
    folder = checkpoint.newest(run)
    if folder is None or not folder.is_dir():
        raise UserError(
            f"{run.run_id}: has no checkpoint in {run.checkpoints}; train it first (a run saves at its end, when it is "
            "stopped, and every checkpoint.interval_steps)"
        )
    partitioned = config.deepspeed.zero_stage == 3
    try:
        saved = torch.load(
            folder / (_PARTITIONED if partitioned else _WHOLE), map_location="cpu", weights_only=True, mmap=True
        )
        state: dict[str, Tensor] = _gather(folder) if partitioned else saved["module"]
        model = _model(config, state)
        progress = saved["state"]
        return Trained(model, int(progress["step"]), int(progress["consumed_tokens"]))
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{folder}: damaged, or not a save of this run ({reason}); if the run is being trained, try again, else "
            f"delete {run.root} and train it anew"
        ) from None


def _gather(folder: Path) -> dict[str, Tensor]:
    """Whole float32 weights out of the optimizer partitions that ZeRO 3 leaves."""
    engine.choose_accelerator("auto")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

        state: dict[str, Tensor] = get_fp32_state_dict_from_zero_checkpoint(str(folder.parent), tag=folder.name)
    return state


def _model(config: RunConfig, state: dict[str, Tensor]) -> GPT2:
    """The model with weights `state`, which may hold the tied head or not."""
    dtype = _DTYPES[config.deepspeed.precision]
    with torch.device("meta"):
        model = GPT2(config.model)
    wanted = {name: tensor.to(dtype).float().contiguous() for name, tensor in state.items() if name != _TIED}
    missing, unexpected = model.load_state_dict(wanted, strict=False, assign=True)
    if unexpected or missing != [_TIED]:
        raise ValueError(f"weights that do not belong there or are missing: {[*unexpected, *missing][:3]}")
    model.head.weight = model.tokens.weight
    return model.eval()
