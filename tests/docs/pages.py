"""The written pages, and what they name: links, paths, commands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
SITE_ROOT = ROOT / "docs"
PAGES = sorted(
    [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + list(SITE_ROOT.rglob("*.md")),
    key=str,
)

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_CODE = re.compile(r"`([^`\n]+)`")


def prose(text: str) -> str:
    """A page without its fenced code."""
    return _FENCE.sub("", text)


def code(text: str) -> Iterator[str]:
    """Everything typeset as code: the lines of fenced blocks without continuations, and code spans."""
    for block in _FENCE.findall(text):
        yield from re.sub(r"\\\n\s*", " ", block).splitlines()[1:-1]
    yield from _CODE.findall(prose(text))


def blocks(text: str) -> list[str]:
    """Fenced blocks of a page."""
    return _FENCE.findall(text)


def links(text: str) -> list[str]:
    """Targets of a page's links and images."""
    return _LINK.findall(prose(text))


def spans(text: str) -> list[str]:
    """Code spans outside fenced blocks."""
    return _CODE.findall(prose(text))


def slug(heading: str) -> str:
    """The anchor of a heading, as both GitHub and the site make it."""
    text = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", text))


def anchors(text: str) -> set[str]:
    """Anchors of a page's headings."""
    return {slug(match) for match in re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)}
