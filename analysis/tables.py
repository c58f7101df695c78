"""A table as a value, and what it looks like on the page, in LaTeX and in Markdown."""

from __future__ import annotations

import dataclasses
import re
import textwrap
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
        """What a notebook shows: no style sheet of the page keeps its numbers whole."""
        style = "<style>.cl-bench td { white-space: nowrap } .cl-bench { overflow-x: auto }</style>"
        return f'{style}<div class="cl-bench">{self.html()}</div>'

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

    def latex(self, label: str = "") -> str:
        """A floating LaTeX table in booktabs' rules; long notes stand below it by letters.

        One too wide for a column spans both; one too wide for the page is shrunk to it.
        """
        columns, notes = _lettered(self.shown)
        if not columns:
            return f"\\emph{{{_latex(self.empty)}}}\n"
        heads = [_broken(c) for c in columns]
        width = sum(2 + max(map(len, (*head, *c.cells))) for c, head in zip(columns, heads, strict=True)) - 2
        environment = "table" if width <= _COLUMN_CHARACTERS else "table*"
        fitted = width > _PAGE_CHARACTERS
        lines = [
            "% \\usepackage{booktabs}" + (" \\usepackage{graphicx}" if fitted else ""),
            f"\\begin{{{environment}}}",
            "\\centering\\footnotesize\\setlength{\\tabcolsep}{4pt}",
            f"\\caption{{{_latex(self.caption)}}}" + (f"\\label{{{label}}}" if label else ""),
            *(["\\resizebox{\\textwidth}{!}{%"] if fitted else []),
            f"\\begin{{tabular}}{{{''.join('r' if c.number else 'l' for c in columns)}}}",
            "\\toprule",
            *map(_latex_row, _stacked(heads)),
            "\\midrule",
            *(_latex_row(row) for row in zip(*(c.cells for c in columns), strict=True)),
            "\\bottomrule",
            "\\end{tabular}" + ("}" if fitted else ""),
            *(f"\\par\\smallskip {mark}: {_latex(note)}" for mark, note in notes.items()),
            f"\\end{{{environment}}}",
        ]
        return "\n".join(lines) + "\n"

    def markdown(self) -> str:
        """A Markdown table as GitHub reads it, its caption before it."""
        columns = self.shown
        if not columns:
            return f"{_markdown(self.empty)}\n"
        texts = [[_markdown(text) for text in (c.head, *c.cells)] for c in columns]
        widths = [max(3, *map(len, column)) for column in texts]
        padded = [
            [text.rjust(width) if c.number else text.ljust(width) for text in column]
            for c, column, width in zip(columns, texts, widths, strict=True)
        ]
        rule = ["-" * (w - 1) + ":" if c.number else "-" * w for c, w in zip(columns, widths, strict=True)]
        head, *rows = zip(*padded, strict=True)
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
        return "\n".join([f"**{_markdown(self.caption)}**", "", *lines]) + "\n"


_COLUMN_CHARACTERS = 56
"""What 3.3 inches hold in footnotesize, the space between two columns counted as two."""
_PAGE_CHARACTERS = 117
"""What 6.9 inches hold."""
_LONG_NOTE = 24

_LATEX = {
    "\\": r"\textbackslash{}",
    **{char: f"\\{char}" for char in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "`": r"\textasciigrave{}",
    '"': "''",
    # A row that began with one of these would be read as an option of the line break before it.
    "[": "{[}",
    "*": "{*}",
    **{char: f"${char}$" for char in "<>|+"},
    "−": "$-$",
    "×": r"$\times$",
    "÷": r"$\div$",
    "±": r"$\pm$",
    "→": r"$\to$",
    "≤": r"$\le$",
    "≥": r"$\ge$",
    "²": "$^2$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "…": r"\ldots{}",
    "“": "``",
    "”": "''",
    "‘": "`",
    "’": "'",
}
_IN_LATEX = str.maketrans(_LATEX)
_IN_MARKDOWN = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|~$&#"})


def _one_line(text: str) -> str:
    """Without line breaks and control characters, which would end a row."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _latex(text: str) -> str:
    # Two hyphens would become a dash.
    return re.sub("-(?=-)", "-{}", _one_line(text).translate(_IN_LATEX))


def _markdown(text: str) -> str:
    return _one_line(text).translate(_IN_MARKDOWN)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(map(_latex, cells)) + r" \\"


def _broken(column: Column) -> list[str]:
    """A head in lines that are no longer than the cells below, as far as words can be kept whole."""
    widest = max(map(len, (*column.cells, *column.head.split())))
    return textwrap.wrap(column.head, max(1, widest), break_long_words=False)


def _stacked(heads: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Heads of several lines as rows of a table, ending at the bottom."""
    height = max(map(len, heads))
    return list(zip(*([*[""] * (height - len(lines)), *lines] for lines in heads), strict=True))


def _lettered(columns: Sequence[Column]) -> tuple[list[Column], dict[str, str]]:
    """Columns whose long notes gave way to letters, and the notes by letter: print has no room for sentences."""
    notes: dict[str, str] = {}
    out = []
    for column in columns:
        if column.head == "note" and max(map(len, column.cells)) > _LONG_NOTE:
            different = [n for n in dict.fromkeys(column.cells) if n]
            marks = {note: _letter(i) for i, note in enumerate(different)}
            notes |= {mark: note for note, mark in marks.items()}
            column = column._replace(cells=[marks.get(n, "") for n in column.cells])
        out.append(column)
    return out, notes


def _letter(index: int) -> str:
    """a, b, … z, aa, ab, …"""
    more, last = divmod(index, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)
