"""`cases.jsonl`: one line for each case with the prompt, the replies, what was sent and received, and the scores.

It is on disk once its case is finished, and no finished case is run again. Replies are kept as parts, and as text if
the model generates text, so that a newer scorer can grade a stored run again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Self

from agentft.calls import call_format
from agentft.errors import InputError
from agentft.evaluation.plan import Arm
from agentft.files import atomic_write
from agentft.metrics import SCORER_VERSION, Context, classify, decisions, score_case
from agentft.types import Case, Exchange, Json, ParseFailure, Part, Span, Step, Text, ToolCall, ToolResult, Trajectory

__all__ = ["Record", "Store", "case_digest", "dump_line", "grade", "make_record", "read_records", "read_trajectory"]

Record = dict[str, Any]
Key = tuple[str, str, int]
"""(arm's fingerprint, case id, trial)."""


def make_record(
    case: Case, trajectory: Trajectory, context: Context, arm: Arm, *, fingerprint: str, rendering: Mapping[str, Json]
) -> Record:
    """The line of one case in one arm. `fingerprint`: of the arm; `rendering`: of the model (see `Model.rendering`)."""
    return {
        "arm": arm.label,
        "suite": case.suite,
        "case": case.id,
        "trial": trajectory.trial,
        "category": case.category,
        "lang": case.lang,
        "outcome": trajectory.outcome,
        "problem": trajectory.problem,
        **grade(case, trajectory, context),
        "users": [turn.user for turn in case.turns],
        "prompt": trajectory.prompt,
        "steps": [_step(step) for step in trajectory.steps],
        "state": trajectory.state,
        "gold_state": context.gold_state,
        "format": rendering.get("call_format"),
        "frame_sha256": rendering.get("frame_sha256"),
        "case_digest": case_digest(case),
        "fingerprint": fingerprint,
    }


def grade(case: Case, trajectory: Trajectory, context: Context) -> Record:
    """The part of a record that the scorer makes: scores with reasons, decisions, error classes."""
    scores = score_case(case, trajectory, context)
    invalid = trajectory.outcome == "invalid"
    failed = not invalid and scores["success"].value == 0
    findings = [asdict(finding) for finding in classify(case, trajectory, context)] if failed else []
    return {
        "error": findings[0]["kind"] if findings else None,
        "findings": findings,
        "scores": {name: {"value": score.value, "reason": score.reason} for name, score in scores.items()},
        "decisions": [] if invalid else [list(decision) for decision in decisions(case, trajectory)],
        "scorer_version": SCORER_VERSION,
    }


def read_trajectory(record: Record) -> Trajectory:
    """The trajectory that a record was made from.

    Raises:
        InputError: the record's call format is not known, or something in it is missing.
    """
    try:
        steps = tuple(_read_step(step, record["format"]) for step in record["steps"])
    except (KeyError, TypeError) as error:
        raise InputError(f"the stored run of case {record['case']!r} is damaged ({error}); run it again") from None
    plain = {key: record[key] for key in ("trial", "prompt", "outcome", "state", "problem")}
    return Trajectory(case_id=record["case"], steps=steps, **plain)


def case_digest(case: Case) -> str:
    """SHA-256 of all that a case asks: runs of equal cases can be compared."""
    return hashlib.sha256(json.dumps(asdict(case), sort_keys=True).encode()).hexdigest()


def dump_line(record: Mapping[str, Json]) -> str:
    """One line of valid JSON in UTF-8, whatever a model wrote (no NaN, no half surrogate pair), newline included."""
    clean = _finite(dict(record))
    text = json.dumps(clean, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(clean, allow_nan=False)
    return text + "\n"


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file; a last line that a crash cut off is left out.

    Raises:
        InputError: the file cannot be read, or another line is not a record.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give the cases.jsonl of an evaluation") from None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise InputError(f"{path}:{number}: it is not JSON: {error}") from None
        if not isinstance(record, dict) or not record.keys() >= _KEYS:
            raise InputError(f"{path}:{number}: it is not a line of an evaluation's cases.jsonl")
        yield record


class Store:
    """The finished cases of an output folder, which is made if need be. A context manager, which closes the file.

    Raises:
        InputError: the folder holds cases of another evaluation: of other arms than those with these `fingerprints`.
    """

    def __init__(self, folder: Path, fingerprints: Collection[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "cases.jsonl"
        kept = list(read_records(self.path)) if self.path.exists() else []
        if any(record["fingerprint"] not in fingerprints for record in kept):
            raise InputError(
                f"{self.path} holds another evaluation (another model, suite, tools or settings); "
                "give another folder with --output, or remove that one"
            )
        # An invalid case says nothing about the model: it gets another chance.
        self.records: dict[Key, Record] = {_key(row): row for row in kept if row["outcome"] != "invalid"}
        self.kept = len(self.records)
        if kept:
            with atomic_write(self.path) as stream:
                stream.writelines(dump_line(record) for record in self.records.values())
        self._stream = self.path.open("a", encoding="utf-8", newline="")

    def add(self, record: Record) -> None:
        """Write one finished case; it outlives a crash of this process from here on."""
        self._stream.write(dump_line(record))
        self._stream.flush()
        self.records[_key(record)] = record

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()


def _key(record: Record) -> Key:
    return record["fingerprint"], record["case"], record["trial"]


_KEYS = {"arm", "case", "trial", "outcome", "problem", "prompt", "steps", "state"}
_KEYS |= {"format", "case_digest", "fingerprint"}


def _step(step: Step) -> Record:
    return {
        "turn": step.turn,
        "completion": step.raw,
        "parts": [_part(part) for part in step.parts],
        "finish": step.finish,
        "calls": [_call(part) for part in step.parts if isinstance(part, ToolCall)],
        "exchanges": [{**asdict(exchange), "call": exchange.call.id} for exchange in step.exchanges],
        "prompt_tokens": step.prompt_tokens,
        "tokens": step.tokens,
    }


def _call(call: ToolCall) -> Record:
    fields = {key: value for key, value in asdict(call).items() if key != "span"}
    return {**fields, "parse_error": call.parse_error and str(call.parse_error)}


_PARTS: dict[str, type[Text | ToolCall | ToolResult]] = {"text": Text, "call": ToolCall, "result": ToolResult}
_PART_NAMES: dict[type[Part], str] = {kind: name for name, kind in _PARTS.items()}


def _part(part: Part) -> Record:
    return {"type": _PART_NAMES[type(part)], **asdict(part), "span": [part.span.start, part.span.end]}


def _read_part(row: Record) -> Part:
    fields = {**row, "span": Span(*row["span"])}
    if failure := row.get("parse_error"):
        fields["parse_error"] = ParseFailure(**failure)
    return _PARTS[fields.pop("type")](**fields)


def _read_step(row: Record, fmt: str) -> Step:
    """`fmt`: the call format, to parse the completion in records of older versions, which have no parts."""
    parts = tuple(map(_read_part, row["parts"])) if "parts" in row else call_format(fmt).parse(row["completion"])
    calls = [part for part in parts if isinstance(part, ToolCall)]
    pairs = zip(calls, row["exchanges"], strict=False)
    exchanges = tuple(Exchange(**{**exchange, "call": call}) for call, exchange in pairs)
    plain = {key: row[key] for key in ("turn", "finish", "prompt_tokens", "tokens")}
    return Step(**plain, raw=row["completion"], parts=parts, exchanges=exchanges)


def _finite(value: Json) -> Json:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list) else value
