"""What README, CONTRIBUTING and docs/ name exists: links, anchors, files, make targets, commands."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import yaml

import cl_bench
from tests.docs import pages

ROOT = pages.ROOT
every_page = pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: str(page.relative_to(ROOT)))

# A path in a code span is checked if it starts at the top of the repository, in a folder that git keeps.
_PATH = re.compile(r"(cl_bench|analysis|conf|sweeps|tests|bench|docs|hydra_plugins)/[\w./*-]*")
_TOP_FILES = re.compile(r"[\w.-]+\.(md|toml|txt|cff|yml)|\.ci/run|Makefile|LICENSE")
_EXAMPLES = {"sweeps/mine.yaml", "conf/curriculum/steps_of_64.yaml", "paper.md", "merges.txt"}
"""Files that a reader is shown how to make, or that belong to the reader."""


@every_page
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in pages.links(text):
        if link.startswith("https://"):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_relative_to(ROOT), f"{page.name}: {link} leads out of the repository"
        assert target.exists(), f"{page.name}: {link} does not exist"
        if anchor:
            assert anchor in pages.anchors(target.read_text(encoding="utf-8")), (
                f"{page.name}: {link} has no such heading"
            )


def unknown_paths(spans: Iterable[str]) -> list[str]:
    """Code spans that look like a file of the repository and are none."""
    paths = [s for s in spans if (_PATH.fullmatch(s) or _TOP_FILES.fullmatch(s)) and "NAME" not in s]
    return [p for p in paths if p not in _EXAMPLES and not any(ROOT.glob(p.rstrip("/")))]


@every_page
def test_files_named_exist(page: Path) -> None:
    if page.name == "CHANGELOG.md":  # names files of earlier versions, too
        return
    assert unknown_paths(pages.spans(page.read_text(encoding="utf-8"))) == []


def test_a_missing_file_is_noticed() -> None:
    spans = ["cl_bench/errors.py", "cl_bench/absent.py", "analysis/stats/", "absent.md", "conf/curriculum/NAME.yaml"]
    assert unknown_paths(spans) == ["cl_bench/absent.py", "absent.md"]


@every_page
def test_code_fits_the_page(page: Path) -> None:
    for block in pages.blocks(page.read_text(encoding="utf-8")):
        for line in block.splitlines():
            assert len(line) <= 90, f"{page.name}: a reader would have to scroll: {line}"


def test_make_targets_named_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for page in pages.PAGES:
        for line in pages.code(page.read_text(encoding="utf-8")):
            for target in re.findall(r"(?:^|`)make ([\w-]+)", line):
                assert target in targets, f"{page.name}: make {target}"


def commands() -> dict[tuple[str, str], str]:
    """(program, subcommand) of every command on the pages, with the page that names it."""
    named: dict[tuple[str, str], str] = {}
    pattern = re.compile(r"(?:^|\s|/)(cl-bench|python -m (?:cl_bench|analysis)[\w.]*)(?: ([a-z][a-z-]*)(?![\w./=-]))?")
    for page in pages.PAGES:
        for line in pages.code(page.read_text(encoding="utf-8")):
            for program, subcommand in pattern.findall(line.split("#")[0]):
                named.setdefault((program, subcommand), page.name)
    return named


def output(*command: str) -> str:
    """What a command prints."""
    environment = {**os.environ, "COLUMNS": "80"}
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment, check=True).stdout


def test_commands_named_exist() -> None:
    named = commands()
    assert ("cl-bench", "sweep") in named
    usage = {
        "cl-bench": output(str(Path(sys.executable).parent / "cl-bench"), "--help"),
        "python -m analysis": output(sys.executable, "-m", "analysis", "--help"),
    }
    for (program, subcommand), page in named.items():
        if program in usage:
            assert not subcommand or re.search(rf"\b{subcommand}\b", usage[program]), f"{page}: {program} {subcommand}"
        else:
            module = ROOT.joinpath(*program.removeprefix("python -m ").split("."))
            assert module.with_suffix(".py").is_file(), f"{page}: {program}"


def test_readme_fits_a_reading() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert len(text.split()) <= 900


def test_every_page_is_in_the_navigation() -> None:
    nav = re.findall(r"^ +- .*: ([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(nav) == len(set(nav))
    assert set(nav) == {str(page.relative_to(pages.SITE_ROOT)) for page in pages.SITE_ROOT.rglob("*.md")}


def test_one_version() -> None:
    cite = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert cite["version"] == cl_bench.__version__
    assert f"## {cl_bench.__version__}" in changelog


@pytest.mark.docs
def test_the_site_builds_and_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    external = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"?(?:https?:)?//|<link[^>]+href=\"?https?://")
    for html in tmp_path.rglob("*.html"):
        assert not external.search(html.read_text(encoding="utf-8")), html.name
