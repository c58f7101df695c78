"""A table as a value, rendered as HTML, LaTeX or Markdown."""

from __future__ import annotations

import dataclasses
import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from analysis.page import html


class Column(NamedTuple):
    """A table column: its head (with the unit), its cells as text, and whether they are numbers."""

    head: str
    cells: Sequence[str]
    number: bool = False


@dataclasses.dataclass(frozen=True)
class Table:
    """A table whose cells are formatted text, the same in every form. `str()` is HTML, as in the page."""

    caption: str
    columns: Sequence[Column]
    empty: str
    """Shown instead of a table without rows."""

    @property
    def shown(self) -> list[Column]:
        """The columns; empty if the table has no rows."""
        return [c for c in self.columns if c.cells]

    @property
    def rows(self) -> list[tuple[str, ...]]:
        """The cells, row by row."""
        return list(zip(*(c.cells for c in self.shown), strict=True))

    def __str__(self) -> str:
        return self.html()

    def _repr_html_(self) -> str:
        """HTML for a notebook, which has no style sheet of the page to keep numbers on one line."""
        style = "<style>.cl-bench td { white-space: nowrap } .cl-bench { overflow-x: auto }</style>"
        return f'{style}<div class="cl-bench">{self.html()}</div>'

    def html(self) -> str:
        """An HTML table inside a region that scrolls sideways by itself."""
        return html.macro("table", self)

    def latex(self, label: str = "") -> str:
        """A floating LaTeX table with booktabs rules; long notes go below it, referenced by letters.

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
"""Fit into 3.3 inches in footnotesize; the space between two columns counts as two."""
_PAGE_CHARACTERS = 117
"""Fit into 6.9 inches."""
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
    """A head split into lines no longer than the cells below, without splitting words."""
    widest = max(map(len, (*column.cells, *column.head.split())))
    return textwrap.wrap(column.head, max(1, widest), break_long_words=False)


def _stacked(heads: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Heads of several lines as rows of a table, ending at the bottom."""
    height = max(map(len, heads))
    return list(zip(*([*[""] * (height - len(lines)), *lines] for lines in heads), strict=True))


def _lettered(columns: Sequence[Column]) -> tuple[list[Column], dict[str, str]]:
    """Columns with letters instead of long notes, and the notes by letter: print has no room for sentences."""
    notes: dict[str, str] = {}
    out = []
    for column in columns:
        if column.head == "note" and max(map(len, column.cells)) > _LONG_NOTE:
            distinct = [n for n in dict.fromkeys(column.cells) if n]
            marks = {note: _letter(i) for i, note in enumerate(distinct)}
            notes |= {mark: note for note, mark in marks.items()}
            column = column._replace(cells=[marks.get(n, "") for n in column.cells])
        out.append(column)
    return out, notes


def _letter(index: int) -> str:
    """Name of a note: a, b, … z, aa, ab and so on."""
    more, last = divmod(index, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)
