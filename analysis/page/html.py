"""HTML from Jinja2 templates, and the self-contained document that carries it, the figures and plotly.js."""

from __future__ import annotations

import base64
import functools
import hashlib
import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from analysis.figures import Figure


@functools.cache
def _environment() -> Environment:
    """Templates in assets/, everything escaped; `kit` holds the macros of kit.html.jinja."""
    loader = PackageLoader("analysis.page", "assets")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals["kit"] = environment.get_template("kit.html.jinja").module
    return environment


def macro(name: str, *arguments: object) -> str:
    """HTML of a macro of kit.html.jinja."""
    return str(getattr(_environment().globals["kit"], name)(*arguments))


def render(template: str, **values: object) -> str:
    """HTML of a template."""
    return _environment().get_template(template).render(values)


def document(template: str, payload: Mapping[str, object], **values: object) -> str:
    """A page as one HTML file without an address of another host; `payload` is what page.js draws.

    The content-security policy allows exactly the two scripts written here, so text that comes from run names or logs
    cannot run even if an escape were forgotten.
    """
    plotly_js, page_js = _plotly_js(), _asset("page.js")
    return render(
        template,
        csp=_content_security_policy(plotly_js, page_js),
        css=_asset("style.css"),
        payload=script_json(payload),
        plotly_js=plotly_js,
        page_js=page_js,
        **values,
    )


def script_json(value: object) -> str:
    """JSON that is safe between script tags: no tag or comment can begin in it; NaN is refused."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def compact(figures: Mapping[str, Figure]) -> dict[str, object]:
    """Figures as page.js reads them, each setting that all traces of a figure share written once."""
    return {name: _shared_once(_without_x(figure)) for name, figure in figures.items()}


def _shared_once(figure: Figure) -> Mapping[str, object]:
    """Move what all traces have in common into ``shared``: with 200 runs it is a tenth of the page."""
    traces = figure["data"]
    shared = (
        {k: v for k, v in traces[0].items() if all(k in t and t[k] == v for t in traces)} if len(traces) > 1 else {}
    )
    return {**figure, "data": [{k: v for k, v in t.items() if k not in shared} for t in traces], "shared": shared}


def _without_x(figure: Figure) -> Figure:
    """Drop what the page makes itself: ``x`` is a column of customdata, and the target line and the key are its own."""
    if "axes" not in figure["layout"].get("meta", {}):
        return figure
    layout: dict[str, Any] = {k: v for k, v in figure["layout"].items() if k not in ("annotations", "legend")}
    layout["shapes"] = [shape for shape in layout.get("shapes", []) if shape.get("name") != "target"]
    lines = [t for t in figure["data"] if "meta" in t]
    return {
        "data": [{k: v for k, v in t.items() if k not in ("x", "name")} for t in lines],
        "layout": layout | {"showlegend": False},
    }


@functools.cache
def _asset(name: str) -> str:
    return (files("analysis.page") / "assets" / name).read_text(encoding="utf-8")


@functools.cache
def _plotly_js() -> str:
    from plotly.offline import get_plotlyjs  # a second to import, and only a page needs it

    return str(get_plotlyjs()).replace("\r\n", "\n")


@functools.cache
def _hash(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _content_security_policy(*scripts: str) -> str:
    allowed = " ".join(f"'sha256-{_hash(script)}'" for script in scripts)
    # plotly.js styles its elements inline and saves images through data and blob addresses.
    return f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:"
