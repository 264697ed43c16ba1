"""Every row is counted once, and the first rejection for each reason has a place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agentft.records import parse_row
from agentft.rows.inspection import Inspection, inspect_file
from agentft.rows.ledger import UNSUPERVISED, Ledger, Rejection
from agentft.types import Json
from tests.values import assert_immutable


@pytest.mark.parametrize(
    ("reason", "turn", "offset", "place"),
    [
        ("no-turns", None, None, "f:3"),
        ("too-deep", None, 0, "f:3: character 0"),
        ("invalid-utf8", None, 7, "f:3: byte 7"),
        ("turn-order", 0, None, "f:3: turn 0"),
        ("turn-order", 2, 7, "f:3: turn 2, character 7"),
    ],
)
def test_a_place_contains_the_known_parts(reason: str, turn: int | None, offset: int | None, place: str) -> None:
    assert Rejection(3, reason, "why", turn, offset, "raw").place(Path("f")) == place


def test_a_ledger_counts_by_reason_and_remembers_the_first() -> None:
    ledger = Ledger()
    assert (ledger.rows, ledger.kept, ledger.rejected) == (0, 0, 0)
    for line, reason in enumerate(["no-turns", "too-deep", "no-turns"], 1):
        ledger.reject(Path("f"), Rejection(line, reason, "why", None, None, ""))
    assert ledger.rejected == 3
    assert ledger.reasons == {"no-turns": 2, "too-deep": 1}
    assert ledger.first_places() == {"no-turns": "f:1: why", "too-deep": "f:2: why"}


BROKEN: dict[str, Json] = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{"}}
ANSWERED: list[Json] = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
UNREADABLE: list[Json] = [
    ANSWERED[0],
    {"role": "assistant", "content": None, "tool_calls": [BROKEN, {**BROKEN, "id": "d"}]},
]


@pytest.mark.parametrize(("more", "turn"), [({}, 1), ({"system": "You are kind."}, 1)])
def test_a_row_with_unreadable_calls_is_counted_once_with_the_turn_of_the_first(
    more: dict[str, str], turn: int
) -> None:
    ledger = Ledger()
    for line, messages in enumerate([ANSWERED, UNREADABLE, [*ANSWERED, *UNREADABLE]], 1):
        ledger.keep(Path("f"), line, parse_row({"messages": messages, **more}, "r"))
    first = ledger.first_remarks["rows_with_unreadable_calls"]
    assert (ledger.kept, first.startswith(f"f:2: turn {turn}: ")) == (3, True)
    assert ledger.notes() == [f"2 rows have an unreadable call, which is never supervised; the first: {first}"]
    assert ledger.document() == {"rows_with_unreadable_calls": 2}


def test_rows_without_a_supervised_token_are_counted_with_the_first() -> None:
    ledger = Ledger()
    ledger.remark(UNSUPERVISED, "f:4: one")
    assert ledger.notes() == ["1 row has no supervised token: not trained on; the first: f:4: one"]
    ledger.remark(UNSUPERVISED, "f:9: two")
    assert ledger.notes() == ["2 rows have no supervised token: not trained on; the first: f:4: one"]
    assert ledger.document() == {"rows_without_supervised_tokens": 2}


X: Json = {"type": "object", "properties": {"x": {}}}


def called(*names: str) -> Json:
    calls: list[Json] = [
        {"id": f"{at}{name}", "type": "function", "function": {"name": name, "arguments": '{"x": 1}'}}
        for at, name in enumerate(names)
    ]
    return {"role": "assistant", "content": None, "tool_calls": calls}


def answered(identity: str) -> Json:
    return {"role": "tool", "tool_call_id": identity, "content": "1"}


def remarks(messages: list[Json], schema: dict[str, Json] | None = None) -> dict[str, str]:
    ledger = Ledger()
    tools: list[Json] = [{"name": "a", "parameters": schema or X}, {"name": "b", "parameters": X}]
    ledger.keep(Path("f"), 7, parse_row({"messages": messages, "tools": tools}, "r"))
    assert set(ledger.remarks.values()) <= {1}
    return ledger.first_remarks


def test_calls_of_tools_that_the_row_does_not_declare_are_counted_by_row() -> None:
    assert remarks([ANSWERED[0], called("a"), answered("0a"), called("b")]) == {}
    messages = [ANSWERED[0], called("a", "c", "d"), answered("0a"), answered("1c"), answered("2d"), called("e")]
    assert remarks(messages) == {"rows_with_undeclared_calls": "f:7: turn 1: c"}


@pytest.mark.parametrize("content", ["", " \n", None])
def test_empty_replies_are_counted_by_row(content: Json) -> None:
    """The user's turns before and after it follow each other in the samples."""
    empty: Json = {"role": "assistant", "content": content}
    assert remarks([ANSWERED[0], empty, ANSWERED[0], ANSWERED[1]]) == {"rows_with_empty_replies": "f:7: turn 1"}


@pytest.mark.parametrize("thought", ["<think>So", "<think>So</think>", " <think>\n\n</think>"])
def test_replies_that_are_only_a_thought_are_counted_unless_they_go_on(thought: str) -> None:
    """An output that was cut off has no end; a thought may also be a message of its own, before a call."""
    turns: list[Json] = [ANSWERED[0], {"role": "assistant", "content": thought}]
    assert remarks(turns) == {"rows_with_empty_replies": "f:7: turn 1"}
    assert remarks([*turns, called("a"), answered("0a")]) == {}


@pytest.mark.parametrize(
    ("schema", "told"),
    [
        ({"properties": {"x": {}}, "required": ["x"]}, ""),
        ({"properties": {"y": {}}}, "a: x is not declared"),
        ({"properties": {"x": {}, "y": {}}, "required": ["x", "y"]}, "a: y is missing"),
        ({"properties": {"x": {}}, "required": "y"}, ""),
        ({"properties": {"y": {}}, "additionalProperties": True}, ""),
        ({"properties": {"y": {}}, "additionalProperties": False}, "a: x is not declared"),
        ({"properties": {"y": {}}, "patternProperties": {"x": {}}}, ""),
        ({"properties": {"y": {}}, "anyOf": [{"properties": {"x": {}}}]}, ""),
        ({"properties": {}}, "a: x is not declared"),
        ({}, "a: x is not declared"),
        ({"properties": {}, "additionalProperties": {"type": "integer"}}, ""),
        ({"properties": {"x": {"enum": [1, 2]}}}, ""),
        ({"properties": {"x": {"enum": ["1", "2"]}}}, "a: x is 1, which its enum does not list"),
        ({"properties": {"x": {"enum": None}}}, ""),
    ],
)
def test_calls_whose_arguments_do_not_fit_their_tool_are_counted_by_row(schema: dict[str, Json], told: str) -> None:
    """From ms-swift: a call with an argument that its tool does not have was learnt without a word."""
    found = remarks([ANSWERED[0], called("a"), answered("0a"), called("b")], {"type": "object", **schema})
    assert found == ({"rows_with_unfitting_arguments": f"f:7: turn 1: {told}"} if told else {})


@pytest.mark.parametrize("kind", ["array", "object", "string"])
def test_a_list_or_an_object_that_is_text_does_not_fit(kind: str) -> None:
    """As models write it whose rows were encoded twice: `"steps": "[1, 2]"`."""
    call: Json = {"function": {"name": "a", "arguments": {"steps": "[1, 2]"}}}
    schema: dict[str, Json] = {"type": "object", "properties": {"steps": {"type": kind}}}
    told = (
        {} if kind == "string" else {"rows_with_unfitting_arguments": f"f:7: turn 1: a: steps is text, not an {kind}"}
    )
    assert remarks([ANSWERED[0], {"role": "assistant", "tool_calls": [call]}], schema) == told


def test_an_enum_of_a_list_is_taken_for_that_of_its_items() -> None:
    call: Json = {"function": {"name": "a", "arguments": {"steps": ["go"]}}}
    schema: dict[str, Json] = {"type": "object", "properties": {"steps": {"type": "array", "enum": ["go", "stop"]}}}
    assert remarks([ANSWERED[0], {"role": "assistant", "tool_calls": [call]}], schema) == {}


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([called("a", "b"), answered("0a")], "2 calls, 1 result"),
        ([called("a"), called("b", "b"), answered("0a"), answered("0b"), ANSWERED[1]], "3 calls, 2 results"),
        ([called("a", "b"), answered("0a"), answered("1b")], ""),
        ([called("a", "b")], ""),  # the row ends with the calls
        ([called("a"), ANSWERED[0], called("b"), answered("0b")], ""),  # the first was never run
        ([called("a"), answered("0a"), called("a", "b"), answered("0a"), answered("1b")], ""),
    ],
)
def test_steps_with_fewer_results_than_calls_are_counted_by_row(messages: list[Json], told: str) -> None:
    """As where one `observation` of LLaMA-Factory holds the results of parallel calls."""
    found = remarks([ANSWERED[0], *messages])
    assert found == ({"rows_with_shared_results": f"f:7: {told}"} if told else {})


ANSWER: dict[str, Json] = {"role": "assistant", "content": "It is 30 degrees."}
CALLS: list[Json] = [{"id": "0a", "type": "function", "function": {"name": "a", "arguments": "{}"}}]


@pytest.mark.parametrize(
    ("messages", "turn"),
    [
        ([called("a"), ANSWER], 2),  # a recorded chat whose result was lost
        ([called("a"), answered("0a"), called("b"), ANSWER], 4),
        ([{"role": "assistant", "content": "Let me look.", "tool_calls": CALLS}], 0),
        ([called("a"), answered("0a"), ANSWER], 0),
        ([called("a"), ANSWER, answered("0a")], 0),  # the result came, after what was said while waiting
        ([called("a"), {**ANSWER, "content": " "}], 0),
    ],
)
def test_an_answer_that_follows_a_call_without_its_result_is_told(messages: list[Json], turn: int) -> None:
    """Training would teach the model to invent results."""
    found = remarks([ANSWERED[0], *messages]).get("rows_with_unfounded_answers", "")
    assert found == (f"f:7: turn {turn}: It is 30 degrees." if turn else "")


TWICE = '{"x": 1, "x": 2}'
BLOCK = f'<|startofthink|>{{"api_name": "a", "parameters": {TWICE}}}<|endofthink|>'
CALLING = json.dumps({"messages": [ANSWERED[0], called("a")], "tools": [{"name": "a"}]})
REPEATING = {
    "message": json.dumps({"messages": ANSWERED}).replace('"content": "Hi"', '"content": "Hi", "content": "Ho"'),
    "text": CALLING.replace(json.dumps('{"x": 1}'), json.dumps(TWICE)),
    "object": CALLING.replace(json.dumps('{"x": 1}'), TWICE),
    "sharegpt": json.dumps(
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "function_call", "value": f'{{"name": "a", "arguments": {TWICE}}}'},
            ]
        }
    ),
    "msagent": json.dumps({"conversations": [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": BLOCK}]}),
}


@pytest.mark.parametrize("row", REPEATING.values(), ids=REPEATING)
def test_keys_that_stand_twice_are_counted_by_row_and_named(tmp_path: Path, row: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(f"{row}\n{row}\n{json.dumps({'messages': ANSWERED})}\n")
    name = "content (repeated)" if "Ho" in row else "x (repeated)"
    inspection = inspect_file(path)
    assert (inspection.ledger.kept, inspection.ledger.unread) == (3, {name: 2})
    assert inspection.notes[0].startswith(f"2 rows have `{name}`, which is not read")


def test_a_rejection_cannot_be_changed() -> None:
    assert_immutable(Rejection(1, "no-turns", "why", None, None, ""))


def test_nothing_is_counted_before_the_first_row() -> None:
    document = Inspection().document()
    assert document.pop("reasons") == {}
    assert set(document.values()) == {0}


@pytest.mark.parametrize(
    ("names", "notes"),
    [
        (["a", "b", ""], []),
        (["a", "a", "b"], ["1 row has the id of an earlier row; rows with repeated ids are kept"]),
        (["a", "a", "a", "", ""], ["2 rows have the id of an earlier row; rows with repeated ids are kept"]),
    ],
)
def test_repeated_ids_are_counted_and_their_rows_kept(tmp_path: Path, names: list[str], notes: list[str]) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    rows = [{"messages": turns, **({"id": name} if name else {})} for name in names]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    inspection = inspect_file(path)
    assert inspection.ledger.kept == len(names)
    assert inspection.notes == notes
