"""A world's functions may take and return pydantic models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentft.errors import ToolError
from agentft.toolset import Toolset, load_toolset

TOOLS = '''
from typing import Literal
from pydantic import BaseModel, Field, field_validator
from agentft.toolset import read, write
BASE_URL = "http://orders.test"

class Line(BaseModel):
    """One line."""
    sku: str = Field(description="The article.", pattern="^[A-Z]+$")
    count: int = Field(default=1, ge=1, le=9)

class Order(BaseModel):
    lines: list[Line]
    kind: Literal["gift", "plain"] = "plain"
    note: str | None = None

    @field_validator("note")
    @classmethod
    def short(cls, note):
        if note and len(note) > 5:
            raise ValueError("too long a note")
        return note

class Node(BaseModel):
    children: list["Node"] = []

@write
def place(state, order: Order, extra: Line | None = None, more: list[Line] = []) -> Order:
    """Place an order."""
    assert isinstance(order, Order) and all(isinstance(line, Line) for line in [*order.lines, *more])
    state["count"] = sum(line.count for line in order.lines)
    return order.model_copy(update={"lines": [*order.lines, *([extra] if extra else []), *more]})

@read
def depth(state, node: Node = Node()) -> int:
    """How deep a tree is."""
    return 1 + max((depth(state, child) for child in node.children), default=0)
'''


@pytest.fixture
def orders(tmp_path: Path) -> Toolset:
    (tmp_path / "tools.py").write_text(TOOLS, encoding="utf-8")
    (tmp_path / "state.json").write_text("{}", encoding="utf-8")
    return load_toolset(str(tmp_path))


def test_models_are_nested_schemas(orders: Toolset) -> None:
    schema = orders.tools["place"].definition.parameters
    Draft202012Validator.check_schema(schema)
    line = {
        "type": "object",
        "description": "One line.",
        "required": ["sku"],
        "properties": {
            "sku": {"type": "string", "description": "The article.", "pattern": "^[A-Z]+$"},
            "count": {"type": "integer", "minimum": 1, "maximum": 9, "default": 1},
        },
    }
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert properties["order"] == {
        "type": "object",
        "required": ["lines"],
        "properties": {
            "lines": {"type": "array", "items": line},
            "kind": {"type": "string", "default": "plain", "enum": ["gift", "plain"]},
            "note": {"default": None, "anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    assert properties["extra"] == {**line, "type": ["object", "null"]}
    assert properties["more"] == {"type": "array", "items": line, "default": []}
    assert orders.tools["depth"].definition.parameters["properties"] == {
        "node": {
            "type": "object",
            "properties": {"children": {"type": "array", "items": {}, "default": []}},
            "default": {"children": []},
        }
    }


def test_handlers_take_and_return_models(orders: Toolset) -> None:
    state = orders.new_state()
    call: dict[str, Any] = {
        "order": {"lines": [{"sku": "A", "count": 2.0}, {"sku": "B"}]},
        "extra": {"sku": "C"},
        "more": [{"sku": "D"}],
    }
    placed = orders.call("place", call, state)
    lines = [{"sku": "A", "count": 2}, *({"sku": sku, "count": 1} for sku in "BCD")]
    assert placed == {"lines": lines, "kind": "plain", "note": None}
    assert state["count"] == 3
    assert orders.call("depth", {"node": {"children": [{"children": [{}]}]}}, state) == 3
    assert orders.call("depth", {}, state) == 1


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ({"lines": [{"sku": "a"}]}, "argument 'order/lines/0/sku' must be valid (pattern ^[A-Z]+$), not \"a\""),
        ({"lines": [{"sku": "A", "count": 0}]}, "argument 'order/lines/0/count' must be from 1 to 9, not 0"),
        ({"lines": [], "note": "far too long"}, "argument 'order/note': Value error, too long a note"),
    ],
)
def test_the_caller_gets_the_error_of_a_pydantic_model(orders: Toolset, order: object, message: str) -> None:
    with pytest.raises(ToolError) as caught:
        orders.call("place", {"order": order}, orders.new_state())  # type: ignore[dict-item]
    assert (str(caught.value), caught.value.status) == (message, 422)


def test_the_pydantic_model_refuses_what_the_cut_schema_accepts(orders: Toolset) -> None:
    with pytest.raises(ToolError, match="argument 'node/children/0"):
        orders.call("depth", {"node": {"children": ["x"]}}, orders.new_state())
