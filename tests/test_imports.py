"""Imports point one way, and what runs on a login node or in a notebook never pays for torch."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Layers from the bottom; a module imports from layers below its own or from its own, never from above.
LAYERS: list[set[str]] = [
    {"errors"},
    {"validation"},
    {"resources", "data_config", "curriculum_config", "launch_config"},
    {"config", "tune_config"},
    {"paths"},
    {"adaptive", "batch", "memory", "tokenizer", "tune_search", "tokens", "blend"},
    {"pacing", "texts", "chunks", "megatron", "bin_files"},
    {"schedule", "identity"},
    {"lock", "records", "status", "submission", "provenance", "rendezvous", "tune_probe", "hardware"},
    {"tokenise"},
    {"cache"},
    {"corpus"},
    {"data", "model", "ds_config", "telemetry", "tracking", "slurm_queue", "zeroshot_text", "tune_record"},
    {"evaluate", "checkpoint", "states", "weights", "zeroshot", "export"},
    {"train"},
    {"job"},
    {"slurm_job", "price"},
    {"plan"},
    {"display", "slurm_jobs"},
    {"launch"},
    {"slurm_submit"},
    {"local", "slurm", "tune"},
    {"launchers"},
    {"sweep", "commands", "prepare_command"},
    {"quality"},
    {"cli"},
]
HEAVY = {"torch", "deepspeed", "transformers", "wandb"}


def imported(path: Path, *, top_level_only: bool = False) -> set[str]:
    """Full names of what a file imports: 'cl_bench.config', 'torch.nn'."""
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else list(ast.walk(tree))
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {a.name for a in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{a.name}" for a in node.names}
    return names


def test_every_module_has_its_layer() -> None:
    modules = {p.stem for p in (ROOT / "cl_bench").glob("*.py")} - {"__init__"}
    assert modules == set().union(*LAYERS)


@pytest.mark.parametrize("module", sorted(set().union(*LAYERS)))
def test_imports_point_down(module: str) -> None:
    level = next(i for i, layer in enumerate(LAYERS) if module in layer)
    allowed = {"__version__"}.union(*LAYERS[: level + 1])
    for name in imported(ROOT / "cl_bench" / f"{module}.py"):
        if name.startswith("cl_bench."):
            assert name.split(".")[1] in allowed, f"cl_bench.{module} imports {name}, which stands above it"


def test_hydra_is_known_to_sweep_and_launchers_only() -> None:
    for path in [*(ROOT / "cl_bench").glob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        if path.stem not in ("sweep", "launchers"):
            assert not {n for n in imported(path) if n.split(".")[0] == "hydra"}, path


def test_analysis_knows_the_records_and_not_the_training() -> None:
    allowed = {"records", "config", "paths", "identity", "status", "errors", "validation"}
    for path in (ROOT / "analysis").rglob("*.py"):
        for name in imported(path):
            if name.startswith("cl_bench."):
                assert name.split(".")[1] in allowed, f"{path.name} imports {name}"
            forbidden = HEAVY | {"hydra", "submitit"}
            if path.parent.name == "readers" and path.stem in ("wandb_offline", "wandb_online"):
                forbidden -= {"wandb"}  # within the functions that need it: the next test
            assert name.split(".")[0] not in forbidden, f"{path.name} imports {name}"


def test_no_reader_imports_wandb_before_it_is_asked() -> None:
    readers = list((ROOT / "analysis" / "readers").glob("*.py"))
    assert {"wandb_offline", "wandb_online"} <= {path.stem for path in readers}
    for path in readers:
        assert not {n for n in imported(path, top_level_only=True) if n.split(".")[0] == "wandb"}, path
    loaded = modules_after(
        "from analysis.readers import source, table, tensorboard, wandb_log, wandb_offline, wandb_online, wandb_runs"
    )
    assert not loaded & (HEAVY | {"hydra", "submitit"})


def test_deepspeed_keys_are_spelled_in_one_file() -> None:
    for path in (ROOT / "cl_bench").glob("*.py"):
        if path.stem != "ds_config":
            assert "train_micro_batch_size_per_gpu" not in path.read_text(), path


def modules_after(code: str) -> set[str]:
    out = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('MODULES', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout
    return set(out.split("MODULES", 1)[1].split())


def test_planning_and_submitting_import_no_torch(tmp_path: Path) -> None:
    loaded = modules_after(
        f"from cl_bench import sweep; sweep.main(['-m', 'sweeps=smoke', 'dry_run=true', 'outputs={tmp_path}'])"
    )
    assert "cl_bench.plan" in loaded
    assert not loaded & HEAVY


def test_data_of_every_source_is_read_without_torch() -> None:
    loaded = modules_after("from cl_bench import corpus, data, prepare_command")
    assert {"cl_bench.megatron", "cl_bench.tokenise"} <= loaded
    assert not loaded & (HEAVY | {"tiktoken"})


def test_analysis_imports_no_torch_and_no_hydra() -> None:
    loaded = modules_after("import analysis, analysis.__main__, analysis.report")
    assert "analysis.report" in loaded
    assert not loaded & (HEAVY | {"hydra", "submitit"})
