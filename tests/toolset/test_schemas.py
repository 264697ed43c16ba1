"""Foreign schemas become plain, bounded, valid JSON Schemas without references."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentft.errors import InputError
from agentft.toolset import schemas
from agentft.toolset.arguments import TYPES
from agentft.toolset.references import References
from agentft.toolset.schemas import Schema, expand, merge, plain_line


def expanded(schema: Any, hidden: Any = "", **definitions: Any) -> Schema:
    root = {"$defs": definitions, "schema": schema}
    made = expand(schema, References(root), hidden=hidden)
    Draft202012Validator.check_schema(made)
    assert '"$ref"' not in json.dumps(made)
    return made


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (True, {}),
        (False, {"not": {}}),
        ({"type": "file"}, {"type": "string"}),
        ({"type": "nonsense", "format": 3}, {}),
        ({"type": ["string", "null"]}, {"type": ["string", "null"]}),
        ({"type": "string", "nullable": True}, {"type": ["string", "null"]}),
        ({"type": "string", "x-nullable": True, "enum": ["a"]}, {"type": ["string", "null"], "enum": ["a", None]}),
        ({"oneOf": [{"minimum": 1}], "nullable": True}, {"anyOf": [{"oneOf": [{"minimum": 1}]}, {"type": "null"}]}),
        ({"minimum": 1, "exclusiveMinimum": True}, {"exclusiveMinimum": 1}),
        ({"minimum": 1, "exclusiveMinimum": False}, {"minimum": 1}),
        ({"minLength": "1", "maxLength": -1, "multipleOf": 0, "maxItems": 1.5}, {}),
        ({"required": True}, {}),
        ({"type": "object", "required": ["a", "a", 1]}, {"type": "object", "required": ["a"]}),
        ({"example": "x", "default": 0}, {"examples": ["x"], "default": 0}),
        ({"pattern": r"^\p{Nothing}+$"}, {}),
        ({"pattern": "[a"}, {}),
        ({"pattern": "^a+$"}, {"pattern": "^a+$"}),
        ({"type": "integer", "enum": ["1", 2]}, {"type": "integer", "enum": [2]}),
        ({"type": "integer", "enum": ["1", "2"]}, {"enum": ["1", "2"]}),
        ({"enum": ["a", "b", "a", 1, True, 1]}, {"enum": ["a", "b", 1, True]}),
        ({"type": "array", "items": {"type": "int"}}, {"type": "array", "items": {"type": "integer"}}),
        (
            {"patternProperties": {"a": {}, "\\p{L}(": {}}, "additionalProperties": False},
            {"patternProperties": {"a": {}}},
        ),
    ],
)
def test_keywords_unknown_to_json_schema_are_converted_or_dropped(schema: Any, wanted: Schema) -> None:
    assert expanded(schema) == wanted


def test_all_of_is_one_schema_with_the_tighter_bounds() -> None:
    made = expanded(
        {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"age": {"maximum": 9}}, "required": ["age"]}]},
        Base={"type": "object", "properties": {"age": {"type": "integer", "maximum": 20}}, "required": ["id"]},
    )
    assert made == {
        "type": "object",
        "properties": {"age": {"type": "integer", "maximum": 9}},
        "required": ["id", "age"],
    }


def test_keywords_that_cannot_be_merged_stay_in_an_all_of() -> None:
    assert merge([{"pattern": "a"}, {"pattern": "b"}]) == {"pattern": "a", "allOf": [{"pattern": "b"}]}
    assert merge([{"type": "string"}, {"type": "object"}]) == {"type": "string", "allOf": [{"type": "object"}]}
    assert merge([{"type": ["integer", "null"]}, {"type": "number"}])["type"] == "integer"


def test_a_cycle_is_cut_where_it_closes() -> None:
    node = {"type": "object", "properties": {"next": {"$ref": "#/$defs/Node"}}}
    assert expanded({"$ref": "#/$defs/Node"}, Node=node) == {"type": "object", "properties": {"next": {}}}
    assert expanded({"$ref": "#/$defs/A"}, A={"allOf": [{"$ref": "#/$defs/A"}]}) == {}


@pytest.mark.slow
def test_a_schema_that_grows_exponentially_stays_small() -> None:
    """Twenty levels, each with two references to the next: a million schemas when written out."""
    levels: dict[str, Any] = {
        f"L{n}": {"properties": {side: {"$ref": f"#/$defs/L{n + 1}"} for side in "ab"}} for n in range(20)
    }
    made = expanded({"$ref": "#/$defs/L0"}, **levels, L20={"type": "string"})
    assert 100 < len(json.dumps(made)) < 40_000
    wide = {"properties": {f"p{n}": {"type": "string"} for n in range(5000)}}
    assert expanded(wide)["properties"]["p0"] == {"type": "string"}
    deep: dict[str, Any] = {}
    for _ in range(200):
        deep = {"type": "array", "items": deep}
    assert json.dumps(expanded(deep)).count("array") <= 41


def test_properties_of_the_other_direction_are_hidden() -> None:
    schema = {"properties": {"id": {"readOnly": True}, "name": {}}, "required": ["id", "name"]}
    assert expanded(schema, "readOnly") == {"properties": {"name": {}}, "required": ["name"]}
    assert "id" in expanded(schema, "writeOnly")["properties"]


def test_keywords_beside_a_reference_apply() -> None:
    made = expanded({"$ref": "#/$defs/S", "description": "Mine", "nullable": True}, S={"type": "string"})
    assert made["description"] == "Mine"
    assert Draft202012Validator(made).is_valid("x")


@pytest.mark.parametrize("reference", ["#/$defs/Gone", "other.json", "http://x.test/a.json#/b", "file:///etc/passwd"])
def test_a_reference_without_a_target_is_refused(reference: str) -> None:
    with pytest.raises(InputError, match="the reference"):
        expanded({"properties": {"a": {"$ref": reference}}})


def test_descriptions_are_one_clean_line() -> None:
    assert plain_line("<p>One\n\x1b[31m two</p>\t three") == "One [31m two three"
    assert len(plain_line("x" * 1000)) == 300
    assert plain_line({"not": "text"}) == ""


def test_types_of_values() -> None:
    assert [TYPES["integer"](True), TYPES["integer"](1.0), TYPES["number"](1), TYPES["null"](None)] == [
        False,
        True,
        True,
        True,
    ]


def test_a_large_schema_that_many_refer_to_is_expanded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    large: Any = {"properties": {f"p{number}": {"type": "string"} for number in range(900)}}
    references = References({"S": large})
    walks = 0

    def counted(*arguments: Any) -> Any:
        nonlocal walks
        walks += 1
        return walk(*arguments)

    walk = schemas._walk
    monkeypatch.setattr(schemas, "_walk", counted)
    short: Any = {"type": "object", "properties": {"a": {"$ref": "#/S"}}}
    first, second = expand(short, references), expand(dict(short), references)
    assert walks == 1
    assert first == second
    references.cut.clear()
    assert expand(short, references) is first
    assert references.cut == {"#/S"}, "what is left out is told each time"
    expand(short, references, hidden="readOnly")
    expand(large, references)
    expand(large, references)
    assert walks == 3, "another side of a request is another schema"


ITEM: Schema = {"properties": {"id": {"type": "integer", "readOnly": True}, "name": {"type": "string"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [ITEM, {"required": ["id", "name"]}]},
        {"allOf": [ITEM], "required": ["id", "name"]},
        {"$ref": "#/$defs/Item", "required": ["id", "name"], "$defs": {"Item": ITEM}},
        {
            "properties": {"id": {"$ref": "#/$defs/Id"}, "name": {"type": "string"}},
            "required": ["id", "name"],
            "$defs": {"Id": {"type": "integer", "readOnly": True}},
        },
    ],
)
def test_another_part_may_hide_a_property_or_require_it(schema: Schema) -> None:
    assert expand(schema, hidden="readOnly") == {"properties": {"name": {"type": "string"}}, "required": ["name"]}
    kept = expand(schema)
    assert set(kept["properties"]) == {"id", "name"}
    assert "readOnly" not in str(kept)


def test_a_property_may_have_the_name_of_a_keyword() -> None:
    inner: Schema = {"type": "object", "properties": {"required": {}}}
    named: Schema = {"properties": {"readOnly": {"type": "boolean"}, "default": inner, "properties": inner}}
    named["dependentRequired"] = {"properties": ["default"], "readOnly": ["default"]}
    hiding = named | {"properties": {**named["properties"], "id": {"readOnly": True}}}
    assert expand(hiding, hidden="readOnly") == expand(named, hidden="readOnly") == named


@pytest.mark.parametrize("name", ["properties", "patternProperties", "items", "enum", "readOnly", "required", "not"])
def test_a_property_may_have_a_keywords_name(name: str) -> None:
    """As GeoJSON's `properties` has."""
    inner = {"type": "object", "properties": {name: {"type": "string", "description": "Its name."}}, "required": [name]}
    schema: Schema = {"type": "object", "properties": {name: inner}, "required": [name]}
    hiding = schema | {"properties": {name: inner, "id": {"readOnly": True}}}
    assert expand(hiding, hidden="readOnly") == expand(schema) == schema


def test_hiding_reads_each_level_once() -> None:
    schema: Schema = {"type": "string", "readOnly": True}
    for _ in range(24):
        schema = {"type": "object", "properties": {"a": schema}}
    started = process_time()
    assert "readOnly" not in str(expand(schema, hidden="readOnly"))
    assert process_time() - started < 5, "each level doubled the time"


@pytest.mark.parametrize("key", ["nullable", "x-nullable"])
def test_a_reference_may_be_nullable(key: str) -> None:
    schema: Schema = {"$ref": "#/$defs/A", key: True, "$defs": {"A": {"type": "object"}}}
    assert expand(schema) == {"type": ["object", "null"]}


def test_a_schema_may_refer_to_itself_by_its_id() -> None:
    schema: Schema = {"$id": "http://a.test/s", "items": {"$ref": "http://a.test/s#/$defs/A"}}
    schema["$defs"] = {"A": {"type": "string"}}
    assert expand(schema) == {"items": {"type": "string"}}
    assert expand(schema | {"items": {"$ref": "#/$defs/A"}}) == {"items": {"type": "string"}}
