"""Tables in LaTeX and Markdown: the page's cells, whatever their text holds."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from analysis.page import stability_tables, tables
from analysis.tables import Column, Table
from tests.analysis.synthetic import make_report

SMALL = Table(
    "Savings, 50% & more",
    [
        Column("curriculum", ["fixed_linear", "[x]*"]),
        Column("tokens saved (%)", ["+12.3", "−4.0"], number=True),
        Column("95% interval (%)", ["+1.0 to +22.1", "≤ −2.5"], number=True),
    ],
    "Nothing yet.",
)

SMALL_LATEX = r"""% \usepackage{booktabs}
\begin{table}
\centering\footnotesize\setlength{\tabcolsep}{4pt}
\caption{Savings, 50\% \& more}\label{tab:savings}
\begin{tabular}{lrr}
\toprule
 & tokens &  \\
 & saved & 95\% interval \\
curriculum & (\%) & (\%) \\
\midrule
fixed\_linear & $+$12.3 & $+$1.0 to $+$22.1 \\
{[}x]{*} & $-$4.0 & $\le$ $-$2.5 \\
\bottomrule
\end{tabular}
\end{table}
"""

SMALL_MARKDOWN = r"""**Savings, 50% \& more**

| curriculum    | tokens saved (%) | 95% interval (%) |
| ------------- | ---------------: | ---------------: |
| fixed\_linear |            +12.3 |    +1.0 to +22.1 |
| \[x\]\*       |             −4.0 |           ≤ −2.5 |
"""


def test_a_table_in_latex_and_markdown() -> None:
    assert SMALL.latex("tab:savings") == SMALL_LATEX
    assert SMALL.markdown() == SMALL_MARKDOWN


def test_a_table_without_rows_says_so() -> None:
    nothing = Table("Savings", [Column("curriculum", []), Column("LR", [], number=True)], "No run_yet.")
    assert nothing.latex() == "\\emph{No run\\_yet.}\n"
    assert nothing.markdown() == "No run\\_yet.\n"
    assert nothing.html() == '<p class="nothing">No run_yet.</p>'


def columns_of(row: str) -> int:
    """Cells of a LaTeX row: ampersands that are no text."""
    return len(re.findall(r"(?<!\\)&", row)) + 1


def check_latex(text: str) -> None:
    """What TeX would trip over: environments, groups, maths, and the number of cells of every row."""
    assert re.findall(r"\\begin{(\w+\*?)}", text) == re.findall(r"\\end{(\w+\*?)}", text)[::-1]
    plain = re.sub(r"\\[\\{}$%&#_]", "", text)
    assert plain.count("{") == plain.count("}")
    assert plain.count("$") % 2 == 0
    spec = re.search(r"\\begin{tabular}{([lr]+)}", text)
    assert spec
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {columns_of(row) for row in rows} == {len(spec[1])}


@given(name=st.text(min_size=1, max_size=40), note=st.text(max_size=60))
def test_whatever_a_name_holds_a_row_stays_a_row(name: str, note: str) -> None:
    table = Table(
        name,
        [Column("curriculum", [name, "b"]), Column("LR", ["2e-3", "8e-3"], True), Column("note", [note, note])],
        "",
    )
    text = table.latex()
    check_latex(text)
    assert len([line for line in text.splitlines() if line.endswith(r"\\")]) == 3
    lines = table.markdown().splitlines()
    assert len(lines) == 6
    assert {len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines[2:]} == {4}


def test_commands_in_a_name_are_text() -> None:
    table = Table("c", [Column("curriculum", [r"\input{/etc/passwd} $x^2$ a--b"])], "")
    row = r"\textbackslash{}input\{/etc/passwd\} \$x\textasciicircum{}2\$ a-{}-b \\"
    assert row in table.latex().splitlines()


def test_long_notes_stand_below_by_letters() -> None:
    long, longer = "the baseline never reached the target", "the baseline is not finished (RUNNING)"
    table = Table("c", [Column("LR", ["1", "2", "3", "4"], True), Column("note", [long, "", longer, long])], "")
    lines = table.latex().splitlines()
    assert [line for line in lines if line.endswith(r"\\")][1:] == [r"1 & a \\", r"2 &  \\", r"3 & b \\", r"4 & a \\"]
    assert lines[-3:-1] == [rf"\par\smallskip a: {long}", rf"\par\smallskip b: {longer}"]
    assert long in table.markdown()


def test_every_table_of_the_page_has_all_forms() -> None:
    report = make_report()
    cells = report.verdict["cells"]
    for table in (
        tables.cells_table(cells),
        tables.deepest_table(cells),
        tables.crossings_table(cells),
        stability_tables.stability_table(report.stability),
    ):
        text = table.latex()
        check_latex(text)
        assert len(table.rows) >= 3
        assert len(table.markdown().splitlines()) == len(table.rows) + 4
        assert str(table) == table.html()


def test_width_of_a_table_chooses_its_environment() -> None:
    narrow, wide, widest = (
        Table("c", [Column(f"h{i}", ["12345678"]) for i in range(n)], "").latex() for n in (5, 10, 20)
    )
    assert "\\begin{table}" in narrow
    assert "\\begin{table*}" in wide
    assert "resizebox" not in wide
    assert "\\resizebox{\\textwidth}{!}{%" in widest
    check_latex(widest)
