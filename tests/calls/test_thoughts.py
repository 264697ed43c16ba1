"""Thoughts in an assistant's text are parts of their own."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.calls import CALL_FORMATS
from agentft.calls.thoughts import add_thought
from agentft.records import parse_row
from agentft.types import Part, Text, ToolCall

CALLS = {
    "msagent": '<|startofthink|>```JSON\n{"api_name": "w", "parameters": {}}\n```<|endofthink|>',
    "hermes": '<tool_call>\n{"name": "w", "arguments": {}}\n</tool_call>',
}


def told(parts: tuple[Part, ...]) -> list[tuple[str, str]]:
    """(kind, text) of each part."""
    names = [
        "call" if isinstance(p, ToolCall) else "thought" if isinstance(p, Text) and p.thought else "text" for p in parts
    ]
    return [(name, part.text if isinstance(part, Text) else "") for name, part in zip(names, parts, strict=True)]


@pytest.mark.parametrize("fmt", CALL_FORMATS)
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", [("thought", "Hm."), ("text", "Yes.")]),
        ("\n<think>Hm.</think>Yes.", [("thought", "Hm."), ("text", "Yes.")]),
        ("<think>\nHm.\n</think>\n\nCALL", [("thought", "Hm."), ("call", "")]),
        ("<think>Perhaps CALL?</think>No.", [("thought", "Perhaps CALL?"), ("text", "No.")]),
        ("<think>\n\n</think>\n\nYes.", [("thought", ""), ("text", "Yes.")]),
        ("<think>\nHm, cut o", [("thought", "Hm, cut o")]),
        ("<think>\nHm.CALL", [("thought", "Hm."), ("call", "")]),
        ("A <think> tag.</think>", [("text", "A <think> tag.</think>")]),
    ],
)
def test_a_block_at_the_start_is_a_thought_and_the_spans_tile(
    fmt: str, text: str, expected: list[tuple[str, str]]
) -> None:
    text = text.replace("CALL", CALLS[fmt])
    parts = CALL_FORMATS[fmt].parse(text)
    assert told(parts) == [(kind, part.replace("CALL", CALLS[fmt])) for kind, part in expected]
    assert "".join(text[part.span.start : part.span.end] for part in parts) == text


def test_a_block_after_a_result_is_a_thought() -> None:
    result = "\n\n<|startofexec|>```JSON\n{}\n```<|endofexec|>\n"
    text = f"<think>a</think>{CALLS['msagent']}{result}<think>b</think>\nSo."
    parts = CALL_FORMATS["msagent"].parse(text)
    assert [item for item in told(parts) if item[0] == "thought"] == [("thought", "a"), ("thought", "b")]
    assert told(parts)[-1] == ("text", "So.")
    assert "".join(text[part.span.start : part.span.end] for part in parts) == text


@pytest.mark.parametrize("fmt", CALL_FORMATS)
def test_a_format_parses_the_thoughts_that_it_writes(fmt: str) -> None:
    form = CALL_FORMATS[fmt]
    for text in ("<think>\nHm.\n</think>\n\nYes.", f"<think>\nHm.\n</think>\n\n{CALLS[fmt]}"):
        assert form.write_parts(form.parse(text)) == text


@pytest.mark.parametrize(
    ("text", "thought", "expected"),
    [
        ("Yes.", "", "Yes."),
        ("Yes.", " Hm. ", "<think>\nHm.\n</think>\n\nYes."),
        ("<think>Hm.</think>Yes.", "Hm.", "<think>\nHm.\n</think>\n\nYes."),
        ("<think>So.</think>Yes.", "Hm.", "<think>\nHm.\n\nSo.\n</think>\n\nYes."),
    ],
)
def test_a_thought_beside_the_text_is_put_before_it_once(text: str, thought: str, expected: str) -> None:
    assert add_thought(text, thought) == expected


@pytest.mark.parametrize(
    ("text", "thought"),
    [
        ("Hm.\n</think>\n\nYes.", "Hm."),
        ("Hm.</think>", "Hm."),
        ("\n</think>\n\nYes.", ""),
        ("Write </think> at the end.", None),
        ("Write <think>\n</think>\nfirst.", None),
        ('Look. <|startofthink|>{"api_name": "w", "parameters": {"q": "</think>\n"}}<|endofthink|>', None),
    ],
)
def test_the_end_of_a_thought_that_the_prompt_began_makes_it_one_in_rows(text: str, thought: str | None) -> None:
    rows: list[dict[str, Any]] = [{"messages": [{"role": "assistant", "content": text}]}]
    rows.append({"conversations": [{"from": "gpt", "value": text}]})
    for row in rows:
        (turn,) = parse_row(row, "x").turns
        first = turn.parts[0]
        assert isinstance(first, Text)
        assert (first.text if first.thought else None) == thought
        assert "".join(turn.raw[part.span.start : part.span.end] for part in turn.parts) == turn.raw
