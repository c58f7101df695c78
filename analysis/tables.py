"""A table as a value, and what it looks like on the page, in LaTeX and in Markdown."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from html import escape
from typing import NamedTuple


class Column(NamedTuple):
    """A table column: its head (with the unit), its cells as text, and whether they are numbers."""

    head: str
    cells: Sequence[str]
    number: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose cells are text already: every form of it shows the same. `str()` is HTML, as in the page."""

    caption: str
    columns: Sequence[Column]
    empty: str
    """What is said where there is no row."""

    @property
    def shown(self) -> list[Column]:
        """The columns; none where there is no row."""
        return [c for c in self.columns if c.cells]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells, row by row."""
        return list(zip(*(c.cells for c in self.shown), strict=True))

    def __str__(self) -> str:
        return self.html()

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return self.html()

    def html(self) -> str:
        """An HTML table inside a region that scrolls sideways by itself."""
        columns = self.shown
        if not columns:
            return f'<p class="nothing">{escape(self.empty)}</p>'
        css = [' class="n"' if c.number else "" for c in columns]
        head = "".join(f'<th scope="col"{k}>{escape(c.head)}</th>' for c, k in zip(columns, css, strict=True))
        rows = "".join(
            "<tr>" + "".join(f"<td{k}>{escape(text)}</td>" for text, k in zip(row, css, strict=True)) + "</tr>\n"
            for row in self.rows
        )
        caption = escape(self.caption)
        return (
            f'<div class="scroll" role="region" tabindex="0" aria-label="{caption}"><table>'
            f"<caption>{caption}</caption><thead><tr>{head}</tr></thead>\n<tbody>{rows}</tbody></table></div>"
        )
