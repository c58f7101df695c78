"""The report's figures as plain plotly dicts: DataFrames in, ``{"data": [...], "layout": {...}}`` out.

Nothing here imports plotly: a notebook passes a dict to ``plotly.graph_objects.Figure``, the page hands the same dict
to plotly.js. Encoding, the same everywhere: hue = curriculum (grey = baseline), dash = batch size, weight and opacity =
learning rate, a final × = diverged.

Curve traces carry ``customdata`` rows of :data:`POINT_COLUMNS`, so that the horizontal axis can be switched between
tokens and time, and a hover can name a point, without a second copy of the data. :func:`printed` turns any of these
dicts into a figure for one column of a paper.
"""

from analysis.figures.curves import POINT_COLUMNS, length_schedule, training_curves, validation_curves
from analysis.figures.frontier import stability_frontier
from analysis.figures.glance import savings_glance
from analysis.figures.heatmaps import RATIO_SCALE_TOP, stability_maps
from analysis.figures.intervals import savings_intervals
from analysis.figures.joint import joint_maps
from analysis.figures.lr_response import lr_responses
from analysis.figures.over_targets import MAX_BANDS, saving_over_targets
from analysis.figures.printed import INCHES, Width, over_time, printed
from analysis.figures.probes import probe_curves, search_path
from analysis.figures.style import (
    BASELINE_GREY,
    Figure,
    TimeUnit,
    left_out,
    run_styles,
    time_unit,
)
from analysis.figures.thinning import thin_minmax
from analysis.figures.throughput import hours_spent, throughput_by_length
from analysis.figures.variance import variance_scatter

__all__ = [
    "BASELINE_GREY",
    "INCHES",
    "MAX_BANDS",
    "POINT_COLUMNS",
    "RATIO_SCALE_TOP",
    "Figure",
    "TimeUnit",
    "Width",
    "hours_spent",
    "joint_maps",
    "left_out",
    "length_schedule",
    "lr_responses",
    "over_time",
    "printed",
    "probe_curves",
    "run_styles",
    "saving_over_targets",
    "savings_glance",
    "savings_intervals",
    "search_path",
    "stability_frontier",
    "stability_maps",
    "thin_minmax",
    "throughput_by_length",
    "time_unit",
    "training_curves",
    "validation_curves",
    "variance_scatter",
]
