"""report.html: one file without network that shows an evaluation, its figures and every case.

The page holds its data as JSON: the summary, an index of the cases, and packs of case details, which the browser
inflates when a case is opened. Its script puts every text into the page as text; the content security policy allows
this script and this style only, by their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agentft.evaluation.records import Record, finite
from agentft.evaluation.statistics import smallest_difference
from agentft.metrics import ERROR_CLASSES
from agentft.reports.differences import call_differences
from agentft.reports.pairing import OUTCOMES, PairedCase, called_tools, largest_failures, pair_cases, worst_run
from agentft.types import Step, Text, ToolCall

__all__ = ["PACK", "render_page"]

PACK = 32
"""Cases in one pack of details."""

HERE = Path(__file__).parent


def render_page(
    summary: Mapping[str, Any], arms: Mapping[str, Sequence[Record]], command: str = "", following: str = ""
) -> Iterator[str]:
    """The page in pieces, the summary first, so that a browser can show it before it has read the cases.

    Args:
        summary: the content of summary.json.
        arms: the records by arm label.
        command: the command to repeat.
        following: the command for the next step.
    """
    cases = pair_cases(arms)
    style, script = ((HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
    page = (HERE / "report.html").read_text(encoding="utf-8")
    page = page.replace("{style-hash}", _hash(style)).replace("{script-hash}", _hash(script))
    head, _, rest = page.replace("{style}", style).replace("{script}", script).partition("{data}")
    middle, _, end = rest.partition("{cases}")
    yield head
    yield _json(_overview(summary, cases, list(arms), command) | {"next": following})
    yield middle
    yield f'<script type="application/json" id="index">{_json(_deflated([_entry(case) for case in cases]))}</script>\n'
    for start in range(0, len(cases), PACK):
        pack = _deflated([_details(case) for case in cases[start : start + PACK]])
        yield f'<script type="application/json" id="pack{start // PACK}">{_json(pack)}</script>\n'
    yield end


def _overview(
    summary: Mapping[str, Any], cases: Sequence[PairedCase], labels: list[str], command: str
) -> dict[str, Any]:
    compared, failures = summary["metrics"]["exact_call"], largest_failures(cases)
    n = compared["delta"]["n"] if "delta" in compared else max(compared[label]["n"] for label in labels)
    return {
        "summary": summary,
        "labels": labels,
        "command": command,
        "compared": n,
        "smallest": smallest_difference(n) if n else None,
        "outcomes": OUTCOMES,
        "counts": {name: sum(case.outcome == name for case in cases) for name in OUTCOMES},
        "classes": ERROR_CLASSES,
        "failures": [asdict(group) for group in failures[:5]],
        "failed": sum(len(group.cases) for group in failures),
        "pack": PACK,
    }


def _entry(case: PairedCase) -> dict[str, Any]:
    """A line of the index: what the list shows and what search looks at."""
    first = case.first
    replies = (record.steps[-1].raw or "" for records in case.runs for record in records if record.steps)
    return {
        "id": case.id,
        "suite": first.suite,
        "category": first.category,
        "lang": first.lang,
        "outcome": case.outcome,
        "rates": case.rates,
        "trials": [len(records) for records in case.runs],
        "errors": [(run.error if (run := worst_run(records)) else None) for records in case.runs],
        "tools": called_tools(case),
        "user": "\n".join(first.users)[:400],
        "text": "\n".join(dict.fromkeys([*first.users, *replies]))[:2000],
    }


def _details(case: PairedCase) -> dict[str, Any]:
    first = case.first
    worst = [worst_run(records) for records in case.runs]
    return {
        "users": first.users,
        "expected": first.expected,
        "calls": [
            {"turn": call.turn, "rows": [_fields(row, _ROW) for row in call.rows]}
            for call in call_differences(first.expected, worst)
        ],
        "arms": [[_run(record) for record in records] for records in case.runs],
    }


_ROW = ("pointer", "expected", "arms", "wrong", "chances")
_CALL = ("name", "arguments")
_EXCHANGE = ("method", "url", "sent", "status", "received", "is_error", "fault")
_FINDING = ("kind", "turn", "pointer", "detail")
_RUN = ("trial", "outcome", "problem", "error", "prompt")


def _run(record: Record) -> dict[str, Any]:
    """What the page shows of a record. Field by field, because `asdict` takes four times as long."""
    scores = {name: [score.value, score.reason] for name, score in record.scores.items() if score.value is not None}
    findings = [_fields(finding, _FINDING) for finding in record.findings]
    return {**_fields(record, _RUN), "findings": findings, "scores": scores, "steps": [*map(_step, record.steps)]}


def _step(step: Step) -> dict[str, Any]:
    calls = [part for part in step.parts if isinstance(part, ToolCall)]
    texts = [part.text for part in step.parts if isinstance(part, Text)] if step.raw is None else []
    return {
        "turn": step.turn,
        "completion": step.raw,
        "texts": texts,
        "finish": step.finish,
        "tokens": step.tokens,
        "calls": [
            {**_fields(call, _CALL), "parse_error": call.parse_error and str(call.parse_error)} for call in calls
        ],
        "exchanges": [_fields(exchange, _EXCHANGE) for exchange in step.exchanges],
    }


def _fields(thing: Any, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(thing, name) for name in names}


def _deflated(value: Any) -> str:
    """JSON, deflated, as base64; most of it repeats the same prompts and keys."""
    return base64.b64encode(zlib.compress(_dumps(value).encode(), 6)).decode()


def _json(value: Any) -> str:
    """JSON in ASCII that cannot end the element it stands in."""
    text = _dumps(value)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _dumps(value: Any) -> str:
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:  # a model's number such as 1e999, which is no JSON
        return json.dumps(finite(value), separators=(",", ":"), allow_nan=False)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
