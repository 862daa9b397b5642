"""The trend of a history as one page: a small chart a figure, its changes marked. No script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from perfkit import __version__
from perfkit.report.templates import environment

WIDTH, HEIGHT, MARGIN = 720, 160, 10


def render(title: str, figures: Sequence[Mapping[str, Any]]) -> str:
    """Return the page. A figure has `title`, `points` (value, label, moment, commit) and `shifts`
    (place, worse, words, good, bad); those that changed come first.
    """
    ordered = sorted(figures, key=lambda figure: not figure["shifts"])
    return (
        environment()
        .get_template("trend.html")
        .render(
            title=title,
            version=__version__,
            width=WIDTH,
            height=HEIGHT,
            figures=[_chart(figure) for figure in ordered],
        )
    )


def _chart(figure: Mapping[str, Any]) -> dict[str, Any]:
    points = figure["points"]
    top = max((point["value"] for point in points), default=0.0) or 1.0
    step = (WIDTH - 2 * MARGIN) / max(len(points) - 1, 1)

    def x(place: float) -> float:
        return round(MARGIN + place * step, 1)

    def y(value: float) -> float:
        return round(HEIGHT - MARGIN - value / top * (HEIGHT - 2 * MARGIN), 1)

    places = [0, *(shift["place"] for shift in figure["shifts"]), len(points)]
    return {
        **figure,
        "top": max(points, key=lambda point: point["value"])["label"] if points else "",
        "dots": [{**point, "x": x(n), "y": y(point["value"])} for n, point in enumerate(points)],
        "levels": [
            {"x1": x(start), "x2": x(end - 1), "y": y(_mean(points[start:end]))}
            for start, end in pairwise(places)
        ],
        "lines": [{**shift, "x": x(shift["place"] - 0.5)} for shift in figure["shifts"]],
    }


def _mean(points: Sequence[Mapping[str, Any]]) -> float:
    return sum(float(point["value"]) for point in points) / max(len(points), 1)
