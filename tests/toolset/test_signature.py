"""Type hints and docstrings become JSON Schemas; what cannot become one is refused with its place."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import pytest
from annotated_types import Len
from jsonschema import Draft202012Validator
from pydantic import AfterValidator, Field

from agentft.errors import InputError, ToolError
from agentft.toolset.marks import Handler, Range, State
from agentft.toolset.signature import accept_models, define, parse_docstring
from agentft.types import Json


def book(
    state: State,
    room: str,
    nights: Annotated[int, Range(1, 30)],
    kind: Literal["single", "double"] = "single",
    price: float | None = None,
    extras: list[str] | None = None,
    late: bool = False,
) -> dict[str, Json]:
    """Book a room,
    for some nights.

    Args:
        room: Name of the room,
            as on its door.
        nights: How many nights.

    Returns:
        Nothing: that a model needs.

    Example:
        {"room": "Blue",
         "nights": 2}
    """
    return {}


def definition_of(function: Handler) -> dict[str, Any]:
    return dict(define(function, "here", "http://x.test/book")[0].parameters)


def test_hints_and_docstring_become_a_definition() -> None:
    definition, example = define(book, "here", "http://x.test/book")
    assert definition.name == "book"
    assert definition.description == "Book a room, for some nights."
    assert definition.endpoints == ("http://x.test/book",)
    assert example == {"room": "Blue", "nights": 2}
    assert definition.parameters == {
        "type": "object",
        "properties": {
            "room": {"type": "string", "description": "Name of the room, as on its door."},
            "nights": {"type": "integer", "minimum": 1, "maximum": 30, "description": "How many nights."},
            "kind": {"type": "string", "enum": ["single", "double"], "default": "single"},
            "price": {"type": ["number", "null"]},
            "extras": {"type": ["array", "null"], "items": {"type": "string"}},
            "late": {"type": "boolean", "default": False},
        },
        "required": ["room", "nights"],
        "additionalProperties": False,
    }
    Draft202012Validator.check_schema(definition.parameters)


def test_an_optional_literal_allows_null() -> None:
    def tool(state: State, size: Literal["s", "m"] | None = None) -> None:
        """Do."""

    assert definition_of(tool)["properties"]["size"] == {"type": ["string", "null"], "enum": ["s", "m", None]}


def test_a_literal_may_mix_types_and_a_range_may_be_open() -> None:
    def tool(state: State, level: Literal[1, "max"], count: Annotated[int, Range(low=0)]) -> None:
        """Do."""

    properties = definition_of(tool)["properties"]
    assert properties["level"] == {"type": ["integer", "string"], "enum": [1, "max"]}
    assert properties["count"] == {"type": "integer", "minimum": 0}


def test_a_tool_may_take_no_arguments() -> None:
    def tool(state: State) -> None:
        """Do."""

    assert definition_of(tool)["properties"] == {}


def undocumented(state: State) -> None: ...


def stateless() -> None:
    """Do."""


def unhinted(state: State, x) -> None:  # type: ignore[no-untyped-def]
    """Do."""


def starred(state: State, *x: str) -> None:
    """Do."""


def strange(state: State, x: complex) -> None:
    """Do."""


def stale(state: State, x: str) -> None:
    """Do.

    Args:
        y: Gone since.
    """


def unread(state: State, x: str) -> None:
    """Do.

    Example:
        {x: 1}
    """


def listed(state: State, x: str) -> None:
    """Do.

    Example:
        [1]
    """


def unresolved(state: State, x: Nowhere) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Do."""


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (undocumented, "no docstring"),
        (stateless, "the first one must be the state"),
        (unhinted, "x: no type hint"),
        (starred, "cannot be tool arguments"),
        (strange, "has no JSON Schema here"),
        (stale, "describes 'y', which is not a parameter"),
        (unread, "Example is not JSON"),
        (listed, "Example must be a JSON object"),
        (unresolved, "Nowhere"),
    ],
)
def test_a_function_without_a_usable_definition_is_refused(function: Handler, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        define(function, "tools.py: f", "http://x.test/f")
    assert str(caught.value).startswith("tools.py: f")


def test_a_docstring_without_sections_is_a_summary() -> None:
    doc = parse_docstring("One line.\n\nAnd another: with a colon.")
    assert (doc.summary, doc.arguments, doc.example) == ("One line. And another: with a colon.", {}, "")


def test_constraints_of_pydantic_are_part_of_the_schema() -> None:
    def pick(
        state: State,
        n: Annotated[int, Field(ge=1, le=10, description="How many")],
        code: Annotated[str, Field(pattern="^a")] = "a",
        tags: Annotated[list[str], Len(1, 3)] | None = None,
        about: Annotated[str, "The subject."] = "",
    ) -> None:
        """Pick."""

    properties: Any = define(pick, "w", "u")[0].parameters["properties"]
    assert properties == {
        "n": {"type": "integer", "minimum": 1, "maximum": 10, "description": "How many"},
        "code": {"type": "string", "pattern": "^a", "default": "a"},
        "tags": {"type": ["array", "null"], "items": {"type": "string"}, "minItems": 1, "maxItems": 3},
        "about": {"type": "string", "description": "The subject.", "default": ""},
    }


def even(value: int) -> int:
    if value % 2:
        raise ValueError("must be even")
    return value


def test_pydantic_checks_what_a_schema_cannot_say() -> None:
    def pick(state: State, n: Annotated[int, AfterValidator(even)]) -> int:
        """Pick."""
        return n

    assert accept_models(pick)({}, n=2) == 2
    with pytest.raises(ToolError, match="must be even"):
        accept_models(pick)({}, n=3)


def test_annotations_that_nothing_honours_are_refused() -> None:
    def odd(state: State, n: Annotated[int, object()]) -> None:
        """Pick."""

    def default(state: State, n: Annotated[int, Field(default=3)]) -> None:
        """Pick."""

    def field(state: State, n: int = Field(ge=1)) -> None:
        """Pick."""

    for function, message in (
        (odd, "is not known; use"),
        (default, "write the default as `= 3`"),
        (field, "is not JSON"),
    ):
        with pytest.raises(InputError, match=message):
            define(function, "w", "u")
