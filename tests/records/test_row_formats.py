"""The table of row formats: which format reads a row, and how one is added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import ROW_FORMATS, RowFormat, parse_row
from agentft.records.tools import read_tools
from agentft.types import Json, Span, Text, ToolDefinition, Turn
from tests.records.rows import fixture


@pytest.mark.parametrize("name", ROW_FORMATS)
def test_every_fixture_is_recognised_as_its_own_format(name: str) -> None:
    assert {parse_row(row, "x").source for row in fixture(name).values()} == {name}


def test_one_line_in_the_table_adds_a_format(monkeypatch: pytest.MonkeyPatch) -> None:
    def parse(items: Sequence[Json]) -> tuple[list[Turn], tuple[ToolDefinition, ...]]:
        texts = [str(item) for item in items]
        return [Turn("assistant", (Text(text, Span(0, len(text))),), text) for text in texts], ()

    monkeypatch.setitem(ROW_FORMATS, "lines", RowFormat(("lines",), lambda key, _: key == "lines", parse))
    conversation = parse_row({"lines": ["hello", "there"]}, "x")
    assert (conversation.source, [turn.raw for turn in conversation.turns]) == ("lines", ["hello", "there"])
    with pytest.raises(RowError, match="neither `conversations` nor `messages` nor `lines`; its keys are words"):
        parse_row({"words": []}, "x")


def test_turns_that_no_format_recognises_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    blind = replace(ROW_FORMATS["msagent"], holds=lambda *_: False)
    monkeypatch.setitem(ROW_FORMATS, "msagent", blind)  # it keeps its place in the table
    with pytest.raises(
        RowError, match="the turns of `conversations` have none of the formats sharegpt, tagged, m"
    ) as refused:
        parse_row({"conversations": [{"from": "user", "value": "hello"}]}, "x")
    assert refused.value.reason == "unknown-format"


def test_equal_tools_of_rows_are_one_object_and_different_ones_are_not() -> None:
    def tools(**more: object) -> tuple[ToolDefinition, ...]:
        parameters: Any = {"type": "object", "properties": {"a": {"default": more.get("default", 1)}}}
        tool: Any = {"name": "f", "description": more.get("text", "d"), "parameters": parameters}
        return read_tools({"tools": [{"name": "g"}, tool]})

    assert tools()[1] is tools()[1]
    for other in (tools(default=True), tools(default=1.0), tools(default="1"), tools(text="e")):
        assert other[1] is not tools()[1]
    long = "x" * 5_000
    assert tools(text=long)[1] == tools(text=long)[1]
    assert tools(text=long)[1] is not tools(text=long)[1], "the cache stays small"
    assert [repr(tools(default=value)[1].parameters["properties"]) for value in (1, True, 1.0)] == [
        f"{{'a': {{'default': {value}}}}}" for value in ("1", "True", "1.0")
    ]
