from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.calls.msagent import INSTRUCTION, MSAGENT
from agentft.errors import RowError
from agentft.json_text import UnreadableError
from agentft.records.declarations import parse_system
from agentft.records.tools import read_parameters
from agentft.types import Declarations, Json, Text, ToolDefinition
from tests.records.rows import fixture

ROWS = fixture("msagent")


def system(name: str) -> str:
    value = ROWS[name]["conversations"][0]["value"]
    assert isinstance(value, str)
    return value


def pieces(text: str) -> list[tuple[str, str]]:
    """Kinds and texts of the parts; checks that their spans tile the text."""
    parts, _ = parse_system(text)
    assert "".join(text[part.span.start : part.span.end] for part in parts) == text
    return [(type(part).__name__, text[part.span.start : part.span.end]) for part in parts]


def block(name: str, **more: Json) -> str:
    return json.dumps({"name": name, "description": f"It is {name}", **more}, ensure_ascii=False)


def test_shape_a() -> None:
    text = system("canonical")
    kinds = pieces(text)
    assert kinds[0] == ("Text", "你是达摩院的语音助手，可以调用插件。")
    assert kinds[1][0] == "Declarations"
    assert kinds[1][1].startswith('1. {"plugin_name"')
    assert len(kinds) == 2
    weather, speech = parse_system(text)[1]
    assert weather == ToolDefinition(
        "city_weather",
        "查询某个城市的天气",
        {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "城市名"},
                "days": {"type": "string", "description": "天数"},
            },
            "required": ["city"],
        },
        ("http://weather.test/v1/city_weather",),
    )
    assert speech.endpoints == ("http://speech.test/tts/read",)


def test_shape_b_with_text_after_it() -> None:
    kinds = pieces(system("shape-b"))
    assert [kind for kind, _ in kinds] == ["Text", "Declarations", "Text"]
    assert kinds[0][1] == "You may use the following tools:\n\n"
    assert kinds[2][1] == "\n\nAnswer briefly."
    tools = parse_system(system("shape-b"))[1]
    assert [tool.name for tool in tools] == ["read_aloud", "city_weather"]
    assert tools[0].parameters["properties"] == {
        "text": {"type": "string", "description": "The text"},
        "gender": {"type": "string", "description": "Voice", "enum": ["man", "woman"]},
    }


@pytest.mark.parametrize("name", ["missing-url", "shape-c-surplus-inside", "shape-c-missing-end"])
def test_shape_c_with_unbalanced_brackets(name: str) -> None:
    text = system(name)
    assert [kind for kind, _ in pieces(text)] == ["Text", "Declarations"]
    (tool,) = parse_system(text)[1]
    assert (tool.name, tool.description, tool.endpoints) == ("find_recipe", "Find a recipe", ())
    assert tool.parameters == {
        "type": "object",
        "properties": {
            "dish": {"type": "string", "description": "The dish"},
            "servings": {"type": "integer", "description": "How many"},
        },
        "required": ["dish"],
    }


def test_shape_e_has_no_tools() -> None:
    for text in ("You are a friend.", 'Answer as JSON, like {"mood": "good"} or {x}.', "A { brace", "", "{}"):
        assert parse_system(text) == ((Text(text, parse_system(text)[0][0].span),) if text else (), ())


def test_one_tool_at_several_urls_is_one_tool() -> None:
    (tool,) = parse_system(system("same-tool-three-urls"))[1]
    assert tool.endpoints == (
        "http://weather.test/v1/city_weather",
        "http://10.1.2.3:5000/v1/city_weather",
        "http://10.1.2.4:5000/v1/city_weather",
    )


def test_tools_with_one_name_and_different_parameters_stay_separate() -> None:
    text = block("f", parameters=[{"name": "x"}]) + "\n\n" + block("f", parameters=[{"name": "y"}])
    assert [list(tool.parameters["properties"]) for tool in parse_system(text)[1]] == [["x"], ["y"]]  # type: ignore[arg-type]


def test_urls_and_paths_join_with_one_slash() -> None:
    for url, path, joined in [
        ("http://a.test/", "/f", "http://a.test/f"),
        ("http://a.test", "f/", "http://a.test/f/"),
        ("http://a.test/api", "", "http://a.test/api"),
        ("", "/f", ""),
    ]:
        (tool,) = parse_system(block("f", url=url, paths=[{"name": "f", "model_id": path}]))[1]
        assert tool.endpoints == ((joined,) if joined else ())


def test_written_declarations_parse_back() -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {"city": {"type": "string", "description": "名"}, "days": {"type": "integer", "description": ""}},
        "required": ["city"],
    }
    tools = [
        ToolDefinition("one", "First", schema, ("http://a.test/one", "http://b.test/x/one")),
        ToolDefinition("two", "Second", schema, ()),
    ]
    text = MSAGENT.write_system("Be kind.", tools)
    parts, read = parse_system(text)
    assert list(read) == tools
    assert [type(part) for part in parts] == [Text, Declarations]
    assert text[parts[1].span.start :].startswith(INSTRUCTION)
    assert parse_system(MSAGENT.write_system("", tools))[0][0].span.start == 0


def test_lists_numbers_literals_and_nested_text() -> None:
    for text in (
        "Use [" + block("f") + ", " + block("g") + "] now",
        "Use 1、" + block("f") + "\n2) " + block("g"),
        "Use {'name': 'f', 'description': 'It is f'}\n\n{'name': 'g', 'description': 'It is g'}",
        "Use " + json.dumps({"plugin_name": "p", "plugin_schema_for_model": block("f")}) + block("g"),
    ):
        assert [tool.name for tool in parse_system(text)[1]] == ["f", "g"]
        assert pieces(text)[0] == ("Text", "Use ")


@pytest.mark.parametrize(
    "text",
    [
        '{"name": "f", "description": "x", "parameters": [{"name": "y", oops}]}',
        '{"name": "f", "description": "x", "parameters": [{"description": "no name"}]}',
        '{"name": "f", "description": "x", "parameters": 7}',
        '{"name": "f", "description": "x", "paths": ["y"]}',
        '{"name": "", "description": "x"}',
        '{"plugin_name": "f", "plugin_schema_for_model": 7}',
        '{"plugin_name": "f", "plugin_schema_for_model": "oops"}',
    ],
)
def test_an_unreadable_declaration_rejects_the_row(text: str) -> None:
    with pytest.raises(RowError) as caught:
        parse_system("Persona. " + text)
    assert (caught.value.reason, caught.value.offset) == ("unreadable-tools", 9)


def test_long_system_texts_are_parsed_too() -> None:
    assert [tool.name for tool in parse_system("x" * 30_000 + block("f"))[1]] == ["f"]


@pytest.mark.parametrize(
    ("value", "properties", "required"),
    [
        (None, {}, []),
        ("", {}, []),
        ([], {}, []),
        ("[{'name': 'x', 'required': True}]", {"x": {"type": "string"}}, ["x"]),
        ([{"name": "x", "required": "False", "type": "str"}], {"x": {"type": "string"}}, []),
        ([{"name": "x", "required": "TRUE", "type": "Float"}], {"x": {"type": "number"}}, ["x"]),
        ([{"name": "x", "type": "date"}, "y"], {"x": {"type": "string"}, "y": {"type": "string"}}, []),
        ([{"name": "x", "type": ["string", "null"]}], {"x": {"type": ["string", "null"]}}, []),
        ([{"name": "x", "items": {}}], {"x": {"type": "array", "items": {}}}, []),
        ({"x": {"type": "int", "required": True}}, {"x": {"type": "integer"}}, ["x"]),
        (
            {"x": {"type": "int, optional"}, "y": {"type": "List[str]"}},
            {"x": {"type": "integer"}, "y": {"type": "array"}},
            [],
        ),
        ({"type": {"type": "str"}, "anyone": {}}, {"type": {"type": "string"}, "anyone": {"type": "string"}}, []),
        (
            {"properties": {"type": "str", "description": "x"}},
            {"properties": {"type": "string", "description": "x"}},
            [],
        ),
        ({"x": "a word"}, {"x": {"type": "string", "description": "a word"}}, []),
        (
            [{"name": "x", "properties": {"y": {}}, "required": ["y"]}],
            {"x": {"type": "object", "properties": {"y": {}}, "required": ["y"]}},
            [],
        ),
    ],
)
def test_parameters(value: Json, properties: dict[str, Any], required: list[str]) -> None:
    assert read_parameters(value) == {"type": "object", "properties": properties, "required": required}


def test_a_json_schema_is_kept() -> None:
    schema: dict[str, Json] = {
        "type": "object",
        "properties": {"x": {"type": "integer"}},
        "additionalProperties": False,
    }
    assert read_parameters(schema) == schema
    roots: Any = ({"$ref": "#/$defs/A", "$defs": {"A": {}}}, {"anyOf": [{}]}, {"type": "OBJECT"}, {"type": "dict"})
    for root in roots:
        assert read_parameters(root) == {"type": "object", "properties": {}, **root}, "its keys are no parameters"
    with pytest.raises(UnreadableError, match="must be those of an object, not of a schema of type array"):
        read_parameters({"type": "array", "items": {"type": "string"}})
    assert read_parameters({"properties": {}, "required": []}) == {"type": "object", "properties": {}, "required": []}


parts_of_systems = st.sampled_from(
    [
        "Persona. ",
        block("f"),
        block("g", parameters=[]),
        "1. ",
        "\n\n",
        "]}",
        "{",
        '{"name": "',
        '"',
        "}",
        "'",
        INSTRUCTION,
    ]
)


@given(st.lists(parts_of_systems, max_size=10).map("".join))
def test_spans_tile_any_mixture_or_it_is_rejected_with_an_offset(text: str) -> None:
    try:
        pieces(text)
    except RowError as error:
        rejected = error
    else:
        return
    assert rejected.offset is not None
    assert text[rejected.offset] == "{"
