"""The curves of a run as a picture in its folder: `curves.png` if matplotlib is installed, else `curves.svg`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from html import escape
from importlib.util import find_spec
from itertools import cycle, pairwise
from pathlib import Path
from typing import Any
from warnings import catch_warnings

from agentft.files import atomic_write, write_text
from agentft.runs import RunFolder

__all__ = ["POINTS", "draw_curves", "draw_panels"]

POINTS = 600
"""A curve of more steps is drawn as the means of this many parts."""

_COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#8c564b")
_WIDTH, _HEIGHT, _LEFT, _TOP = 460, 240, 70, 60

_Curve = Sequence[tuple[float, float]]
_Panels = Mapping[str, Mapping[str, _Curve]]
"""By title, the curves of a panel by name: points `(step, value)` in order."""


def draw_curves(folder: RunFolder) -> Path | None:
    """Draw losses, learning rate and scores as far as `metrics.jsonl` has them; None if it has no step yet."""
    panels = _panels(folder.read_metrics(), folder.read_measured())
    return draw_panels(folder.path, panels) if panels else None


def draw_panels(folder: Path, panels: _Panels, across: str = "step") -> Path:
    """Draw panels into a folder. `across`: what the x axis shows."""
    title = "".join(letter if letter.isprintable() else "\ufffd" for letter in folder.name)
    if find_spec("matplotlib"):
        path = folder / "curves.png"
        # A broken matplotlib must not end the training, and a letter that its font lacks is no news.
        with suppress(Exception), catch_warnings(action="ignore"):
            _write_png(path, title, panels, across)
            return path
    path = folder / "curves.svg"
    write_text(path, _svg(title, panels))
    return path


def _panels(steps: Sequence[Mapping[str, Any]], measured: Sequence[Mapping[str, Any]]) -> _Panels:
    scores = dict.fromkeys(name for row in measured for name in row if name.startswith("eval_"))
    curves = {name: _curve(measured, name) for name in scores if not name.endswith(("_loss", "_seconds", "_cases"))}
    panels = {
        "loss": {"loss": _curve(steps, "loss"), "held-out loss": _curve(measured, "eval_loss")},
        "learning rate": {"lr": _curve(steps, "lr")},
        "tool calls": {name.removeprefix("eval_"): curve for name, curve in curves.items()},
    }
    drawn = {title: {name: curve for name, curve in lines.items() if curve} for title, lines in panels.items()}
    return {title: lines for title, lines in drawn.items() if lines}


def _curve(rows: Sequence[Mapping[str, Any]], name: str) -> _Curve:
    points = [(float(row["step"]), float(row[name])) for row in rows if name in row]
    count = min(POINTS, len(points))
    edges = [index * len(points) // max(count, 1) for index in range(count + 1)]
    return [
        (points[end - 1][0], sum(y for _, y in points[start:end]) / (end - start)) for start, end in pairwise(edges)
    ]


def _write_png(path: Path, title: str, panels: _Panels, across: str) -> None:
    from matplotlib.figure import Figure  # not pyplot, which looks for a display

    figure = Figure(figsize=(6 * len(panels), 4), layout="constrained")
    figure.suptitle(title, parse_math=False)
    for place, (name, curves) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for label, curve in curves.items():
            place.plot(*zip(*curve, strict=True), label=label, marker="." if len(curve) < 30 else None)
        place.set(title=name, xlabel=across)
        place.grid(alpha=0.3)
        place.legend()
    with atomic_write(path) as stream:
        figure.savefig(stream.buffer, format="png", dpi=120)


def _svg(title: str, panels: _Panels) -> str:
    width, height = len(panels) * (_WIDTH + _LEFT) + 30, _HEIGHT + 2 * _TOP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{_LEFT}" y="24" font-size="16">{escape(title)}</text>',
    ]
    for number, (name, curves) in enumerate(panels.items()):
        parts += [f'<g transform="translate({_LEFT + number * (_WIDTH + _LEFT)} {_TOP})" font-size="12">']
        parts += [*_panel(name, curves), "</g>"]
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(name: str, curves: Mapping[str, _Curve]) -> Iterator[str]:
    xs, ys = zip(*(point for curve in curves.values() for point in curve), strict=True)
    low, high = min(0.0, *ys), max(*ys, 1e-12)
    first, span = min(xs), max(max(xs) - min(xs), 1.0)
    yield f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="none" stroke="#999"/>'
    yield f'<text x="{_WIDTH / 2}" y="-8" text-anchor="middle">{escape(name)}</text>'
    for y, value in ((_HEIGHT, low), (12, high)):
        yield f'<text x="-6" y="{y}" text-anchor="end">{value:.3g}</text>'
    for x, step in ((0, first), (_WIDTH, max(xs))):
        yield f'<text x="{x}" y="{_HEIGHT + 16}" text-anchor="middle">{step:.0f}</text>'
    for row, (colour, (label, curve)) in enumerate(zip(cycle(_COLOURS), curves.items(), strict=False)):
        # The last point twice, and round: a single one is a dot.
        places = (((x - first) / span * _WIDTH, (high - y) / (high - low) * _HEIGHT) for x, y in (*curve, curve[-1]))
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        yield f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2" stroke-linecap="round"/>'
        yield f'<text x="{_WIDTH - 8}" y="{18 + 15 * row}" text-anchor="end" fill="{colour}">{escape(label)}</text>'
