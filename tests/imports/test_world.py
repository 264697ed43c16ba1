"""Imported tools have legal and unique names, and a bound on their arguments."""

from __future__ import annotations

import re
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.imports.openapi import import_openapi
from agentft.imports.world import ImportedWorld, unique_name
from agentft.toolset.references import References

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
