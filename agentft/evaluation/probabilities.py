"""How likely a model is to make its calls and the expected ones, part by part, from one pass over them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agentft.agent import Job, replay
from agentft.evaluation.gold import oracle_answers
from agentft.models import InspectableModel, Reading
from agentft.types import Conversation, Span, Step, ToolCall, Turn

__all__ = ["CallPiece", "CallProbability", "PieceKind", "Probabilities", "measure"]

PieceKind = Literal["decision", "name", "key", "value", "stop"]
_RANK: tuple[PieceKind, ...] = ("value", "key", "name", "decision", "stop")
_ARGUMENTS = re.compile(r'"(?:parameters|arguments)"\s*:')


@dataclass(frozen=True, slots=True)
class CallPiece:
    """The probability of a part of a call, given all before it: the product over its tokens.

    `decision`: to begin a call, up to its name. `stop`: to end the reply after the last call. `argument`: of a key or a
    value.
    """

    kind: PieceKind
    argument: str
    probability: float


@dataclass(frozen=True, slots=True)
class CallProbability:
    """One call of a reply. `turn`: the user turn; `step`: index of the reply in the case; `index`: of the call in it.

    `probability`: of all tokens of the call, those between its parts included, `stop` not.
    """

    turn: int
    step: int
    index: int
    name: str
    probability: float
    pieces: tuple[CallPiece, ...]


@dataclass(frozen=True, slots=True)
class Probabilities:
    """`made`: the calls that the model made. `expected`: the first expected calls of each turn that was reached."""

    made: tuple[CallProbability, ...]
    expected: tuple[CallProbability, ...]

    def document(self) -> dict[str, Any]:
        """The JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Place:
    kind: PieceKind
    argument: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class _Asked:
    """A reply to read. `own`: the model's; else it consists of expected calls."""

    case: int
    own: bool
    turn: int
    step: int
    calls: list[ToolCall]
    conversation: Conversation
    said: Turn


def measure(cases: Sequence[tuple[Job, Sequence[Step]]], model: InspectableModel) -> list[Probabilities]:
    """Read the replies of finished cases that call, and the expected calls in their place, all in one call."""
    asked = [one for index, (job, steps) in enumerate(cases) for one in _asked(index, job, steps, model.source)]
    readings = model.read([(one.conversation, one.said) for one in asked])
    found: list[dict[bool, list[CallProbability]]] = [{True: [], False: []} for _ in cases]
    for one, reading in zip(asked, readings, strict=True):
        found[one.case][one.own] += _judged(one, reading)
    return [Probabilities(tuple(own[True]), tuple(own[False])) for own in found]


def _asked(index: int, job: Job, steps: Sequence[Step], source: str) -> Iterator[_Asked]:
    answers, reached = oracle_answers([job]), -1
    for number, (step, conversation) in enumerate(zip(steps, replay(job, steps, source), strict=True)):
        made = [part for part in step.parts if isinstance(part, ToolCall)]
        if made and step.raw:
            said = Turn("assistant", step.parts, step.raw)
            yield _Asked(index, True, step.turn, number, made, conversation, said)
        if step.turn > reached:
            reached = step.turn
            expected = [part for part in answers[f"{job.case.id}/{reached}/0"] if isinstance(part, ToolCall)]
            if expected:
                said = Turn("assistant", tuple(expected), "")
                yield _Asked(index, False, reached, number, expected, conversation, said)


def _judged(asked: _Asked, reading: Reading) -> Iterator[CallProbability]:
    """The calls of a reply; an unreadable one, or one whose name is not in the text, has none of its parts."""
    if not reading.tokens:
        return
    at = 0
    own, calls = asked.own, asked.calls
    for index, call in enumerate(calls):
        at = max(at, call.span.start) if own else at
        places = list(_places(reading.text, call, at))
        end = max((place.end for place in places), default=call.span.end if own else len(reading.text))
        if index == len(calls) - 1:
            places.append(_Place("stop", "", end, len(reading.text)))
        tokens = [token for token in reading.tokens if token.end > at and token.start < end]
        total = math.exp(sum(token.log for token in tokens))
        yield CallProbability(asked.turn, asked.step, index, call.name, total, tuple(_pieces(reading, places)))
        at = end


def _pieces(reading: Reading, places: Sequence[_Place]) -> Iterator[CallPiece]:
    """Each place with the tokens that reach into it; one that reaches into several belongs to the first of `_RANK`."""
    logs: dict[_Place, float] = {}
    ranked = sorted(places, key=lambda place: _RANK.index(place.kind))
    for token in reading.tokens:
        place = next((place for place in ranked if token.start < place.end and token.end > place.start), None)
        if place is not None:
            logs[place] = logs.get(place, 0.0) + token.log
    for place in places:
        if place in logs:
            yield CallPiece(place.kind, place.argument, math.exp(logs[place]))


def _places(text: str, call: ToolCall, at: int) -> Iterator[_Place]:
    """Where the parts of a call stand in its text; those that cannot be found are left out."""
    name = _find(text, call.name, at)
    if call.parse_error is not None or not call.name or name is None:
        return
    yield _Place("decision", "", at, name.start)
    yield _Place("name", "", name.start, name.end)
    opened = _ARGUMENTS.search(text, name.end)
    at = opened.end() if opened and call.arguments else name.end
    for argument, value in call.arguments.items():
        key = _find(text, argument, at)
        found = key and _value(text, key.end, value)
        if key is None or found is None:
            return
        yield _Place("key", argument, key.start, key.end)
        yield _Place("value", argument, found.start, found.end)
        at = found.end


def _find(text: str, word: str, at: int) -> Span | None:
    """Where a word stands as JSON, else as it is."""
    for written in (json.dumps(word, ensure_ascii=False), word):
        if (start := text.find(written, at)) >= 0:
            return Span(start, start + len(written))
    return None


def _value(text: str, at: int, value: Any) -> Span | None:
    """The JSON value after a key and its colon, else the value's text wherever it comes next."""
    start = at + len(text[at:]) - len(text[at:].lstrip(" \t\r\n:"))
    try:
        return Span(start, json.JSONDecoder().raw_decode(text, start)[1])
    except ValueError:
        return _find(text, str(value), at)
