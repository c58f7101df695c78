"""The key of the figures, which is also their filter: a check box with a sample of each line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from itertools import zip_longest

import pandas as pd

from analysis import figures

_SVG_DASHES = {
    "solid": "",
    "dash": "7 4",
    "dot": "2 3",
    "dashdot": "7 3 2 3",
    "longdash": "11 4",
    "longdashdot": "11 3 2 3",
}


def key(runs: pd.DataFrame) -> str:
    """Check boxes that explain hue, dash and weight, and choose what is drawn."""
    if runs.empty:
        return ""
    styles = figures.run_styles(runs)
    shapes = dict(zip(styles["method"], runs["shape"].astype(str), strict=True))
    methods = styles.drop_duplicates("method").sort_values(
        "color", key=lambda c: c != figures.BASELINE_GREY, kind="stable"
    )
    by_batch = styles.drop_duplicates("batch").sort_values("batch")
    by_rate = styles.drop_duplicates("lr").sort_values("width")
    samples = {
        "method": [_sample(color=color) for color in methods["color"]],
        "batch": [_sample(dash) for dash in by_batch["dash"]],
        "lr": [_sample(width=w, opacity=o) for w, o in zip(by_rate["width"], by_rate["opacity"], strict=True)],
    }
    return "".join(
        (
            _group("curriculum", "method", methods["method"], samples["method"], shapes),
            _group("batch", "batch", by_batch["batch"].astype(str), samples["batch"]),
            _group("LR", "lr", by_rate["lr"], samples["lr"]),
            _group("seed", "seed", [str(s) for s in sorted(styles["seed"].unique().tolist())]),
        )
    )


def _group(
    words: str,
    field: str,
    values: Iterable[str],
    samples: Sequence[str] = (),
    more: Mapping[str, str] | None = None,
) -> str:
    values = list(values)
    if len(values) < 2 and field != "method":
        return ""
    boxes = []
    for value, sample in zip_longest(values, samples, fillvalue=""):
        extra = f" <small>{escape(more[value])}</small>" if more else ""
        box = f'<input type="checkbox" checked data-field="{field}" value="{escape(value)}">'
        boxes.append(f"<label>{box}{sample}<span>{escape(value)}{extra}</span></label>")
    return f"<fieldset><legend>{words}</legend>{''.join(boxes)}</fieldset>"


def _sample(dash: str = "solid", color: str = "currentColor", width: float = 2.2, opacity: float = 1.0) -> str:
    pattern = _SVG_DASHES[dash]
    return (
        f'<svg width="30" height="8" aria-hidden="true"><line x1="0" x2="30" y1="4" y2="4" stroke="{color}" '
        f'stroke-width="{width:.1f}" stroke-opacity="{opacity:.2f}" stroke-dasharray="{pattern}"/></svg>'
    )
