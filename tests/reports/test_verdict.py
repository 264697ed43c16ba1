"""One verdict: in JSON, on the terminal, in JUnit, HTML and Markdown, and as the exit code, over random runs.

`python -m tests.reports.test_verdict 10000` compares more of them.
"""

from __future__ import annotations

import io
import json
import random
import re
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from xml.etree import ElementTree

import pytest
from rich.console import Console

from agentft.commands.evaluate import EXIT_CODES
from agentft.display.evaluation import show_summary
from agentft.display.terminal import say
from agentft.evaluation.records import Record
from agentft.evaluation.summary import Gate, Summary, summarise
from agentft.reports.exports import render_junit, render_markdown
from agentft.reports.page import render_page
from tests.evaluation.world import small_plan
from tests.reports.samples import make_run

CHILDREN: dict[str, list[str]] = {"none": ["skipped"], "pass": [], "fail": ["failure"]}


def draw_run(draw: random.Random, plan: Any) -> tuple[Summary, dict[str, list[Record]], int]:
    """A few cases in one or two arms, some invalid, with up to three gates; and the exit code."""
    arms = {
        label: [
            make_run(case.id, draw.choice([0.0, 1.0, 1.0, 0.5, None]), arm=label, decisions=((True, True),))
            for case in plan.cases[: draw.randint(1, len(plan.cases))]
        ]
        for label in ["tuned", "base"][: draw.randint(1, 2)]
    }
    metrics = ("exact_call", "success", "call_recall")
    gates = [Gate(draw.choice(metrics), minimum=draw.random()) for _ in range(draw.randrange(3))]
    if len(arms) == 2 and draw.random() < 0.3:
        gates.append(Gate(draw.choice(metrics), margin=draw.random()))
    limit, stopped = draw.choice([0.0, 0.3, 1.0]), draw.random() < 0.1
    options: dict[str, Any] = {"ran": {}, "sampling": {"seed": 0}, "seconds": 1.0, "kept": 0}
    summary = summarise(plan, arms, gates, max_invalid=limit, interrupted=stopped, **options)
    broken = max(sum(row.outcome == "invalid" for row in rows) for rows in arms.values()) > limit * plan.runs
    return summary, arms, 130 if stopped else int(broken or not all(gate.passed for gate in summary.gates))


def verdicts(summary: Summary, arms: dict[str, list[Record]]) -> dict[str, str]:
    """What each of the outputs says."""
    document = json.loads(json.dumps(summary.document()))
    terminal = io.StringIO()
    Console(file=terminal, width=200).print(show_summary(summary))
    junit = ElementTree.fromstring(render_junit(document, arms).encode())  # noqa: S314  (our own)
    (last,) = junit.findall(".//testcase[@name='verdict']")
    (stated,) = junit.findall(".//property[@name='verdict']")
    value = str(stated.get("value"))
    kinds = [child.tag for child in last]
    page = re.search(r'"verdict":"(\w+)"', "".join(render_page(document, arms)))
    shown = re.findall(r"^verdict: (\w+)", terminal.getvalue(), re.MULTILINE)
    heading = render_markdown(document, arms, "").partition("eval: ")[2].partition(".")[0].replace("no gate", "none")
    return {
        "JSON": document["verdict"],
        "terminal": ", ".join(shown),
        "JUnit": value if kinds == CHILDREN.get(value, ["error"]) else f"{value} {kinds}",
        "HTML": page[1] if page else "",
        "Markdown": heading,
    }


def compare(count: int, folder: Path) -> Counter[str]:
    """How often each verdict occurred; fails where two outputs differ."""
    draw, plan, found = random.Random(3), small_plan(folder), Counter[str]()
    for number in range(count):
        summary, arms, code = draw_run(draw, plan)
        said = verdicts(summary, arms)
        assert len({*said.values()}) == 1, (number, said)
        assert EXIT_CODES[summary.verdict] == code, number
        found[summary.verdict] += 1
    return found


@pytest.mark.slow
def test_every_output_has_the_same_verdict(tmp_path: Path) -> None:
    assert compare(40, tmp_path).keys() == EXIT_CODES.keys()


if __name__ == "__main__":
    with TemporaryDirectory() as place:
        say(f"the same verdict in every output: {dict(compare(int(sys.argv[1]), Path(place)))}")
