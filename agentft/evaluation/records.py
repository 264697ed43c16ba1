"""`cases.jsonl`: one line for each case, with the prompt, the replies, the exchanges with the tools, and the scores.

A line is on disk once its case is finished, and no finished case is run again. Replies are kept as parts, and as text
if the model generates text, so that a newer scorer can grade a stored run again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self, TextIO

from agentft.calls import CALL_FORMATS, call_format
from agentft.errors import InputError
from agentft.evaluation.plan import Arm
from agentft.evaluation.probabilities import CallPiece, CallProbability, Probabilities
from agentft.files import atomic_write, clear_unfinished, is_at, json_of, lock_folder, naming
from agentft.metrics import SCORER_VERSION, Context, Finding, classify, decisions, score_case
from agentft.records.parts import dump_part, read_part
from agentft.strict import read_as, read_bytes
from agentft.types import Case, CaseTurn, Exchange, Json, Part, Score, Step, ToolCall, Trajectory

__all__ = [
    "Record",
    "Store",
    "case_digest",
    "dump_line",
    "finite",
    "make_record",
    "read_evaluation",
    "read_record",
    "read_records",
    "regrade",
    "stored_baseline",
]

Key = tuple[str, str, int]
"""(fingerprint of the arm, case id, trial)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One line of cases.jsonl: a case in one arm and one trial.

    `outcome`, `problem`, `prompt`, `steps` and `state` are those of the trajectory. `error` is the primary error class
    of a failed case, `findings` are all its errors. `decisions`: for each user turn (a call is expected, a call was
    made). `users`: the user turns. `expected`: by user turn, the calls and answer texts that the case expects
    (empty: written by an older version). `format` and `frame_sha256`: how the prompt was rendered (None: the model
    takes no text). `model`: the arm's name (empty: written by an older version, as is None in `conditions`, see
    `Plan.conditions`). `case_digest`: hash of the case. `fingerprint`: hash of everything that the arm's replies
    depend on. `probabilities`: those of its calls (None: not measured).
    """

    arm: str
    suite: str = ""
    case: str
    trial: int
    category: str = ""
    lang: str = ""
    outcome: str
    problem: str = ""
    error: str | None = None
    findings: tuple[Finding, ...] = ()
    scores: Mapping[str, Score] = field(default_factory=dict)
    decisions: tuple[tuple[bool, bool], ...] = ()
    scorer_version: int | None = None
    users: tuple[str, ...] = ()
    expected: tuple[Mapping[str, Any], ...] = ()
    prompt: str = ""
    steps: tuple[Step, ...]
    state: str = ""
    gold_state: str | None = None
    model: str = ""
    format: str | None = None
    frame_sha256: str | None = None
    conditions: Mapping[str, str] | None = None
    case_digest: str
    fingerprint: str
    probabilities: Probabilities | None = None

    @property
    def key(self) -> Key:
        """What identifies the record in its file."""
        return self.fingerprint, self.case, self.trial

    @property
    def trajectory(self) -> Trajectory:
        """The trajectory that the record was made from."""
        return Trajectory(self.case, self.trial, self.prompt, self.steps, self.outcome, self.state, self.problem)

    def document(self) -> dict[str, Any]:
        """The JSON object of the line; its keys are the fields, in their order."""
        row = {item.name: getattr(self, item.name) for item in fields(self)}
        if not self.model:
            del row["model"]
        del row["probabilities"]
        if self.probabilities is not None:
            row["probabilities"] = self.probabilities.document()
        return row | {
            "findings": [asdict(finding) for finding in self.findings],
            "scores": {name: asdict(score) for name, score in self.scores.items()},
            "decisions": [list(decision) for decision in self.decisions],
            "users": list(self.users),
            "expected": [dict(turn) for turn in self.expected],
            "steps": [_step_document(step) for step in self.steps],
        }


def make_record(
    case: Case,
    trajectory: Trajectory,
    context: Context,
    arm: Arm,
    *,
    fingerprint: str,
    rendering: Mapping[str, Json],
    conditions: Mapping[str, str] | None = None,
) -> Record:
    """The graded record of one case. `fingerprint`: of the arm; `rendering`: of the model (see `Model.rendering`)."""
    record = Record(
        arm=arm.label,
        suite=case.suite,
        case=case.id,
        trial=trajectory.trial,
        category=case.category,
        lang=case.lang,
        outcome=trajectory.outcome,
        problem=trajectory.problem,
        users=tuple(turn.user for turn in case.turns),
        prompt=trajectory.prompt,
        steps=trajectory.steps,
        state=trajectory.state,
        gold_state=context.gold_state,
        model=arm.name,
        format=_text(rendering.get("call_format")),
        frame_sha256=_text(rendering.get("frame_sha256")),
        conditions=conditions,
        case_digest=case_digest(case),
        fingerprint=fingerprint,
    )
    return regrade(record, case, context)


def regrade(record: Record, case: Case, context: Context) -> Record:
    """The record with what its case expects, and the scores, decisions and error classes of this scorer version.

    Raises:
        InputError: an older version read other calls in the replies, and went on with what those returned.
    """
    if (record.scorer_version or SCORER_VERSION) < SCORER_VERSION and not _reads_alike(record):
        old = f"version {record.scorer_version} of the scorer read other calls in the replies of {record.arm}"
        raise InputError(f"case {record.case}: {old}, so they cannot be compared; evaluate it again, in a new folder")
    trajectory = record.trajectory
    scores = score_case(case, trajectory, context)
    valid = trajectory.outcome != "invalid"
    findings = classify(case, trajectory, context) if valid and scores["success"].value == 0 else ()
    return replace(
        record,
        error=findings[0].kind if findings else None,
        findings=findings,
        scores=scores,
        expected=tuple(_expected(turn) for turn in case.turns),
        decisions=tuple(decisions(case, trajectory)) if valid else (),
        scorer_version=SCORER_VERSION,
    )


def case_digest(case: Case) -> str:
    """SHA-256 of what a case asks and expects; only runs of equal cases can be compared."""
    newer = ("forbidden", "history")  # than stored runs
    asked = {key: value for key, value in asdict(case).items() if value or key not in newer}
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def dump_line(record: Mapping[str, Json]) -> str:
    """One line of JSON with its newline. NaN becomes text; what writes it must escape lone surrogates."""
    return json.dumps(finite(record), ensure_ascii=False, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """A JSON value with text in place of NaN and infinities, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    return [finite(item) for item in value] if isinstance(value, list) else value


def read_record(row: object, at: str) -> Record:
    """The record of a parsed line; `at` is its place, for errors.

    Raises:
        InputError: it is not a record, or one of its values has the wrong type.
    """
    if not isinstance(row, dict) or not row.keys() >= _REQUIRED:
        raise InputError(f"{at}: it is not a line of an evaluation's cases.jsonl")
    plain = {key: value for key, value in row.items() if key not in _NESTED and value is not None}
    try:
        return read_as(
            Record,
            plain,
            at,
            steps=tuple(_read_step(step, row["format"]) for step in row["steps"]),
            findings=tuple(read_as(Finding, finding, at) for finding in row.get("findings", ())),
            scores={"success": Score(None, "")}
            | {name: _read_score(**score) for name, score in row.get("scores", {}).items()},
            decisions=tuple((expected, made) for expected, made in row.get("decisions", ())),
            expected=tuple(map(dict, row.get("expected", ()))),
            conditions=row.get("conditions") and dict(row["conditions"]),
            probabilities=_read_probabilities(row.get("probabilities")),
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise InputError(f"{at}: case {row['case']!r:.60} is damaged ({error}); run it again") from None


def stored_baseline(folder: Path) -> Path:
    """Where an evaluation keeps the records of an earlier run that it was compared with (`--baseline FILE`)."""
    return folder / "baseline.jsonl"


def read_evaluation(folder: Path) -> list[Record]:
    """The records of an evaluation folder, those of its stored baseline included.

    Raises:
        InputError: see `read_records`.
    """
    baseline = stored_baseline(folder)
    return [*read_records(folder / "cases.jsonl"), *(read_records(baseline) if baseline.exists() else ())]


def read_records(path: Path) -> Iterator[Record]:
    """The records of a file. A last line that a crash cut off is left out.

    Raises:
        InputError: the file cannot be read, or another line is not a record.
    """
    lines = read_bytes(path, "give the cases.jsonl of an evaluation").split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            # Not json_text's reader: a record keeps what a model wrote, lone surrogates included.
            row = json_of(line)
        except ValueError as error:
            if number == len(lines):
                return
            raise InputError(f"{path}:{number}: it is not JSON: {error}; remove the line") from None
        yield read_record(row, f"{path}:{number}")


class Store:
    """The finished cases in cases.jsonl of an output folder, which is created and locked. A context manager.

    Raises:
        InputError: another process uses the folder, or it holds cases of arms whose fingerprints are not in
            `fingerprints`.
    """

    def __init__(self, folder: Path, fingerprints: Collection[str]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / "cases.jsonl"
        with ExitStack() as stack:
            stack.enter_context(lock_folder(folder, "evaluated"))
            clear_unfinished(folder)
            kept = list(read_records(self.path)) if self.path.exists() else []
            if any(record.fingerprint not in fingerprints for record in kept):
                raise InputError(f"{self.path} holds another evaluation (of other settings); give another --output")
            # An invalid case says nothing about the model, so it is run again.
            self.records: dict[Key, Record] = {record.key: record for record in kept if record.outcome != "invalid"}
            self.kept = len(self.records)
            # Also rewritten if no record is kept: a new one must not continue a line that a crash cut off.
            with atomic_write(self.path) as stream:
                stream.writelines(dump_line(record.document()) for record in self.records.values())
            self._stream = stack.enter_context(_open(self.path))
            self._open = stack.pop_all()

    def add(self, record: Record) -> None:
        """Write one finished case to disk, so that it survives a crash of this process."""
        with naming(self.path):
            self._stream.write(dump_line(record.document()))
            self._stream.flush()
        if not is_at(self._stream, self.path):
            raise InputError(f"{self.path} was removed or replaced while the evaluation ran; give the command again")
        self.records[record.key] = record

    def rewrite(self, records: Iterable[Record]) -> None:
        """Replace finished cases by these records of theirs, at once."""
        self.records |= {record.key: record for record in records}
        with atomic_write(self.path) as stream:
            stream.writelines(dump_line(record.document()) for record in self.records.values())
        with _open(self.path) as stream:  # the old file has no name any more
            os.dup2(stream.fileno(), self._stream.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with naming(self.path), self._open:
            self._stream.flush()
            os.fsync(self._stream.fileno())


_REQUIRED = {"arm", "case", "trial", "outcome", "problem", "prompt", "steps", "state"}
_REQUIRED |= {"format", "case_digest", "fingerprint"}
_NESTED = {"steps", "findings", "scores", "decisions", "expected", "conditions", "probabilities"}


def _open(path: Path) -> TextIO:
    return path.open("a", encoding="utf-8", errors="backslashreplace", newline="")


def _expected(turn: CaseTurn) -> dict[str, Any]:
    calls = [{key: value for key, value in asdict(call).items() if value or key == "arguments"} for call in turn.calls]
    return {"calls": calls, "answer": list(turn.answer), "failing": turn.failing}


def _step_document(step: Step) -> dict[str, Any]:
    return {
        "turn": step.turn,
        "completion": step.raw,
        "parts": [dump_part(part) for part in step.parts],
        "finish": step.finish,
        "calls": [_call_document(part) for part in step.parts if isinstance(part, ToolCall)],
        "exchanges": [{**asdict(exchange), "call": exchange.call.id} for exchange in step.exchanges],
        "prompt_tokens": step.prompt_tokens,
        "tokens": step.tokens,
        **({} if step.response is None else {"response": step.response}),
    }


def _call_document(call: ToolCall) -> dict[str, Any]:
    fields = {key: value for key, value in asdict(call).items() if key != "span"}
    return {**fields, "parse_error": call.parse_error and str(call.parse_error)}


def _reads_alike(record: Record) -> bool:
    """Whether the calls of the replies in a call format are read as they were."""
    fmt = CALL_FORMATS.get(record.format or "")
    replies = [(step.parts, fmt.parse(step.raw)) for step in record.steps if fmt and step.raw is not None]
    return all(_calls(old) == _calls(new) for old, new in replies)


def _calls(parts: Iterable[Part]) -> list[tuple[str, bool]]:
    return [(part.name, part.parse_error is None) for part in parts if isinstance(part, ToolCall)]


def _read_score(value: float | None, reason: str) -> Score:
    return Score(None if value is None else float(value), str(reason))


def _read_step(row: dict[str, Any], fmt: str) -> Step:
    """`fmt`: the call format, to parse the completion in records of older versions, which have no parts."""
    parts = tuple(map(read_part, row["parts"])) if "parts" in row else call_format(fmt).parse(row["completion"])
    calls = [part for part in parts if isinstance(part, ToolCall)]
    pairs = zip(calls, row["exchanges"], strict=False)
    exchanges = tuple(Exchange(**{**exchange, "call": call}) for call, exchange in pairs)
    plain = {key: row[key] for key in ("turn", "finish", "prompt_tokens", "tokens")}
    return Step(**plain, raw=row["completion"], parts=parts, exchanges=exchanges, response=row.get("response"))


def _read_probabilities(found: Mapping[str, Any] | None) -> Probabilities | None:
    if found is None:
        return None
    calls = {
        kind: tuple(
            CallProbability(**{**call, "pieces": tuple(CallPiece(**piece) for piece in call["pieces"])})
            for call in found[kind]
        )
        for kind in ("made", "expected")
    }
    return Probabilities(**calls)


def _text(value: Json) -> str | None:
    return value if isinstance(value, str) else None
