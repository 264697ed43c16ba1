"""Schemas of a hostile size are refused, and those just below it are checked within seconds."""

from __future__ import annotations

import gc
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.metrics.validity import schema_problems
from agentft.toolset.arguments import ArgumentCheck
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


def test_thousands_of_missing_arguments_are_scored_in_linear_time() -> None:
    names: list[Any] = [f"p{index}" for index in range(15_000)]
    tool = ToolDefinition("f", "", {"type": "object", "required": names})
    start = time.process_time()
    problems = schema_problems(tool, ToolCall("1", "f", {"p0": 1}, Span(0, 0)))
    assert time.process_time() - start < LIMIT
    assert {problem.pointer for problem in problems} == {f"/{name}" for name in names[1:]}


def test_a_format_that_is_not_text_is_refused() -> None:
    with pytest.raises(InputError, match="its schema is not valid at /properties/a/format"):
        ArgumentCheck(ToolDefinition("f", "", argument({"format": {}})))
