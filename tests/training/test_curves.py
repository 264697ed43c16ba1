"""The picture of a run's curves: as SVG without matplotlib, as PNG with it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest

from agentft.runs import RunFolder
from agentft.training import curves
from agentft.training.curves import draw_curves
from agentft.training.events import Finished, Saved
from agentft.training.watcher import Watcher


def run_of(path: Path, *lines: dict[str, Any]) -> RunFolder:
    path.mkdir()
    folder = RunFolder(path)
    for line in lines:
        folder.add_metrics(line)
    return folder


def step(number: int, loss: float) -> dict[str, Any]:
    return {"step": number, "loss": loss, "lr": 0.001}


def drawn(folder: RunFolder) -> dict[str, list[tuple[float, float]]]:
    """The points of each curve in the SVG, by label."""
    path = draw_curves(folder)
    assert path == folder.path / "curves.svg"
    root = ElementTree.fromstring(path.read_text())  # noqa: S314  (our own file)
    found = {}
    for group in root.iter("{http://www.w3.org/2000/svg}g"):
        lines = [one.get("points", "") for one in group.iter("{http://www.w3.org/2000/svg}polyline")]
        labels = [one.text or "" for one in group.iter("{http://www.w3.org/2000/svg}text") if one.get("fill")]
        for label, points in zip(labels, lines, strict=True):
            pairs = [tuple(map(float, point.split(","))) for point in points.split()]
            found[label] = [(x, y) for x, y in pairs[:-1]]
            assert pairs[-1] == pairs[-2]
    return found


@pytest.fixture
def without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda _: None)


@pytest.mark.usefixtures("without_matplotlib")
def test_the_picture_has_a_panel_for_each_kind_of_curve(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "a<b", step(1, 4.0), step(2, 2.0), step(3, 1.0))

    assert drawn(folder) == {"loss": [(0, 0), (230, 120), (460, 180)], "lr": [(0, 0), (230, 0), (460, 0)]}
    text = (folder.path / "curves.svg").read_text()
    assert "a&lt;b" in text
    assert re.findall(r'text-anchor="(?:end|middle)">([^<]*)<', text) == [
        *("loss", "0", "4", "1", "3"),
        *("learning rate", "0", "0.001", "1", "3"),
    ]


@pytest.mark.usefixtures("without_matplotlib")
def test_what_was_measured_between_the_steps_is_drawn(tmp_path: Path) -> None:
    figures = {"eval_score": 0.5, "eval_loss": 2.0, "eval_cases": 20, "eval_seconds": 3.0}
    folder = run_of(tmp_path / "run", step(1, 4.0), {"step": 1, **figures}, step(2, 4.0), {"step": 2, "eval_score": 1})

    found = drawn(folder)
    assert list(found) == ["loss", "held-out loss", "lr", "score"]
    assert found["held-out loss"] == [(0, 120)]
    assert found["score"] == [(0, 120), (460, 0)]


@pytest.mark.usefixtures("without_matplotlib")
def test_a_long_curve_is_drawn_as_means(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run")
    lines = (json.dumps(step(number, number % 2)) + "\n" for number in range(1, 2 * curves.POINTS + 1))
    folder.metrics.write_text("".join(lines))

    points = drawn(folder)["loss"]
    assert len(points) == curves.POINTS
    assert {y for _, y in points} == {0.0}, "each is the mean of 0 and 1, and the highest"
    assert points[-1][0] == 460


@pytest.mark.usefixtures("without_matplotlib")
def test_nothing_is_drawn_before_the_first_step_and_one_step_is_a_dot(tmp_path: Path) -> None:
    folder = run_of(tmp_path / "run")
    assert draw_curves(folder) is None
    folder.add_metrics(step(1, 2.0))
    assert drawn(folder)["loss"] == [(0, 0)]


def test_with_matplotlib_it_is_a_png(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    path = draw_curves(run_of(tmp_path / "run", step(1, 4.0), step(2, 2.0)))
    assert path == tmp_path / "run" / "curves.png"
    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["天气", "a\x1b]0;x\x07", "$\\frac{$"])
def test_any_name_of_a_run_is_a_title(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = run_of(tmp_path / name, step(1, 2.0))
    if importlib.util.find_spec("matplotlib"):
        assert draw_curves(folder) == folder.path / "curves.png"
    monkeypatch.setattr(curves, "find_spec", lambda _: None)
    assert set(drawn(folder)) == {"loss", "lr"}


def test_a_broken_matplotlib_leaves_the_svg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curves, "find_spec", lambda _: importlib.util.find_spec("json"))
    monkeypatch.setitem(sys.modules, "matplotlib", ModuleType("matplotlib"))
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)

    assert draw_curves(run_of(tmp_path / "run", step(1, 4.0))) == tmp_path / "run" / "curves.svg"


def test_the_training_waits_for_a_picture_every_30_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, drawn = [100.0], []
    monkeypatch.setattr("agentft.training.watcher.time.monotonic", lambda: now[0])
    monkeypatch.setattr("agentft.training.watcher.draw_curves", lambda _: drawn.append(now[0]))
    watcher = Watcher(RunFolder(tmp_path), lambda _: None)
    for now[0] in (101.0, 129.9, 130.0, 159.9, 160.0):
        watcher(Saved(tmp_path, 1))
    assert drawn == [130.0, 160.0]
    now[0] = 161.0
    watcher(Finished(cast(Any, None), ()))
    assert drawn[2:] == [161.0]
