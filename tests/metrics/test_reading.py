"""What metrics read from a trajectory, and text that looks like a call."""

from __future__ import annotations

import pytest

from agentft.calls import CALL_FORMATS
from agentft.metrics.reading import (
    _ALTERED,
    _INTACT,
    all_calls,
    attempted,
    exchanges,
    final_text,
    looks_like_call,
    turn_steps,
    written_text,
)
from agentft.toolserver.faults import FAULT_KINDS
from agentft.types import Span, Step, Text, ToolCall, Trajectory
from tests.metrics.tables import make_trajectory
from tests.records.test_written import WRITTEN

TWO_TURNS = make_trajectory(
    {
        "said": [
            {"turn": 0, "calls": [{"name": "ping"}]},
            {"turn": 0, "text": " Done. "},
            {"turn": 1, "calls": [{"name": "search"}, {"name": "weather"}]},
        ]
    }
)


def test_a_trajectory_is_read_by_user_turn() -> None:
    assert [len(turn_steps(TWO_TURNS, turn)) for turn in (0, 1, 2)] == [2, 1, 0]
    assert [call.name for call in all_calls(TWO_TURNS)] == ["ping", "search", "weather"]
    assert [call.name for call in all_calls(TWO_TURNS, 0)] == ["ping"]
    assert [exchange.call.name for exchange in exchanges(TWO_TURNS, 1)] == ["search", "weather"]
    assert [attempted(TWO_TURNS, turn) for turn in (0, 1, 2)] == [True, True, False]


def test_the_answer_is_the_text_of_the_last_step_if_it_does_not_call() -> None:
    assert [final_text(TWO_TURNS, turn) for turn in (0, 1, 2)] == ["Done.", "", ""]


def test_every_kind_of_fault_is_altered_or_intact_or_leaves_no_result() -> None:
    lost = ["400", "401", "404", "409", "429", "500", "502", "503", "504", "html", "reset", "timeout", "truncated"]
    assert sorted([*lost, *_ALTERED, *_INTACT]) == sorted(FAULT_KINDS)


def test_thoughts_and_calls_are_no_part_of_what_is_written() -> None:
    parts = (Text("Hm. ", Span(0, 0), thought=True), Text(" It is ", Span(0, 0)), Text("7. ", Span(0, 0)))
    call = ToolCall("c", "ping", {}, Span(0, 0))
    structured = Step(0, parts, None, "stop", ())
    assert final_text(Trajectory("c", 0, "", (structured,), "done", ""), 0) == "It is 7."
    assert written_text(structured) == " It is 7. "
    assert written_text(Step(0, (*parts, call), "as generated", "stop", ())) == " It is 7. "


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Just text about a tool call.", False),
        ("<tool_call", True),
        ("</tool_call>", True),
        ("<|startofthink|>", True),
        ("<|endofthink|>", True),
        ("<|/tool_calls", True),
        ("<FUNCTION_CALL>", True),
        ("<function=ping>", True),
        ("<functional>", False),
        ("<tool_calling>", False),
        ('"name": "x", "arguments": {}', True),
        ("'function' : x 'args':", True),
        ('"tool": 1\n"parameters": 2', True),
        ('"action": 1 "action_input": 2', True),
        ('"api_name": 1 "parameters": 2', True),
        ('"tool_name": 1 "parameters": 2', True),
        ('"parameters": {}, "api_name": "x"', True),
        ('"name": "x"', False),
        ('"arguments": {}', False),
        ("name: x, arguments: y", False),
        (f'"name":{"x" * 400}"arguments":', True),
        (f'"name":{"x" * 401}"arguments":', False),
        (f'"arguments":{"x" * 400}"name":', True),
        (f'"arguments":{"x" * 401}"name":', False),
    ],
)
def test_text_that_looks_like_a_call(text: str, expected: bool) -> None:
    assert looks_like_call(text) is expected


@pytest.mark.parametrize("name", WRITTEN)
def test_text_with_a_call_of_any_model_family_was_meant_as_a_call(name: str) -> None:
    """One table serves rows and scores; thoughts, labels of steps, and beginnings and ends of turns are no calls."""
    others = ("thought", "end", "react answer", "react 2", "agenttuning", "mini-swe-agent", "mistral prompt")
    assert looks_like_call(WRITTEN[name][0]) is not name.startswith(others)


@pytest.mark.parametrize("marker", [marker for fmt in CALL_FORMATS.values() for marker in fmt.call_markers])
def test_text_with_a_marker_of_a_call_format_was_meant_as_a_call(marker: str) -> None:
    assert looks_like_call(f"I call {marker}.")


def test_each_call_format_writes_its_markers_around_a_call() -> None:
    call = ToolCall("c", "ping", {}, Span(0, 0))
    for fmt in CALL_FORMATS.values():
        text = fmt.write_parts([call]).strip()
        assert text.startswith(fmt.call_markers[0])
        assert text.endswith(fmt.call_markers[1])
