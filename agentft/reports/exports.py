"""An evaluation as JUnit XML, as Markdown for a pull request, and as CSV. The verdict in each is the summary's."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from io import StringIO
from typing import Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from agentft.evaluation.records import Record
from agentft.evaluation.summary import HEADLINES
from agentft.reports.pairing import largest_failures, pair_cases

__all__ = ["render_csv", "render_junit", "render_markdown"]

_NOT_XML = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~$&])")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_FAILED = {"fail": "failure", "invalid": "error", "interrupted": "error"}


def render_junit(summary: Mapping[str, Any], arms: Mapping[str, Sequence[Record]]) -> str:
    """JUnit XML: a test case for each case and trial of the first arm, for each gate, and for the verdict."""
    label, records = next(iter(arms.items()))
    root = Element("testsuites", name="agentft eval")
    suite = SubElement(root, "testsuite", name=_clean(label))
    properties = SubElement(suite, "properties")
    for name in ("verdict", "finding"):
        SubElement(properties, "property", name=name, value=_clean(summary[name]))
    for record in records:
        name = record.case if summary["trials"] == 1 else f"{record.case} trial {record.trial}"
        case = SubElement(suite, "testcase", classname=_clean(record.category or record.suite), name=_clean(name))
        if record.outcome == "invalid":
            _add(case, "error", "invalid", record.problem)
        elif record.scores["success"].value != 1:
            finding = next((f"{one.kind} {one.pointer} {one.detail}" for one in record.findings), "not solved")
            _add(case, "failure", record.error or "failed", " ".join(finding.split()), record.scores["success"].reason)
    gates = SubElement(root, "testsuite", name="verdict")
    for gate in summary["gates"]:
        case = SubElement(gates, "testcase", classname="gates", name=_gate_name(gate))
        if not gate["passed"]:
            _add(case, "failure", "gate", gate["sentence"])
    case = SubElement(gates, "testcase", classname="verdict", name="verdict")
    if summary["verdict"] == "none":
        SubElement(case, "skipped", message="no gate is set")
    elif kind := _FAILED.get(summary["verdict"]):
        _add(case, kind, summary["verdict"], summary["finding"])
    for part in (suite, gates):
        _count(part)
    indent(root)
    return tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def render_markdown(summary: Mapping[str, Any], arms: Mapping[str, Sequence[Record]], command: str) -> str:
    """A dozen lines for a pull request: verdict, headline figures, lost and gained cases, what to fix first."""
    cases = pair_cases(arms)
    verdict = "no gate" if summary["verdict"] == "none" else summary["verdict"]
    lines = [f"**agentft eval: {_escape(verdict)}.** {_escape(summary['finding'])}", ""]
    compared = len(arms) == 2
    head = ["metric", *map(_escape, arms), *(["difference (95 %)"] if compared else []), "cases"]
    lines += [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(row)} |" for row in _rows(summary, list(arms))]
    lines.append("")
    lines += [f"- gate: {_escape(gate['sentence'])}" for gate in summary["gates"]]
    if compared:
        lost, gained = ([case.id for case in cases if case.outcome == kind] for kind in ("lost", "gained"))
        shown = _escape(", ".join(lost[:5])) + f" and {len(lost) - 5} more" * (len(lost) > 5)
        lines.append(f"- cases lost: {len(lost)}{f' ({shown})' if lost else ''}; gained: {len(gained)}")
    failures = largest_failures(cases)
    failed = sum(len(group.cases) for group in failures)
    for group in failures[:3]:
        what = _escape(" ".join(filter(None, (group.error, group.tools, group.pointer))))
        count = f"{len(group.cases)} of {failed} failures{group.regressed}"
        lines.append(f"- {what}: {count}, for example {_escape(group.cases[0])}")
    if summary["invalid"]:
        lines.append(f"- invalid cases, not caused by the model: {summary['invalid']}")
    fence = "`" * (1 + max(map(len, re.findall("`+", command)), default=0))
    shown = " ".join(_clean(command).splitlines())
    return "\n".join([*lines, "", f"<sub>{fence} {shown} {fence}</sub>", ""])


def render_csv(arms: Mapping[str, Sequence[Record]]) -> str:
    """A row for each case, arm and trial, with every score; a cell that a spreadsheet would compute begins with '."""
    metrics = list(dict.fromkeys(name for records in arms.values() for record in records for name in record.scores))
    head = ["case", "arm", "trial", "suite", "category", "lang", "outcome", "error", "pointer", "detail"]
    out = StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([*head, *metrics, "request", "reply"])
    for label, records in arms.items():
        for record in records:
            pointer, detail = next(((one.pointer, one.detail) for one in record.findings), ("", record.problem))
            texts = [record.case, label, record.trial, record.suite, record.category, record.lang, record.outcome]
            reply = record.steps[-1].raw if record.steps else ""
            values = [record.scores[name].value if name in record.scores else None for name in metrics]
            row = [*texts, record.error, pointer, detail, *values, "\n".join(record.users), reply]
            writer.writerow([_cell(value) for value in row])
    return out.getvalue()


def _rows(summary: Mapping[str, Any], labels: list[str]) -> Iterator[list[str]]:
    for name in HEADLINES:
        found = summary["metrics"][name]
        if any(found[label]["n"] for label in labels):
            values = [found[label]["value"] for label in labels]
            row = [name, *("–" if value is None else f"{value * 100:.1f}" for value in values)]
            if len(labels) == 2:
                delta = found.get("delta") or {}
                points = [f"{delta[key] * 100:+.1f}" for key in ("value", "low", "high") if delta.get(key) is not None]
                row.append("{} ({} to {})".format(*points) if points else "")
            yield [*row, "/".join(dict.fromkeys(str(found[label]["n"]) for label in labels))]


def _gate_name(gate: Mapping[str, Any]) -> str:
    if gate.get("margin") is not None:
        return f"{gate['metric']} no worse than the baseline by {gate['margin']:g}"
    return f"{gate['metric']} at least {gate['minimum']:g}"


def _add(case: Element, kind: str, type_: str, message: str, text: str = "") -> None:
    SubElement(case, kind, type=_clean(type_), message=_clean(message)).text = _clean(text)


def _count(suite: Element) -> None:
    suite.set("tests", str(len(suite.findall("testcase"))))
    for attribute, kind in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(attribute, str(len(suite.findall(f"testcase/{kind}"))))


def _clean(text: str) -> str:
    return _NOT_XML.sub("", text)


def _escape(text: str) -> str:
    """Text in which Markdown and HTML find no markup, and GitHub nobody to notify."""
    return _MARKDOWN.sub(r"\\\1", " ".join(_clean(text).split())).replace("@", "@\u200b").replace("://", ":\u200b//")


def _cell(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    text = _clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
