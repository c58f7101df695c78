"""Hardware by name: GPUs as PyTorch names them, CPUs as the system does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cl_bench.training import hardware


def test_a_gpu_has_pytorchs_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", {"cuda:1": "NVIDIA H100 80GB HBM3"}.__getitem__)
    assert hardware.name("cuda:1") == "NVIDIA H100 80GB HBM3"


@pytest.mark.parametrize(
    ("cpuinfo", "name"),
    [
        ("processor\t: 0\nmodel\t\t: 1\nmodel name\t: AMD  EPYC 7B13\n\nmodel name\t: other\n", "AMD EPYC 7B13"),
        ("processor\t: 0\nBogoMIPS\t: 50.00\n", "aarch64"),  # ARM's does not tell
        (None, "aarch64"),
    ],
)
def test_a_cpu_has_its_model_and_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str | None, name: str
) -> None:
    if cpuinfo is not None:
        (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr(hardware, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "aarch64")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert hardware.name("cpu") == f"{name}, 2 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert hardware.name("cpu") == f"{name}, 1 thread"
