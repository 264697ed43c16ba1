"""report.html: its data, its policy, and texts that stay texts."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import zlib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from agentft.evaluation.records import Record
from agentft.evaluation.summary import Gate
from agentft.metrics import Finding
from agentft.reports.page import PACK, render_page
from agentft.types import ToolCall
from tests.reports.samples import HOSTILE, arms_of, make_call, make_run, summary_of


class Page(HTMLParser):
    """The elements of a page with their attributes, and the texts of its scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, str] = {}
        self._open = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._open = dict(attrs).get("id") or tag

    def handle_data(self, data: str) -> None:
        if self._open:
            self.texts[self._open] = self.texts.get(self._open, "") + data

    def handle_endtag(self, tag: str) -> None:
        self._open = ""

    def inflated(self, name: str) -> Any:
        return json.loads(zlib.decompress(base64.b64decode(json.loads(self.texts[name]))))


def hostile_arms() -> dict[str, list[Record]]:
    """Two arms whose every text is hostile."""
    call = replace(make_call(HOSTILE), arguments={HOSTILE: [HOSTILE, float("inf")]}, endpoint=HOSTILE)
    broken = make_call(HOSTILE, HOSTILE)
    fields: dict[str, Any] = {
        "text": HOSTILE,
        "suite": HOSTILE,
        "category": HOSTILE,
        "lang": HOSTILE,
        "problem": HOSTILE,
        "error": HOSTILE,
        "findings": (Finding(HOSTILE, 0, HOSTILE, HOSTILE),),
        "users": (HOSTILE,),
        "expected": ({"calls": [{"name": HOSTILE, "arguments": {HOSTILE: HOSTILE}}], "answer": [HOSTILE]},),
        "prompt": HOSTILE,
        "state": HOSTILE,
        "format": HOSTILE,
        "frame_sha256": HOSTILE,
    }
    calls: tuple[ToolCall, ...] = (call, broken)
    return {
        HOSTILE: [make_run(f"{n}{HOSTILE}", n % 2, *calls, arm=HOSTILE, **fields) for n in range(3)],
        f"2{HOSTILE}": [make_run(f"{n}{HOSTILE}", 0, *calls, **fields) for n in range(3)],
    }


def page_of(arms: dict[str, list[Record]], folder: Path, *gates: Gate, command: str = "") -> tuple[str, Page]:
    text = "".join(render_page(summary_of(arms, folder, *gates), arms, command))
    return text, Page(text)


def test_the_page_holds_the_summary_and_every_case(tmp_path: Path) -> None:
    values: dict[str, float | None] = {f"c{n}": 1.0 for n in range(PACK + 3)}
    arms = arms_of({**values, "c0": 0.0}, values)
    _, page = page_of(arms, tmp_path, Gate("exact_call", 0.5), command="agentft eval shopping")
    data = json.loads(page.texts["data"])
    assert data["summary"] == json.loads(json.dumps(summary_of(arms, tmp_path, Gate("exact_call", 0.5))))
    assert data["command"] == "agentft eval shopping"
    assert data["counts"]["lost"] == 1
    assert data["failures"][0]["cases"] == ["c0"]
    index = page.inflated("index")
    assert len(index) == PACK + 3
    assert (index[0]["id"], index[0]["outcome"], index[0]["rates"]) == ("c0", "lost", [0.0, 1.0])
    details = [*page.inflated("pack0"), *page.inflated("pack1")]
    assert len(details) == len(index)
    run = details[0]["arms"][0][0]
    assert run["steps"][0]["completion"] == "done"
    assert run["steps"][0]["texts"] == []
    assert run["scores"]["success"] == [0.0, "a reason"]


def test_structured_replies_show_their_text_and_calls(tmp_path: Path) -> None:
    run = make_run("a", 1, make_call("price", item="tea"))
    run = replace(run, steps=tuple(replace(step, raw=None) for step in run.steps))
    _, page = page_of({"tuned": [run]}, tmp_path)
    step = page.inflated("pack0")[0]["arms"][0][0]["steps"][0]
    assert (step["completion"], step["texts"], step["calls"][0]["name"]) == (None, ["done"], "price")


def test_only_the_scripts_and_styles_of_the_page_may_run(tmp_path: Path) -> None:
    text, page = page_of(arms_of({"a": 1.0}, {"a": 0.0}), tmp_path)
    policy = next(attrs["content"] for _, attrs in page.elements if "Content-Security-Policy" in attrs.values()) or ""
    for kind in ("script", "style"):
        digest = base64.b64encode(hashlib.sha256(page.texts[kind].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    assert not {"src", "href", "onload", "onclick", "style"} & {name for _, attrs in page.elements for name in attrs}
    assert not re.search(r"https?://(?!shop\.test)", text)


def test_hostile_texts_add_no_element_and_stay_whole(tmp_path: Path) -> None:
    arms = hostile_arms()
    _, page = page_of(arms, tmp_path, command=HOSTILE)
    _, plain = page_of(arms_of({f"c{n}": 1.0 for n in range(3)}, {}), tmp_path)
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in plain.elements]
    assert all(part.isascii() for name, part in page.texts.items() if name not in {"script", "style"})
    data = json.loads(page.texts["data"])
    assert data["labels"] == [HOSTILE, f"2{HOSTILE}"]
    assert data["command"] == HOSTILE
    run = page.inflated("pack0")[0]["arms"][0][0]
    assert run["prompt"] == HOSTILE
    assert run["steps"][0]["calls"][0]["arguments"] == {HOSTILE: [HOSTILE, "inf"]}


def test_the_script_makes_no_markup() -> None:
    script = (Path(__file__).parents[2] / "agentft" / "reports" / "report.js").read_text(encoding="utf-8")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|\.href|\.src\b|\bfetch\(", script)
