"""What runs on a login node or in a notebook never pays for torch; the import contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
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


def test_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout


def test_hydra_is_imported_by_the_command_line_only() -> None:
    for path in [*(ROOT / "cl_bench").rglob("*.py"), *(ROOT / "analysis").rglob("*.py")]:
        if path.parent.name != "cli":
            assert not {n for n in imported(path) if n.split(".")[0] == "hydra"}, path


def test_analysis_imports_no_training_library() -> None:
    for path in (ROOT / "analysis").rglob("*.py"):
        forbidden = HEAVY | {"hydra", "submitit"}
        if path.parent.name == "readers" and path.stem in ("wandb_offline", "wandb_online"):
            forbidden -= {"wandb"}  # within the functions that need it: the next test
        for name in imported(path):
            assert name.split(".")[0] not in forbidden, f"{path.name} imports {name}"


def test_no_reader_imports_wandb_before_it_is_used() -> None:
    readers = list((ROOT / "analysis" / "readers").glob("*.py"))
    assert {"wandb_offline", "wandb_online"} <= {path.stem for path in readers}
    for path in readers:
        assert not {n for n in imported(path, top_level_only=True) if n.split(".")[0] == "wandb"}, path
    loaded = modules_after(
        "from analysis.readers import source, table, tensorboard, wandb_log, wandb_offline, wandb_online, wandb_runs"
    )
    assert not loaded & (HEAVY | {"hydra", "submitit"})


def test_deepspeed_keys_are_spelled_in_one_file() -> None:
    for path in (ROOT / "cl_bench").rglob("*.py"):
        if path.stem != "engine":
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
    assert "cl_bench.launch.plan" in loaded
    assert not loaded & HEAVY


def test_data_of_every_source_is_read_without_torch() -> None:
    loaded = modules_after("from cl_bench.data import batches, sources; from cl_bench.cli import prepare")
    assert {"cl_bench.data.megatron", "cl_bench.data.encode"} <= loaded
    assert not loaded & (HEAVY | {"tiktoken"})


def test_analysis_imports_no_torch_and_no_hydra() -> None:
    loaded = modules_after("import analysis, analysis.__main__, analysis.report")
    assert "analysis.report" in loaded
    assert not loaded & (HEAVY | {"hydra", "submitit"})
