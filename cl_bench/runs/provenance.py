"""Provenance of a run: commit, uncommitted changes, package versions, and a snapshot of the code."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
import site
import subprocess
import sys
import sysconfig
from collections.abc import Iterable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from cl_bench.errors import UserError
from cl_bench.runs.paths import RunDir, config_root, snapshots, write_atomic

_MAX_DIFF = 1_000_000


def collect() -> dict[str, Any]:
    """Commit and diff of the checkout that cl_bench comes from (null outside one), Python and package versions."""
    commit = _git("rev-parse", "HEAD")
    diff = _git("diff", "HEAD") if commit else None
    return {
        "commit": commit and commit.strip(),
        "dirty": bool(diff),
        "diff": diff[:_MAX_DIFF] if diff else diff,
        "untracked": (_git("ls-files", "--others", "--exclude-standard", "--", "*.py") or "").splitlines(),
        "python": sys.version.split()[0],
        "packages": {d.name: d.version for d in sorted(distributions(), key=lambda d: d.name.lower())},
    }


def _git(*arguments: str) -> str | None:
    """Output of git in cl_bench's own checkout; None outside one."""
    root = config_root()
    if not (root / "cl_bench" / "__init__.py").is_file():
        return None  # an installed wheel, possibly inside another repository
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20, errors="replace").stdout
    except (OSError, subprocess.SubprocessError):
        return None


def write(run: RunDir, collected: dict[str, Any], snapshot: Path | None) -> None:
    """Write `collected` and the path of the snapshot into the run's folder."""
    text = json.dumps({**collected, "snapshot": snapshot and str(snapshot)}, indent=1)
    write_atomic(run.code, text, durable=False)


def commit_of(run: RunDir) -> str | None:
    """Commit that the run was launched with, followed by '+' if files differed; None if unknown."""
    try:
        code = json.loads(run.code.read_text())
        return code["commit"] and str(code["commit"]) + "+" * bool(code["dirty"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def take_snapshot(outputs: str | Path, functions: Iterable[str] = ()) -> Path:
    """Copy the code that a job imports; returns the copy's folder, one per content. Raises UserError.

    The code is cl_bench and the modules of the dotted `functions` (custom schedules), except installed packages.
    """
    files = {f"cl_bench/{p.relative_to(_package())}": p for p in sorted(_package().rglob("*.py"))}
    for name in sorted({f.partition(".")[0] for f in functions}):
        files |= _module_files(name)
    contents = {name: path.read_bytes() for name, path in sorted(files.items())}
    digest = hashlib.sha256(repr(sorted(contents.items())).encode()).hexdigest()[:12]
    folder = snapshots(outputs) / digest
    if os.pathsep in str(folder.absolute()):
        raise UserError(
            f"outputs = {outputs}: its path contains {os.pathsep!r}, which PYTHONPATH cannot express; choose another, "
            "or snapshot=false"
        )
    if not folder.is_dir():
        temporary = folder.with_name(f".{digest}.{os.getpid()}.tmp")
        for name, content in contents.items():
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            (temporary / name).write_bytes(content)
        try:
            temporary.rename(folder)
        except OSError:  # another launch has written the same content
            shutil.rmtree(temporary)
    return folder


def job_environment(snapshot: Path | None) -> dict[str, str]:
    """Variables that make a job import cl_bench from `snapshot`, or from this process's location."""
    first = snapshot.absolute() if snapshot else _package().parent
    own = [Path(p).absolute() for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p]
    path = dict.fromkeys(map(str, [first, *own, Path.cwd()]))
    # Without SAFEPATH the working directory, often the checkout itself, would precede the copy.
    return {"PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def _module_files(name: str) -> dict[str, Path]:
    """Python files of a top-level module or package, by their path relative to the import folder."""
    spec = importlib.util.find_spec(name)
    if spec is None or name == "cl_bench":
        return {}
    roots = [Path(p).resolve() for p in spec.submodule_search_locations or ()]
    origin = roots[0] if roots else Path(spec.origin or "/").resolve()
    installed = [*site.getsitepackages(), site.getusersitepackages(), sysconfig.get_paths()["stdlib"]]
    if any(origin.is_relative_to(Path(folder).resolve()) for folder in installed):
        return {}
    if not roots:
        return {origin.name: origin} if origin.is_file() else {}
    return {f"{name}/{p.relative_to(root)}": p for root in roots for p in sorted(root.rglob("*.py"))}
