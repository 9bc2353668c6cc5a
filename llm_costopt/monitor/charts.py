"""What a report draws: Vega-Lite charts, rendered to static SVG whose colours are the page's own variables.

No script is needed to look at them, and light or dark is for the page to say.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree as ET

from llm_costopt.errors import MissingExtraError

try:
    from vl_convert import vegalite_to_svg
except ModuleNotFoundError as missing:
    raise MissingExtraError("the report", "report") from missing

WIDE, NARROW = 500, 324
"""Pixels that a chart is drawn for: a column of a desktop page, and a phone."""

_SVG = "http://www.w3.org/2000/svg"
ET.register_namespace("", _SVG)

Spec = dict[str, Any]
Rows = Sequence[dict[str, Any]]
"""The values of a chart, one mark each; `tip` is what a pointer over it shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """One chart in both sizes."""

    wide: str
    """SVG."""
    narrow: str
    """SVG for a phone."""
    legend: tuple[tuple[str, str], ...]
    """What the colours stand for: a name, and the colour's name in the page."""


def colour(name: str) -> str:
    """Name a colour of the page: `blue`, `green`, `amber`, `violet`, `red`, `grey`, `ink`, `muted`, `line`, `card`."""
    return f"var(--{name})"


_CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "padding": 2,
    "view": {"stroke": None},
    "axis": {
        "labelColor": colour("muted"),
        "titleColor": colour("muted"),
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "gridColor": colour("line"),
        "domain": False,
        "ticks": False,
        "labelPadding": 6,
        "labelOverlap": "greedy",
        "labelSeparation": 14,  # the page's font may be wider than the one that the library measures with
    },
    "text": {"color": colour("ink"), "fontSize": 12},
    "legend": {"disable": True},
}


def cost_over_time(rows: Rows, *, pattern: str, unit: str) -> Drawing:
    """Draw what was paid (`cost`) under what it would have been (`baseline`) at each moment `t`, in milliseconds."""
    x = _time(pattern)
    title, style = f"US dollars per {unit}", _dollars(rows, "baseline")

    def spec(width: int) -> Spec:
        y = _amounts("baseline", title, style)
        paid = {"field": "cost", "type": "quantitative"}
        return _layers(
            rows,
            width,
            240,
            {"mark": _mark("area", "green", opacity=0.22), "encoding": {"x": x, "y": y, "y2": {"field": "cost"}}},
            {"mark": _mark("area", "blue", opacity=0.22), "encoding": {"x": x, "y": paid}},
            {"mark": _mark("line", "grey", strokeDash=[5, 4], strokeWidth=2), "encoding": {"x": x, "y": y}},
            {"mark": _mark("line", "blue", strokeWidth=2.5), "encoding": {"x": x, "y": paid}},
            _touch(x, "baseline"),
        )

    legend = (("paid", "blue"), ("saved", "green"), ("without us", "grey"))
    return _draw(spec, legend)


def bars(rows: Rows, *, unit: str, names: dict[str, str], room: int = 150, step: int = 34) -> Drawing:
    """Draw horizontal bars: `value` under `name`, coloured by `part`, with `label` at the end of the last part.

    *names* gives the parts and their colours. *room* is the most that a name takes, and *step* the height of a bar with
    its gap, in pixels.
    """
    order = list(dict.fromkeys(row["name"] for row in rows))
    most = max((sum(max(0, r["value"]) for r in rows if r["name"] == name) for name in order), default=0) or 1
    least = min((r["value"] for r in rows), default=0)

    def spec(width: int) -> Spec:
        limit = room if width == WIDE else round(room * 0.7)
        y = _names(order, limit)
        scale = {"domain": [min(0.0, least * 1.25), most * (1.3 if width == WIDE else 1.45)], "nice": False}
        axis = {"title": unit, "grid": False, "labels": False}
        x = {"field": "value", "type": "quantitative", "axis": axis, "scale": scale, "stack": "zero"}
        text = {"field": "total", "type": "quantitative", "axis": axis, "scale": scale}
        return _layers(
            rows,
            width,
            max(70, step * len(order) + 24),
            {"mark": _mark("bar", "blue", height={"band": 0.6}), "encoding": {"x": x, "y": y, **_parts(names)}},
            {
                "mark": {"type": "text", "align": "left", "dx": 6},
                "transform": [{"filter": "datum.label != ''"}],
                "encoding": {"x": text, "y": y, "text": {"field": "label"}},
            },
        )

    return _draw(spec, tuple(names.items()) if len(names) > 1 else ())


def shares(rows: Rows, *, names: dict[str, str]) -> Drawing:
    """Draw bars of full width that are shared out: `value` of the parts `part` under each `name`."""
    order = list(dict.fromkeys(row["name"] for row in rows))

    def spec(width: int) -> Spec:
        y = _names(order, 90)
        axis = {"title": "share of the requests", "format": ".0%", "tickCount": 5, "grid": False}
        x = {"field": "value", "type": "quantitative", "stack": "zero", "axis": axis, "scale": {"domain": [0, 1]}}
        mark = _mark("bar", "blue", height={"band": 0.62}, stroke=colour("card"), strokeWidth=1)
        encoding = {"x": x, "y": y, "order": {"field": "order"}, **_parts(names)}
        return _layers(rows, width, max(90, 46 * len(order) + 46), {"mark": mark, "encoding": encoding})

    return _draw(spec, tuple(names.items()))


def rate_over_time(rows: Rows, *, pattern: str, title: str) -> Drawing:
    """Draw a share (`value`) over time with its interval (`low`, `high`); both are null where there is too little."""
    x = _time(pattern)

    def spec(width: int) -> Spec:
        y = {**_amounts("value", title, ".0%"), "scale": {"domainMin": 0}}
        band = {"x": x, "y": {"field": "low", "type": "quantitative"}, "y2": {"field": "high"}}
        return _layers(
            rows,
            width,
            220,
            {"mark": _mark("area", "blue", opacity=0.18), "encoding": band},
            {"mark": _mark("line", "blue", strokeWidth=2.5), "encoding": {"x": x, "y": y}},
            {"mark": _mark("point", "blue", filled=True, size=26, opacity=1), "encoding": {"x": x, "y": y, **_TIP}},
        )

    return _draw(spec, (("seen", "blue"), ("95 % interval", "pale")))


def intervals(rows: Rows, *, unit: str, style: str, mark_at: float | None = None) -> Drawing:
    """Draw an estimate (`value`) with its 95 % interval (`low`, `high`) for each `name`; a dashed rule at *mark_at*."""
    order = [row["name"] for row in rows]
    ends = [row[end] for row in rows for end in ("low", "high")] + ([] if mark_at is None else [mark_at])
    room = (max(ends) - min(ends)) * 0.15 or 0.01
    scale = {"domain": [max(0.0, min(ends) - room), max(ends) + room], "nice": False, "zero": False}

    def spec(width: int) -> Spec:
        y = _names(order, 110)
        axis = {"title": unit, "format": style, "tickCount": 4 if width == NARROW else 6}
        x = {"field": "value", "type": "quantitative", "axis": axis, "scale": scale}
        low = {**x, "field": "low"}
        rule = {
            "mark": _mark("rule", "blue", strokeWidth=3, opacity=0.45),
            "encoding": {"y": y, "x": low, "x2": {"field": "high"}},
        }
        dot = {"mark": _mark("point", "blue", filled=True, size=110, opacity=1), "encoding": {"y": y, "x": x, **_TIP}}
        limit = {
            "data": {"values": [{"value": mark_at}]},
            "mark": _mark("rule", "red", strokeDash=[5, 4], strokeWidth=1.5),
            "encoding": {"x": {**x, "field": "value"}},
        }
        return _layers(rows, width, 50 * len(order) + 56, *([] if mark_at is None else [limit]), rule, dot)

    return _draw(spec, ())


def histogram(rows: Rows, *, names: dict[str, str]) -> Drawing:
    """Draw how long calls took, on a logarithmic scale: `value` of them from `low` to `high` seconds, by `part`."""
    ticks = [10.0**n for n in range(-5, 5)]

    def spec(width: int) -> Spec:
        axis = {
            "title": "time",
            "values": ticks,
            "grid": True,
            "labelExpr": "datum.value < 1 ? format(datum.value * 1000, '.1~f') + ' ms' : format(datum.value, 'd') + ' s'",
        }
        x = {"field": "low", "type": "quantitative", "scale": {"type": "log", "nice": False}, "axis": axis}
        y = {**_amounts("value", "share of its kind", ".0%"), "stack": None}
        mark = _mark("bar", "blue", opacity=0.75, stroke=colour("card"), strokeWidth=1, binSpacing=0)
        return _layers(
            rows,
            width,
            220,
            {"mark": mark, "encoding": {"x": x, "x2": {"field": "high"}, "y": y, "y2": {"datum": 0}, **_parts(names)}},
        )

    return _draw(spec, tuple(names.items()))


_TIP: Spec = {"description": {"field": "tip"}}


def _names(order: Sequence[str], limit: int) -> Spec:
    # The page's font is the reader's own, wider perhaps than the one that the library measures with.
    extent = min(limit, round(8.2 * max(map(len, order), default=0))) + 8
    axis = {"title": None, "labelColor": colour("ink"), "labelLimit": limit, "minExtent": extent, "maxExtent": extent}
    return {"field": "name", "type": "nominal", "sort": list(order), "axis": axis}


def _amounts(field: str, title: str, style: str) -> Spec:
    axis = {"title": title, "format": style, "tickCount": 5, "minExtent": 50, "titlePadding": 8}
    return {"field": field, "type": "quantitative", "axis": axis}


def _parts(names: dict[str, str]) -> Spec:
    scale = {"domain": list(names), "range": [colour(c) for c in names.values()]}
    return {"color": {"field": "part", "type": "nominal", "scale": scale}, **_TIP}


def _mark(kind: str, of: str, **options: Any) -> Spec:
    return {"type": kind, "color": colour(of), **options}


def _touch(x: Spec, field: str) -> Spec:
    """Lay something over each moment that a pointer finds easily."""
    encoding = {"x": x, "y": {"field": field, "type": "quantitative"}, **_TIP}
    return {
        "mark": {"type": "point", "filled": True, "size": 260, "opacity": 0, "color": colour("ink")},
        "encoding": encoding,
    }


def _time(pattern: str) -> Spec:
    axis = {"title": None, "format": pattern, "tickCount": 5, "grid": False, "labelFlush": False}
    return {"field": "t", "type": "temporal", "scale": {"type": "utc"}, "axis": axis}


def _dollars(rows: Rows, field: str) -> str:
    most = max((row[field] for row in rows), default=0)
    return "$,.0f" if most >= 5 else "$.2f" if most >= 0.05 else "$.2~e"


def _layers(rows: Rows, width: int, height: int, *layers: Spec) -> Spec:
    return {
        "width": width,
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "data": {"values": list(rows)},
        "layer": list(layers),
        "config": _CONFIG,
    }


def _draw(spec: Callable[[int], Spec], legend: tuple[tuple[str, str], ...]) -> Drawing:
    return Drawing(wide=_svg(spec(WIDE)), narrow=_svg(spec(NARROW)), legend=legend)


def _svg(spec: Spec) -> str:
    """Render, and leave what a page needs: tips as titles, no styles, no roles of the parts, no classes."""
    root = ET.fromstring(vegalite_to_svg(spec, vl_version="6.1"))  # noqa: S314 - what the library itself wrote  # noqa: S314 - what the library itself wrote
    for element in list(root.iter()):
        tip = element.attrib.get("aria-label") if element.attrib.get("aria-roledescription") else None
        for name in [n for n in element.attrib if n.startswith("aria-") or n in ("role", "class", "style", "version")]:
            del element.attrib[name]
        for name in element.attrib.keys() & {"d", "transform", "x1", "x2", "y1", "y2"}:
            element.set(name, re.sub(r"(\.\d\d)\d+", r"\1", element.attrib[name]))
        if tip and element is not root and element.tag != f"{{{_SVG}}}g":
            ET.SubElement(element, f"{{{_SVG}}}title").text = tip
    root.attrib |= {"aria-hidden": "true", "focusable": "false"}
    return ET.tostring(root, encoding="unicode")
