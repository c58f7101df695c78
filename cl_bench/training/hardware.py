"""Vendor names of the hardware that a rank runs on."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

_CPUINFO = Path("/proc/cpuinfo")


def name(device: str) -> str:
    """'NVIDIA H100 80GB HBM3' for a GPU; for a CPU its model and the threads of this rank: 'AMD EPYC 7B13, 2 threads'.

    `device` is PyTorch's name: 'cpu', 'cuda:0'.
    """
    if device != "cpu":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"{cpu_model()}, {threads} thread{'s' * (threads != 1)}"


def cpu_model() -> str:
    """The CPU's model; if the system does not report it, as on most ARM machines, its architecture."""
    try:
        lines = _CPUINFO.read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    models = (value.strip() for key, _, value in (line.partition(":") for line in lines) if key.strip() == "model name")
    return " ".join(next(models, "").split()) or platform.machine() or "cpu"
