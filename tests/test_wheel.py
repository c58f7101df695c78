"""A built wheel carries conf/, sweeps/ and the page's files, and finds them from any working directory."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def shipped(folder: Path) -> set[str]:
    """Names of the files that the page and the notebooks are made of."""
    return {path.name for path in folder.iterdir() if path.suffix in (".jinja", ".css", ".js", ".ipynb")}


@pytest.mark.train
def test_the_wheel_is_whole(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
        assert not [n for n in archive.namelist() if n.startswith(("tests/", "outputs/", "bench/"))]
    for package in ("cl_bench", "analysis"):
        assert (site / package / "py.typed").is_file()
    env = {**os.environ, "PYTHONPATH": str(site)}
    where = subprocess.run(
        [sys.executable, "-c", "from cl_bench.runs import paths; print(paths.config_root())"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert where.strip() == str(site / "cl_bench" / "_data")
    command = [sys.executable, "-m", "cl_bench.sweep", "-m", "sweeps=demo", "dry_run=true"]
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert "8 runs: 8 new" in done.stdout, done.stdout + done.stderr
    for folder in ("page/assets", "notebooks"):
        assert shipped(site / "analysis" / folder) == shipped(ROOT / "analysis" / folder) != set()
