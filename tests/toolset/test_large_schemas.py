"""Schemas of a hostile size are refused, and those just below it are checked within seconds."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError, ToolError
from agentft.metrics.validity import schema_problems
from agentft.toolset.arguments import ArgumentCheck, validator_of
from agentft.toolset.proof import BrokenPromise, prove
from agentft.types import Span, ToolCall, ToolDefinition

LIMIT = 30.0  # seconds of CPU: quadratic time would be minutes


def argument(schema: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {"a": schema}}


def consts(count: int) -> list[Any]:
    return [{"const": index} for index in range(count)]


KINDS: dict[str, Any] = {
    "enum": lambda count: argument({"enum": [*range(count)]}),
    "enum-of-objects": lambda count: argument({"enum": [{"x": index} for index in range(count // 2)]}),
    "properties": lambda count: {"type": "object", "properties": {f"p{index}": {} for index in range(count)}},
    "allOf": lambda count: {"type": "object", "allOf": [{} for _ in range(count)]},
    "oneOf": lambda count: argument({"oneOf": consts(count // 2)}),
    "type": lambda count: argument({"type": [1] * count}),
}


def checked(parameters: Any, folder: Path) -> list[BrokenPromise]:
    tool = {"name": "f", "description": "d", "access": "read", "parameters": parameters}
    (folder / "tools.json").write_text(json.dumps({"base_url": "http://x.test", "tools": [tool]}), encoding="utf-8")
    gc.disable()
    start = time.process_time()
    try:
        return prove(str(folder))
    finally:
        gc.enable()
        assert time.process_time() - start < LIMIT


@pytest.mark.parametrize("kind", KINDS)
def test_a_schema_that_is_too_large_is_refused_at_once(kind: str, tmp_path: Path) -> None:
    tracemalloc.start()
    (broken,) = checked(KINDS[kind](60_000), tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert broken.promise == "loads"
    assert "f: its schema has over 20,000 values, too many" in broken.problem
    assert "; shorten '" in broken.problem
    assert peak < 100 << 20


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "type"])
def test_a_large_schema_is_checked_within_seconds(kind: str, tmp_path: Path) -> None:
    assert checked(KINDS[kind](19_000), tmp_path) == []


def refused(parameters: dict[str, Any], arguments: dict[str, Any]) -> str:
    with pytest.raises(ToolError) as caught:
        ArgumentCheck(ToolDefinition("f", "", parameters))(arguments)
    assert len(str(caught.value)) < 300
    return str(caught.value)


def test_a_refusal_lists_some_of_many_values_and_says_how_many_there_are() -> None:
    values = [f"value-{index}" for index in range(3600)]
    everything = {key: {"enum": values[:4]} for key in values[:3000]}
    assert refused(argument({"enum": values}), {"a": "x"}).endswith('"value-9" ... (3,600 in all), not "x"')
    assert "(3,600 in all)" in refused({"type": "object", "required": values}, {})
    assert "(3,600 in all)" in refused({"properties": {"value-0": {"enum": values}}, "required": values}, {})
    assert "(3,000 in all)" in refused({"properties": everything, "additionalProperties": False}, {"x": 1})
    assert "none of 3600 alternatives" in refused(argument({"anyOf": [{"const": value} for value in values]}), {"a": 1})
    assert refused(argument({"const": "x" * 1000}), {"a": 1}).endswith("xxx..., not 1")
    tool, call = ToolDefinition("f", "", argument({"enum": values})), ToolCall("1", "f", {"a": "x"}, Span(0, 0))
    (problem,) = schema_problems(tool, call)
    assert problem.message.startswith("'x' is not one of 3,600 values: ['value-0', ")
    assert len(problem.message) == 120


@pytest.mark.parametrize(
    "parameters",
    [
        {
            "$defs": {f"d{index}": {"$anchor": f"a{index}"} for index in range(4000)},
            "properties": {f"p{index}": {"$ref": f"#a{index}"} for index in range(4000)},
        },
        {"type": "object", "required": [f"p{index}" for index in range(15_000)]},
    ],
    ids=["anchors", "required"],
)
def test_references_and_missing_arguments_are_found_in_linear_time(parameters: dict[str, Any]) -> None:
    tool = ToolDefinition("f", "", parameters)
    start = time.process_time()
    ArgumentCheck(tool)
    schema_problems(tool, ToolCall("1", "f", {f"p{index}": 1 for index in range(4000)}, Span(0, 0)))
    assert time.process_time() - start < LIMIT


@pytest.mark.parametrize("part", [{"minLength": "1"}, {"properties": []}, {"allOf": True}, {"format": {}}])
def test_a_schema_with_an_anchor_and_an_invalid_part_is_refused(part: dict[str, Any]) -> None:
    named: Any = {"properties": {"a": {"$ref": "#a"}, "b": {"$anchor": "a"}, "c": part}}
    with pytest.raises(InputError, match="its schema is not valid at /properties/c/"):
        ArgumentCheck(ToolDefinition("f", "", named))


@pytest.mark.parametrize("schema", [{"$ref": "#"}, {"if": {"$ref": "#"}}, {"not": {"anyOf": [{"$ref": "#"}]}}])
def test_a_schema_that_applies_itself_without_end_is_no_crash(schema: dict[str, Any]) -> None:
    check = ArgumentCheck(ToolDefinition("f", "", schema))
    for _ in range(2):
        with pytest.raises(ToolError, match="nested too deeply"):
            check({"a": 1})
    call = ToolCall("1", "f", {"a": 1}, Span(0, 0))
    assert "nested too deeply" in schema_problems(ToolDefinition("f", "", schema), call)[0].message
    assert validator_of({"type": "object"}).is_valid({})


def test_a_format_that_is_not_text_is_refused() -> None:
    with pytest.raises(InputError, match="its schema is not valid at /properties/a/format"):
        ArgumentCheck(ToolDefinition("f", "", argument({"format": {}})))
