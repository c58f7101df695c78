"""Draw docs/img/architecture.svg from the import contracts in pyproject.toml and the imports of the real tree.

`python docs/drawing.py` writes the drawing; tests/docs/test_drawing.py fails while it is out of date.
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
DRAWING = ROOT / "docs" / "img" / "architecture.svg"

PURPOSE = {
    "sweep": "entry point of python -m cl_bench.sweep",
    "cli": "the cl-bench command line, Hydra's launchers and sweeper",
    "tune": "search for a curriculum's start length and duration",
    "launch": "plan, estimates, and the local and Slurm backends",
    "evals": "zero-shot evaluation and export",
    "training": "the loop, engine, checkpoints, records of one run",
    "data": "tokenizers, token files, mixtures, batches",
    "runs": "run folders: paths, records, status, lock, identity",
    "schedules": "sequence length, batch size and learning rate of a step",
    "config": "validated dataclasses: defaults, units, messages",
    "commands": "the base of all command-line commands",
    "errors": "errors with name, value and remedy",
}
"""What each part of cl_bench is for; a new package needs a line here."""

_WIDTH, _ROW, _GAP, _TOP = 960, 38, 6, 58
_LEFT, _LEFT_WIDTH, _RIGHT, _RIGHT_WIDTH = 16, 476, 552, 392

_STYLE = """
  svg { font: 13px system-ui, "DejaVu Sans", sans-serif; }
  .ground { fill: #f7f8fa; } .box { fill: #fff; stroke: #aab2bd; } .frame { fill: none; stroke: #aab2bd; }
  text { fill: #1f2730; } .name { font-weight: 600; } .small { fill: #556070; font-size: 12px; }
  .arrow { stroke: #0072b2; stroke-width: 1.6; fill: none; } .head { fill: #0072b2; }
  @media (prefers-color-scheme: dark) {
    .ground { fill: #171b22; } .box { fill: #222833; stroke: #566070; } .frame { stroke: #566070; }
    text { fill: #e6e9ee; } .small { fill: #a7b0bd; } .arrow { stroke: #56b4e9; } .head { fill: #56b4e9; }
  }
"""


def layers() -> list[list[str]]:
    """Parts of cl_bench from the outside in, as the import contract has them; siblings share a layer."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = settings["tool"]["importlinter"]["contracts"]
    (contract,) = [c for c in contracts if c["type"] == "layers" and c.get("containers") == ["cl_bench"]]
    rows = [[name.strip(" ()") for name in layer.replace(":", "|").split("|")] for layer in contract["layers"]]
    return [[name for name in row if not name.startswith("__")] for row in rows]


def imports() -> set[tuple[str, str]]:
    """(importer, imported) between the parts of both packages: 'cl_bench.cli', 'analysis.stats', 'analysis.report'."""
    graph = grimp.build_graph("cl_bench", "analysis", cache_dir=None)
    edges = {
        (_part(module), _part(imported))
        for module in graph.modules
        for imported in graph.find_modules_directly_imported_by(module)
    }
    return {(a, b) for a, b in edges if a != b and "." in a and "." in b}


def _part(module: str) -> str:
    return ".".join(module.split(".")[:2])


def levels(edges: set[tuple[str, str]]) -> list[list[str]]:
    """Parts of analysis, the innermost first: each imports parts of lower levels only, or of its own in a cycle."""
    inner = {(a, b) for a, b in edges if a.startswith("analysis.") and b.startswith("analysis.")}
    parts = {part for edge in inner for part in edge if "__" not in part}
    reach = {part: _reachable(part, inner) for part in parts}
    level: dict[str, int] = {}
    # Whoever reaches more parts lies further out, so in this order the imported parts are placed first.
    for part in sorted(parts, key=lambda p: (len(reach[p]), p)):
        cycle = {p for p in reach[part] if part in reach[p]}
        below = set().union(*(reach[p] for p in cycle)) - cycle
        for member in cycle:
            level[member] = 1 + max((level[p] for p in below), default=-1)
    return [sorted(p for p in parts if level[p] == n) for n in range(max(level.values()) + 1)]


def _reachable(start: str, edges: set[tuple[str, str]]) -> set[str]:
    reached = ends = {start}
    while ends:
        ends = {b for a, b in edges if a in ends} - reached
        reached = reached | ends
    return reached


def draw() -> str:
    """The drawing as SVG text."""
    stack, edges = layers(), imports()
    height = _TOP + len(stack) * (_ROW + _GAP) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title">',
        '<title id="title">Packages of cl_bench and analysis: each imports only what lies below it</title>',
        f"<style>{_STYLE}</style>",
        '<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">'
        '<path class="head" d="M0 0L8 4L0 8Z"/></marker></defs>',
        f'<rect class="ground" width="{_WIDTH}" height="{height}" rx="8"/>',
        f'<text class="name" x="{_LEFT}" y="26">cl_bench</text>',
        f'<text class="small" x="{_LEFT}" y="44">each imports only what lies below it</text>',
        f'<text class="name" x="{_RIGHT}" y="26">analysis</text>',
        f'<text class="small" x="{_RIGHT}" y="44">arrows: imports between the two</text>',
    ]
    middles: dict[str, float] = {}
    for row, names in enumerate(stack):
        y = _TOP + row * (_ROW + _GAP)
        width = (_LEFT_WIDTH - _GAP * (len(names) - 1)) / len(names)
        for column, name in enumerate(names):
            middles[f"cl_bench.{name}"] = y + _ROW / 2
            x = _LEFT + column * (width + _GAP)
            purpose = PURPOSE[name] if len(names) == 1 else ""
            parts.append(_box(f"cl_bench.{name}", len(stack) - 1 - row, x, y, width, _ROW, purpose))
    parts += _analysis(levels(edges), height - _TOP - 16 - _GAP)
    parts += _arrows(edges, middles)
    return "\n".join([*parts, "</svg>", ""])


def _analysis(rows: list[list[str]], height: float) -> list[str]:
    frame = f'x="{_RIGHT - 8}" y="{_TOP - 6}" width="{_RIGHT_WIDTH + 16}" height="{height + 12}" rx="6"'
    parts = [f'<rect class="frame" {frame}/>']
    step = (height + _GAP) / len(rows)
    for row, names in enumerate(reversed(rows)):
        x, space = float(_RIGHT), _RIGHT_WIDTH - _GAP * (len(names) - 1)
        for name in names:
            width = space * len(name) / sum(map(len, names))
            parts.append(_box(name, len(rows) - 1 - row, x, _TOP + row * step, width, step - _GAP))
            x += width + _GAP
    return parts


def _arrows(edges: set[tuple[str, str]], middles: dict[str, float]) -> list[str]:
    left, right = _LEFT + _LEFT_WIDTH + 2, _RIGHT - 10
    outward = {a for a, b in edges if a in middles and b.startswith("analysis.")}
    inward = {b for a, b in edges if a.startswith("analysis.") and b in middles}
    arrows = [("analysis", part, right, left) for part in inward]
    arrows += [(part, "analysis", left, right) for part in outward]
    return [
        f'<path class="arrow" data-from="{a}" data-to="{b}" marker-end="url(#head)" '
        f'd="M{start} {middles[b if a == "analysis" else a]:g}H{end}"/>'
        for a, b, start, end in sorted(arrows)
    ]


def _box(part: str, level: int, x: float, y: float, width: float, height: float, purpose: str = "") -> str:
    name, middle = part.split(".")[1], y + height / 2 + 4.5
    label = f'<text class="name" x="{x + 12:g}" y="{middle:g}">{escape(name)}</text>'
    if purpose:
        label += f'<text class="small" x="{x + 100:g}" y="{middle:g}">{escape(purpose)}</text>'
    elif part.startswith("analysis."):
        label = f'<text class="name" x="{x + width / 2:g}" y="{middle:g}" text-anchor="middle">{escape(name)}</text>'
    rect = f'<rect class="box" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="4"/>'
    return f'<g data-part="{part}" data-level="{level}">{rect}{label}</g>'


if __name__ == "__main__":
    DRAWING.write_text(draw(), encoding="utf-8")
    print(f"written  {DRAWING.relative_to(ROOT)}")
