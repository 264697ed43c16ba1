"""Where a stored evaluation fails, in the terminal: tools called, arguments, errors before and after."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Column, Table
from rich.text import Text

from agentft.display.safe import safe_name
from agentft.evaluation.calibration import BINS

__all__ = ["BARE", "describe_calibration", "describe_pairs", "show_diagnosis", "show_share", "worst_places"]

BARE: dict[str, Any] = {"box": None, "pad_edge": False, "header_style": "bold", "padding": (0, 2, 0, 0)}
WORST = 3
ASKING = 0.9  # one of `THRESHOLDS`


def worst_places(found: Mapping[str, Any], arm: str) -> Iterator[Text]:
    """At most two lines about an arm: the most frequent wrong tools, and the arguments that are wrong most often."""
    cells = [
        f"{cell['called']} for {cell['expected']} {count}"
        for cell in found["confusion"]
        if cell["expected"] != cell["called"] and (count := cell["counts"][arm])
    ]
    shares = [
        f"{cell['tool']}.{cell['argument']} {show_share(cell['arms'][arm])}"
        for cell in found["arguments"]
        if cell["wrong"]
    ]
    for title, texts in (("called", cells), ("arguments right", shares)):
        if texts:
            yield safe_name(f"{title}: {', '.join(texts[:WORST])}")


def describe_pairs(summary: Mapping[str, Any]) -> Iterator[str]:
    """The cases of two arms as a table of 2 x 2 in words, and for several trials pass^k and flips."""
    arms = list(summary["arms"])
    delta = (summary["metrics"].get("bfcl") or {}).get("delta") or {}
    name = "bfcl" if delta.get("table") else "exact_call"
    delta = summary["metrics"][name].get("delta") or {}
    if delta.get("table"):
        both, first, second, neither = delta["table"]
        text = f"{name}: both {both}, only {arms[0]} {first}, only {arms[1]} {second}, neither {neither}"
        if spread := delta["by_tool"]:
            low, high = spread["low"] * 100, spread["high"] * 100
            text += f"; resampled by {spread['clusters']} sets of tools {low:+.1f} to {high:+.1f} points"
        yield text
    if summary.get("forgetting"):
        yield f"forgetting: {summary['forgetting']['finding']}"
    for arm, found in summary["arms"].items():
        if trials := found.get("reliability"):
            powers = ", ".join(f"pass^{k} {show_share(figure)}" for k, figure in trials["pass_k"].items())
            yield f"{arm}: {powers}; solved in some trials only: {show_share(trials['flips'])}"


def describe_calibration(summary: Mapping[str, Any]) -> Iterator[str]:
    """For each arm with probabilities, what may run without asking, and the calibration error."""
    for arm, found in (summary.get("calibration") or {}).items():
        at = next(one for one in found["thresholds"] if one["above"] == ASKING)
        yield (
            f"{arm}: execute without asking above {ASKING:g}: {at['calls']} of {found['calls']} calls, of which "
            f"{at['wrong']} wrong (of all {found['wrong']}); calibration error {found['ece']:.3f} in {BINS} bins"
        )


def show_diagnosis(found: Mapping[str, Any], arms: Sequence[str]) -> Iterator[RenderableType]:
    """Three tables; those that would be empty are left out."""
    rows = [
        (
            "" if cell["expected"] == cell["called"] else "✗",
            cell["expected"],
            cell["called"],
            *(str(cell["counts"][arm]) for arm in arms),
        )
        for cell in found["confusion"]
    ]
    yield from _table(["", "expected", "called"], arms, [], rows)
    rows = [
        (
            f"{cell['tool']}.{cell['argument']}",
            *(show_share(cell["arms"][arm]) for arm in arms),
            "/".join(dict.fromkeys(str(cell["arms"][arm]["n"]) for arm in arms)),
            ", ".join(f"{kind} {count}" for kind, count in cell["wrong"].items()),
        )
        for cell in found["arguments"]
    ]
    yield from _table(["argument"], arms, ["n", "not right"], rows)
    rows = [(old, new, str(count)) for old, after in found["changes"].items() for new, count in after.items()]
    yield from _table([f"error of {arm}" for arm in reversed(arms)], ["runs"], [], rows)


def show_share(found: Mapping[str, Any], sign: str = "") -> str:
    """Percent with its interval."""
    if found["value"] is None:
        return "-"
    value, low, high = (found[key] * 100 for key in ("value", "low", "high"))
    return f"{value:{sign}.1f} ({low:{sign}.0f} to {high:{sign}.0f})"


def _table(
    titles: Sequence[str], numbers: Sequence[str], notes: Sequence[str], rows: Sequence[Sequence[str]]
) -> Iterator[RenderableType]:
    """An empty line and a table, if there are rows."""
    if rows:
        columns = [Column(safe_name(title)) for title in titles]
        columns += [Column(safe_name(title), justify="right") for title in numbers]
        table = Table(*columns, *(Column(safe_name(title)) for title in notes), **BARE)
        for row in rows:
            table.add_row(*map(safe_name, row))
        yield from ("", table)
