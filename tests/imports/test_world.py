"""Imported tools have legal and unique names, and a bound on their arguments."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.imports import operations
from agentft.imports.openapi import import_openapi
from agentft.imports.traffic import import_traffic
from agentft.imports.world import ImportedWorld, unique_name
from agentft.toolset.declared import write_world
from agentft.toolset.loading import load_toolset
from agentft.toolset.references import References
from agentft.toolset.schemas import expand

LEGAL = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")


def imported(paths: Any) -> ImportedWorld:
    return import_openapi(References({"openapi": "3.0.0", "paths": paths}), "w")


def test_names_are_legal_and_unique() -> None:
    ids = ["a b", "a-b", "a_b", "A_B", "9", "x" * 70, "x" * 71, "", "日本", "../../etc", "__init__"]
    paths = {f"/{number}": {"get": {"operationId": name}} for number, name in enumerate(ids)}
    paths["/9"]["put"] = {}
    paths |= {"/p/{a}": {"get": {}}, "/p/a": {"get": {}}}
    done = imported(paths)
    tools: list[Any] = done.tools
    names = [str(tool["name"]) for tool in done.tools]
    assert len(names) == len(ids) + 3 == len({name.lower() for name in names})
    assert all(LEGAL.fullmatch(name) for name in names)
    back = {tool["name"]: (tool["route"]["method"], tool["route"]["path"]) for tool in tools}
    assert len(set(back.values())) == len(names)
    assert {tool["operation"] for tool in done.tools} >= set(ids)
    assert [tool["name"] for tool in imported(paths).tools] == names
    assert unique_name("", "x", set()) == "tool"


def test_a_tool_has_at_most_a_thousand_arguments() -> None:
    world = ImportedWorld("http://w.test")
    most: dict[str, Any] = {f"p{number}": {"type": "string"} for number in range(1000)}
    tool = {"description": "", "parameters": {"type": "object", "properties": most}}
    world.add("a", "a", tool, example={})
    most["more"] = {}
    with pytest.raises(InputError, match="more than 1,000 arguments"):
        world.add("b", "b", tool, example={})
    assert [one["name"] for one in world.tools] == ["a"]


def test_a_world_has_a_limited_size() -> None:
    made = ImportedWorld("http://a.test", limit=1000)
    tool = {"description": "d" * 900, "parameters": {"type": "object"}}
    made.add("a", "a", tool)
    made.add("b", "b", tool)
    with pytest.raises(InputError, match="split the source, and import each part"):
        made.add("c", "c", tool)


def test_a_tool_that_no_world_could_load_is_refused_alone(tmp_path: Path) -> None:
    large = {"parameters": [{"name": "kind", "in": "query", "schema": {"enum": [*range(20_001)]}}]}
    done = imported({"/a": {"get": large}, "/b": {"get": {}}})
    assert [note.place for note in done.refused] == ["#/paths/~1a/get"]
    assert done.refused[0].reason.startswith("its schema has over 20,000 values")
    write_world(tmp_path / "w", done.tools, done.base_url, "")
    assert [*load_toolset(str(tmp_path / "w")).tools] == ["get_b"]


def test_the_schema_of_results_that_no_world_could_load_is_left_out(tmp_path: Path) -> None:
    many = [{f"k{number}": number} for number in range(20_001)]
    line = {"method": "GET", "url": "http://a.test/a", "status": 200, "response": many}
    done = import_traffic(json.dumps(line).encode(), "t.jsonl", "w")
    assert [note.reason for note in done.adapted] == ["the schema of its results is ignored: it has over 20,000 values"]
    write_world(tmp_path / "w", done.tools, done.base_url, "")
    assert load_toolset(str(tmp_path / "w")).call("get_a", {}, {"seed": 0}) == many


def test_a_parameter_that_operations_share_is_read_once_and_noted_for_each(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[object] = []

    def counted(schema: Any, *others: Any) -> Any:
        read.append(schema)
        return expand(schema, *others)

    monkeypatch.setattr(operations, "expand", counted)
    shared = {"name": "q", "in": "query", "schema": {"type": "string", "unknown": 1}, "required": True}
    item = {"parameters": [shared], "get": {}, "put": {}, "post": {}}
    done = imported({"/a": item, "/b": {"get": {"parameters": [shared]}}})
    assert len(read) == 1
    assert len({str(tool["parameters"]) for tool in done.tools}) == 1
    assert [note.place for note in done.adapted] == [*["#/paths/~1a/parameters/0"] * 3, "#/paths/~1b/get/parameters/0"]
