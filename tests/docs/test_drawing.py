"""The drawing of the architecture is true: packages, layers and imports are those of the tree."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_imports import imported

ROOT = Path(__file__).parents[2]
SVG = (ROOT / "docs" / "img" / "architecture.svg").read_text(encoding="utf-8")
LEVELS = {part: int(level) for part, level in re.findall(r'data-part="([\w.]+)" data-level="(\d+)"', SVG)}


@pytest.fixture(scope="module")
def drawing() -> ModuleType:
    """docs/drawing.py as a module."""
    spec = importlib.util.spec_from_file_location("drawing", ROOT / "docs" / "drawing.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parts(package: str) -> set[str]:
    """Packages and modules directly below a package."""
    paths = [p for p in (ROOT / package).iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    return {f"{package}.{p.stem}" for p in paths if not p.stem.startswith("__")}


def imports_of(part: str) -> set[str]:
    """Parts that a part imports, inside functions too."""
    path = ROOT / Path(*part.split("."))
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    names = {name for file in files for name in imported(file)}
    return {".".join(n.split(".")[:2]) for n in names if n.startswith(("cl_bench.", "analysis."))} - {part}


def test_every_package_is_drawn_and_none_else() -> None:
    assert set(LEVELS) == parts("cl_bench") | parts("analysis")


def test_layers_are_those_of_the_import_contract() -> None:
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = [
        c["layers"] for c in settings["tool"]["importlinter"]["contracts"] if c.get("containers") == ["cl_bench"]
    ]
    expected = {
        f"cl_bench.{n.strip()}": k
        for k, names in enumerate(reversed(layers))
        for n in names.split("|")
        if "__" not in n
    }
    assert {p: level for p, level in LEVELS.items() if p.startswith("cl_bench.")} == expected


def test_no_part_imports_a_higher_one() -> None:
    for part, level in LEVELS.items():
        package = part.split(".")[0]
        for other in imports_of(part):
            if other.split(".")[0] == package and other in LEVELS:
                assert LEVELS[other] <= level, f"{part} imports {other}, which is drawn above it"


def test_arrows_are_the_imports_between_the_packages() -> None:
    drawn = set(re.findall(r'data-from="([\w.]+)" data-to="([\w.]+)"', SVG))
    outward = {(p, "analysis") for p in parts("cl_bench") if any(i.startswith("analysis") for i in imports_of(p))}
    packages = parts("cl_bench")
    inward = {("analysis", i) for p in parts("analysis") for i in imports_of(p) if i in packages}
    assert drawn == outward | inward


def test_the_drawing_matches_the_tree(drawing: ModuleType) -> None:
    assert drawing.draw() == SVG, "out of date: run `python docs/drawing.py`"
