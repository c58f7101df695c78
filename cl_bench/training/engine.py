"""The one file that knows DeepSpeed: its environment, its configuration keys and the quirks of its engine."""

from __future__ import annotations

import os
import warnings
from typing import Any

from cl_bench.config import RunConfig
from cl_bench.schedules import seqlen

_NEVER = 2**31


def clips_itself(config: RunConfig) -> bool:
    """Whether DeepSpeed clips gradients. At ZeRO 0 in fp32 it does, but does not tell the norm: there we clip."""
    return config.deepspeed.zero_stage > 0 or config.deepspeed.precision != "fp32"


def build(config: RunConfig, world_size: int) -> dict[str, Any]:
    """DeepSpeed's configuration of a run on `world_size` ranks."""
    # Of a step at full length and batch; set_batch changes both from step to step. Where gradients are ever
    # accumulated this says so, as DeepSpeed's offloading wants to know beforehand.
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
        "gradient_clipping": config.optim.grad_clip if clips_itself(config) else 0.0,
        "zero_optimization": zero,
        # Offloading would insist on DeepSpeed's compiled Adam; PyTorch's, which we give it, needs no compiler.
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


def choose_accelerator(wanted: str) -> str:
    """Tell DeepSpeed which accelerator to use, before it is imported. Returns 'cpu' or 'cuda'."""
    import torch

    has_cuda = torch.cuda.is_available()
    if wanted == "cuda" and not has_cuda:
        raise RuntimeError("resources.accelerator = cuda, but PyTorch sees no GPU; install a CUDA build or use auto")
    device = "cuda" if has_cuda and wanted != "cpu" else "cpu"
    os.environ["DS_ACCELERATOR"] = device
    return device


def init_distributed(
    rank: int, world_size: int, local_rank: int, store: Any, device: str, *, one_machine: bool = True
) -> None:
    """Join the ranks that share `store`, a torch.distributed.Store."""
    # DeepSpeed looks for all five and tries MPI when one is missing; the store stands in for address and port.
    os.environ.update(
        RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_RANK=str(local_rank),
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT="0",
    )
    if device == "cpu" and one_machine:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    warnings.filterwarnings("ignore", category=FutureWarning)
    import deepspeed
    import deepspeed.ops
    import torch

    # The shared-memory collective is compiled on first use (25 s, needs ninja, a stale lock hangs every rank).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    backend = "gloo" if device == "cpu" else "nccl"
    # DeepSpeed cannot be given a store, but takes over a process group that is there.
    torch.distributed.init_process_group(
        backend,
        store=store,
        rank=rank,
        world_size=world_size,
        device_id=torch.device(device) if device != "cpu" and world_size > 1 else None,
    )
    deepspeed.init_distributed(dist_backend=backend, rank=rank, world_size=world_size, verbose=False)


def make_engine(config: RunConfig, world_size: int, device: str) -> Any:
    """A DeepSpeed engine with the model on it. Weights depend on config.seed alone, so every rank starts equal."""
    import deepspeed
    import torch

    from cl_bench.training.model import GPT2, parameter_groups

    torch.manual_seed(config.seed)
    model = GPT2(config.model)
    model.recompute = config.deepspeed.activation_checkpointing
    if config.deepspeed.compile:
        # Beyond either limit nothing would be compiled any more. Evaluation has shapes of its own.
        limit = seqlen.most_shapes(config) + 8
        dynamo = torch._dynamo.config
        dynamo.recompile_limit = limit
        dynamo.accumulated_recompile_limit = max(limit, dynamo.accumulated_recompile_limit)
        model.compile(dynamic=False)
    optim = config.optim
    optimizer = torch.optim.AdamW(
        parameter_groups(model, optim.weight_decay),
        lr=optim.lr,
        betas=(optim.beta1, optim.beta2),
        eps=optim.eps,
        fused=device == "cpu" or None,
    )
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=build(config, world_size))
    return engine


def set_batch(engine: Any, micro_batch: int, grad_accum_steps: int, world_size: int) -> None:
    """Tell the engine the size of the step to come: sequences of a forward pass, and how many of them make a step."""
    engine.set_train_micro_batch_size(micro_batch)
    engine.set_train_batch_size(micro_batch * grad_accum_steps * world_size)


def base_optimizer(engine: Any) -> Any:
    """The torch optimizer inside DeepSpeed's wrapper, which holds Adam's state (a partition of it from ZeRO 1 on)."""
    return getattr(engine.optimizer, "optimizer", engine.optimizer)


def loss_scale(engine: Any) -> float | None:
    """The dynamic loss scale, None where there is none."""
    scale = getattr(engine.optimizer, "cur_scale", None) if engine.fp16_enabled() else None
    return float(scale) if scale is not None else None
