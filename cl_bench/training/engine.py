"""Everything specific to DeepSpeed: its environment, its configuration keys and the quirks of its engine."""

from __future__ import annotations

import math
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cl_bench import schedules
from cl_bench.config import RunConfig
from cl_bench.schedules import StepShape
from cl_bench.training.model import GPT2, parameter_groups
from cl_bench.training.process import Rank

# DeepSpeed is imported inside functions: it reads DS_ACCELERATOR, which choose_accelerator sets, when it loads.

_NEVER = 2**31


def _deepspeed_clips(config: RunConfig) -> bool:
    """Whether DeepSpeed clips gradients. At ZeRO 0 in fp32 it does not report their norm: there Engine clips."""
    return config.deepspeed.zero_stage > 0 or config.deepspeed.precision != "fp32"


def deepspeed_config(config: RunConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a run on `world_size` ranks."""
    # A step's sizes at full length and batch; begin_step changes them from step to step. DeepSpeed's offloading needs
    # to know in advance whether gradients are ever accumulated.
    micro_batch = config.micro_batch(world_size)
    precision = config.deepspeed.precision
    zero: dict[str, Any] = {"stage": config.deepspeed.zero_stage}
    if config.deepspeed.offload_optimizer:
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if config.deepspeed.offload_parameters:
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    ds: dict[str, Any] = {
        "train_batch_size": config.global_batch_size,
        "train_micro_batch_size_per_gpu": micro_batch,
        "gradient_accumulation_steps": config.global_batch_size // (micro_batch * world_size),
        "gradient_clipping": config.optim.grad_clip if _deepspeed_clips(config) else 0.0,
        "zero_optimization": zero,
        # Offloading would require DeepSpeed's compiled Adam; PyTorch's, which is passed, needs no compiler.
        "zero_force_ds_cpu_optimizer": False,
        "steps_per_print": _NEVER,
        "wall_clock_breakdown": False,
    }
    if precision == "bf16":
        ds["bf16"] = {"enabled": True}
    if precision == "fp16":
        # The loss-scale settings of the published runs (Megatron-DeepSpeed, examples_deepspeed/curriculum_learning).
        ds["fp16"] = {
            "enabled": True,
            "loss_scale": 0,
            "loss_scale_window": 1000,
            "hysteresis": 2,
            "min_loss_scale": 1,
        }
    return ds


def choose_accelerator(name: str) -> str:
    """Set DeepSpeed's accelerator (auto, cpu or cuda), before its import. Returns 'cpu' or 'cuda'."""
    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        raise RuntimeError("resources.accelerator = cuda, but PyTorch sees no GPU; install a CUDA build or use auto")
    device = "cuda" if has_cuda and name != "cpu" else "cpu"
    os.environ["DS_ACCELERATOR"] = device
    return device


def init_distributed(rank: Rank, store: Any) -> None:
    """Join the ranks that share `store`, a torch.distributed.Store."""
    # DeepSpeed requires all five, or tries MPI; the store replaces address and port.
    os.environ.update(
        RANK=str(rank.rank),
        WORLD_SIZE=str(rank.world_size),
        LOCAL_RANK=str(rank.local_rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    on_cpu = rank.device == "cpu"
    if on_cpu and rank.nodes == 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import deepspeed.ops

    # The shared-memory collective is compiled on first use (25 s, needs ninja, a stale lock hangs every rank).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "gloo" if on_cpu else "nccl"
    # DeepSpeed does not accept a store, but adopts an existing process group.
    torch.distributed.init_process_group(
        backend,
        store=store,
        rank=rank.rank,
        world_size=rank.world_size,
        device_id=torch.device(rank.device) if not on_cpu and rank.world_size > 1 else None,
    )
    deepspeed.init_distributed(dist_backend=backend, rank=rank.rank, world_size=rank.world_size, verbose=False)


class Engine:
    """The model on a DeepSpeed engine. Initial weights depend on config.seed alone, so every rank starts equal."""

    def __init__(self, config: RunConfig, rank: Rank) -> None:
        import deepspeed

        torch.manual_seed(config.seed)
        model = GPT2(config.model)
        model.recompute = config.deepspeed.activation_checkpointing
        if config.deepspeed.compile:
            _compile(model, schedules.max_shapes(config))
        optim = config.optim
        optimizer = torch.optim.AdamW(
            parameter_groups(model, optim.weight_decay),
            lr=optim.lr,
            betas=(optim.beta1, optim.beta2),
            eps=optim.eps,
            fused=rank.device == "cpu" or None,
        )
        ds = deepspeed_config(config, rank.world_size)
        self._engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds)
        self._rank = rank
        self._clips_here = not _deepspeed_clips(config)
        self._grad_clip = optim.grad_clip
        self.grad_norm: float | None = None
        """Global L2 norm of the last step's gradients before clipping."""

    @property
    def module(self) -> torch.nn.Module:
        """The model without the engine around it."""
        module: torch.nn.Module = self._engine.module
        return module

    def begin_step(self, shape: StepShape, lr: float) -> None:
        """Set learning rate and batch of the next step."""
        for group in self._optimizer.param_groups:
            group["lr"] = lr
        self._engine.set_train_micro_batch_size(shape.micro_batch_size)
        self._engine.set_train_batch_size(shape.global_batch_size)

    def micro_step(self, inputs: np.ndarray, labels: np.ndarray, *, is_last: bool) -> torch.Tensor:
        """Forward and backward of (rows, padded_seqlen) token ids; the last one of a step also updates the weights.

        Returns the mean loss in nats per labelled token.
        """
        engine, device = self._engine, self._rank.device
        engine.set_gradient_accumulation_boundary(is_last)
        loss: torch.Tensor = engine(torch.from_numpy(inputs).to(device), torch.from_numpy(labels).to(device))
        engine.backward(loss)
        if is_last and self._clips_here:
            limit = self._grad_clip or math.inf
            self.grad_norm = float(torch.nn.utils.clip_grad_norm_(engine.module.parameters(), limit))
        engine.step()
        if is_last and not self._clips_here:
            norm = engine.get_global_grad_norm()
            self.grad_norm = None if norm is None else float(norm)
        return loss.detach()

    @property
    def loss_scale(self) -> float | None:
        """The dynamic loss scale; None without one."""
        scale = getattr(self._engine.optimizer, "cur_scale", None) if self._engine.fp16_enabled() else None
        return float(scale) if scale is not None else None

    def adam_second_moments(self) -> list[torch.Tensor]:
        """Adam's second-moment state, this rank's partition of it from ZeRO 1 on; empty before the first update."""
        return [state["exp_avg_sq"] for state in self._optimizer.state.values() if "exp_avg_sq" in state]

    @property
    def _optimizer(self) -> torch.optim.Optimizer:
        """The torch optimizer inside DeepSpeed's wrapper."""
        optimizer: torch.optim.Optimizer = getattr(self._engine.optimizer, "optimizer", self._engine.optimizer)
        return optimizer

    def save(self, folder: Path, tag: str, state: dict[str, Any]) -> None:
        """Write weights, optimizer and `state` into folder/tag, on all ranks together."""
        self._engine.save_checkpoint(str(folder), tag=tag, client_state={"state": state}, save_latest=False)

    def load(self, folder: Path, tag: str) -> dict[str, Any]:
        """Load a save; returns its `state`."""
        _, client_state = self._engine.load_checkpoint(str(folder), tag=tag)
        state: dict[str, Any] = client_state["state"]
        return state


def _compile(model: GPT2, n_shapes: int) -> None:
    # Beyond either limit nothing more is compiled. Evaluation has shapes of its own.
    limit = n_shapes + 8
    dynamo = torch._dynamo.config
    dynamo.recompile_limit = limit
    dynamo.accumulated_recompile_limit = max(limit, dynamo.accumulated_recompile_limit)
    model.compile(dynamic=False)
