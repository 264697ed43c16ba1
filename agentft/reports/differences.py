"""The expected calls of a case beside the calls of each arm, argument by argument. For display: it grades nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agentft.evaluation.probabilities import CallProbability
from agentft.evaluation.records import Record
from agentft.json_text import json_pointer
from agentft.types import Json, ToolCall

__all__ = ["ArgumentRow", "CallRows", "call_differences"]


@dataclass(frozen=True, slots=True)
class ArgumentRow:
    """One argument by its JSON Pointer (`""`: the name of the tool), as JSON text; None: it is not there.

    `wrong`: by arm, whether a finding of the scorer names it. `chances`: by arm, the probability of its argument (or
    name) in the arm's own call, and in the expected one; None: not measured.
    """

    pointer: str
    expected: str | None
    arms: tuple[str | None, ...]
    wrong: tuple[bool, ...]
    chances: tuple[tuple[float | None, float | None], ...] = ()


@dataclass(frozen=True, slots=True)
class CallRows:
    """A call in user turn `turn`, with the row of its tool's name first."""

    turn: int
    rows: tuple[ArgumentRow, ...]


@dataclass(slots=True)
class _Slot:
    expected: Mapping[str, Any] | None
    calls: list[ToolCall | None] = field(default_factory=list)
    number: int = 0  # of the expected call in its turn


def call_differences(expected: Sequence[Mapping[str, Any]], runs: Sequence[Record | None]) -> list[CallRows]:
    """Align the calls of each arm's run with the expected ones, turn by turn, the most similar first."""
    turns = max([len(expected), *(step.turn + 1 for run in runs if run for step in run.steps)], default=0)
    found = []
    for turn in range(turns):
        wanted = expected[turn]["calls"] if turn < len(expected) else ()
        slots = [_Slot(call, [None] * len(runs), number) for number, call in enumerate(wanted)]
        for index, run in enumerate(runs):
            steps = [step for step in run.steps if step.turn == turn] if run else []
            calls = [part for step in steps for part in step.parts if isinstance(part, ToolCall)]
            _place(slots, index, calls, len(runs))
        found += [CallRows(turn, tuple(_rows(slot, turn, runs, known=bool(expected)))) for slot in slots]
    return found


def _place(slots: list[_Slot], arm: int, calls: Sequence[ToolCall], arms: int) -> None:
    pairs = sorted(
        (-_similarity(slot, call), at, number)
        for at, slot in enumerate(slots)
        for number, call in enumerate(calls)
        if slot.expected or call.name in {other.name for other in slot.calls if other}
    )
    placed: set[int] = set()
    for _, at, number in pairs:
        if slots[at].calls[arm] is None and number not in placed:
            slots[at].calls[arm] = calls[number]
            placed.add(number)
    for number, call in enumerate(calls):
        if number not in placed:
            slots.append(_Slot(None, [call if index == arm else None for index in range(arms)]))


def _similarity(slot: _Slot, call: ToolCall) -> int:
    name, arguments = next((other.name, other.arguments) for other in (*slot.calls, call) if other)
    if slot.expected:
        name, arguments = slot.expected["name"], slot.expected["arguments"]
    return 100 * (name == call.name) + sum(call.arguments.get(key) == value for key, value in arguments.items())


def _rows(slot: _Slot, turn: int, runs: Sequence[Record | None], *, known: bool) -> Iterator[ArgumentRow]:
    name = slot.expected["name"] if slot.expected else None
    names = tuple(
        (f"unreadable: {call.parse_error}" if call.parse_error else call.name) if call else None for call in slot.calls
    )
    wrong_names = tuple(known and run is not None and found != name for run, found in zip(runs, names, strict=True))
    chances = [_chances(run, call, slot, turn) for run, call in zip(runs, slot.calls, strict=True)]
    yield ArgumentRow("", name, names, wrong_names, _at("", chances))
    accepted, shown = _expected(slot.expected or {"arguments": {}})
    whole = set((slot.expected or {}).get("alternatives", ()))
    given = [dict(_leaves(call.arguments, whole)) if call else {} for call in slot.calls]
    for pointer in dict.fromkeys([*shown, *(pointer for leaves in given for pointer in leaves)]):
        cells = tuple(leaves.get(pointer) for leaves in given)
        wrong = tuple(
            call is not None and cell not in accepted.get(pointer, ()) and _is_named(run, turn, pointer)
            for run, call, cell in zip(runs, slot.calls, cells, strict=True)
        )
        yield ArgumentRow(pointer, shown.get(pointer), cells, wrong, _at(pointer, chances))


_Chances = tuple[Mapping[str, float], Mapping[str, float]]
"""Probabilities by argument (empty: the name), in the call that an arm made and in the expected one."""


def _chances(run: Record | None, call: ToolCall | None, slot: _Slot, turn: int) -> _Chances:
    """Those of a slot's calls in one arm. Expected calls were read in one reply, so their number is their index."""
    if run is None or run.probabilities is None:
        return {}, {}
    made, expected = run.probabilities.made, run.probabilities.expected
    steps = [[part for part in step.parts if isinstance(part, ToolCall)] for step in run.steps]
    own = next((one for one in made if steps[one.step][one.index] is call), None)
    wanted = next((one for one in expected if (one.turn, one.index) == (turn, slot.number)), None)
    known = slot.expected is not None and wanted is not None and wanted.name == slot.expected["name"]
    return _by_argument(own), _by_argument(wanted if known else None)


def _by_argument(call: CallProbability | None) -> dict[str, float]:
    pieces = call.pieces if call else ()
    return {piece.argument: piece.probability for piece in pieces if piece.kind in ("name", "value")}


def _at(pointer: str, chances: Sequence[_Chances]) -> tuple[tuple[float | None, float | None], ...]:
    """The probabilities of the argument that a pointer leads into; none at all if nothing was measured."""
    keys = {json_pointer(key)[1:]: key for pair in chances for found in pair for key in found if key}
    head = pointer[1:].partition("/")[0]
    if not any(found for pair in chances for found in pair) or (pointer and head not in keys):
        return ()
    argument = keys[head] if pointer else ""
    return tuple((own.get(argument), wanted.get(argument)) for own, wanted in chances)


def _expected(call: Mapping[str, Any]) -> tuple[dict[str, set[str | None]], dict[str, str]]:
    """By pointer, the accepted JSON texts (None: may be left out), and what is shown."""
    others: Mapping[str, Any] = call.get("alternatives", {})
    accepted: dict[str, set[str | None]] = {}
    shown: dict[str, str] = {}
    for pointer, text in _leaves(call["arguments"], set(others)):
        texts = [text, *(_text(value) for value in others.get(pointer[1:], ()))]
        accepted[pointer], shown[pointer] = set(texts), " or ".join(texts)
    for pointer, text in _leaves(call.get("optional", {}), set()):
        accepted[pointer], shown[pointer] = {text, None}, f"{text} (optional)"
    return accepted, shown


def _leaves(value: Any, whole: set[str], at: str = "") -> Iterator[tuple[str, str]]:
    """The scalars and empty containers of a value by JSON Pointer; arguments named in `whole` are not taken apart."""
    items = list(value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ())
    if (not items and at) or at[1:] in whole:
        yield at, _text(value)
        return
    for key, item in items:
        yield from _leaves(item, whole, at + json_pointer(key))


def _text(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_named(run: Record | None, turn: int, pointer: str) -> bool:
    findings = run.findings if run else ()
    named = (finding.pointer for finding in findings if finding.turn == turn and finding.pointer)
    return any(f"{pointer}/".startswith(f"{other}/") or f"{other}/".startswith(f"{pointer}/") for other in named)
