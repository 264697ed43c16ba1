"""Turns a function's type hints and Google-style docstring into a tool definition."""

from __future__ import annotations

import inspect
import re
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from agentft.errors import InputError, ToolError
from agentft.json_text import parse_json
from agentft.toolset.marks import Handler, Range, State
from agentft.toolset.schemas import expand, nullable
from agentft.types import Json, ToolDefinition

__all__ = ["Docstring", "accept_models", "define", "parse_docstring"]

_TYPES: dict[Any, str] = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}
_SECTION = re.compile(r"^(Args|Example|Returns|Raises):\s*$", re.MULTILINE)
_ENTRY = re.compile(r"^(\w+)(?:\s*\([^)]*\))?:", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Docstring:
    """A docstring's parts: the text before the sections, the arguments' descriptions, the example's JSON text."""

    summary: str
    arguments: dict[str, str] = field(default_factory=dict)
    example: str = ""


def define(function: Handler, place: str, endpoint: str) -> tuple[ToolDefinition, dict[str, Json]]:
    """The tool definition of `function`, and the arguments of its documented example.

    Args:
        function: its first parameter is the state; the others are the tool's arguments.
        place: the place of the function, for messages.
        endpoint: the tool's URL.

    Raises:
        InputError: a type hint or a docstring that cannot become part of a definition.
    """
    doc = parse_docstring(inspect.getdoc(function) or "")
    if not doc.summary:
        raise InputError(f"{place}: no docstring; say in its first line what the tool does, because models read it")
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters:
        raise InputError(f"{place}: no parameters; the first one must be the state")
    hints = _hints(function, place)
    properties: dict[str, Json] = {}
    for parameter in parameters[1:]:
        properties[parameter.name] = _property(parameter, hints, doc, f"{place}: {parameter.name}")
    if unknown := set(doc.arguments) - set(properties):
        raise InputError(f"{place}: the docstring describes {sorted(unknown)[0]!r}, which is not a parameter")
    required: list[Json] = [item.name for item in parameters[1:] if item.default is inspect.Parameter.empty]
    schema: dict[str, Json] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return ToolDefinition(function.__name__, doc.summary, schema, (endpoint,)), _example(doc, place)


def _hints(function: Handler, place: str) -> dict[str, Any]:
    try:
        return get_type_hints(function, include_extras=True)
    except (NameError, TypeError) as error:
        raise InputError(f"{place}: a type hint cannot be read: {error}") from None


def _property(parameter: inspect.Parameter, hints: dict[str, Any], doc: Docstring, place: str) -> dict[str, Json]:
    if parameter.kind not in {parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY}:
        raise InputError(f"{place}: *args, **kwargs and positional-only parameters cannot be tool arguments")
    if parameter.name not in hints:
        raise InputError(f"{place}: no type hint; give it one such as `{parameter.name}: str`")
    schema = _schema(hints[parameter.name], place)
    if description := doc.arguments.get(parameter.name):
        schema["description"] = description
    if parameter.default is not parameter.empty and parameter.default is not None:
        value = parameter.default
        schema["default"] = value.model_dump(mode="json") if _is_model(type(value)) else value
        if not isinstance(schema["default"], str | int | float | bool | list | dict):
            raise InputError(f"{place}: the default {value!r:.80} is not JSON; use a plain value")
    return schema


def _schema(hint: Any, place: str) -> dict[str, Json]:
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if _is_model(hint):
        return expand(hint.model_json_schema())
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        types = sorted({_TYPES[type(value)] for value in arguments})
        return {"type": types[0] if len(types) == 1 else [*types], "enum": list(arguments)}
    if origin is Annotated:
        return _annotated(hint, place)
    if origin is list:
        return {"type": "array", "items": _schema(arguments[0], place)}
    if origin in {Union, UnionType} and NoneType in arguments and len(arguments) == 2:
        return nullable(_schema(next(item for item in arguments if item is not NoneType), place))
    raise InputError(
        f"{place}: the type {hint} has no JSON Schema here; use str, int, float, bool, list[...], Literal[...], "
        "X | None, Annotated[int, Range(1, 7)] or a pydantic model"
    )


def _annotated(hint: Any, place: str) -> dict[str, Json]:
    """The schema of an `Annotated[...]`; what it says besides is honoured by the schema or by pydantic, or refused."""
    base, *extras = get_args(hint)
    if _is_pydantic(hint):
        from pydantic import PydanticUserError, TypeAdapter

        _schema(base, place)  # refuses types that are refused without the annotation, too
        try:
            made = expand(TypeAdapter(hint).json_schema())
        except (PydanticUserError, TypeError, ValueError) as error:
            raise InputError(f"{place}: the type hint cannot be used: {' '.join(str(error).split())[:200]}") from None
        if "default" in made:
            raise InputError(f"{place}: write the default as `= {made['default']!r}` after the type hint, not in Field")
        return made
    known = [extra for extra in extras if isinstance(extra, Range | str)]
    if odd := [extra for extra in extras if extra not in known]:
        raise InputError(f"{place}: {odd[0]!r:.80} is not known; use Annotated[int, Range(1, 7)] or pydantic's Field")
    ranges = [extra for extra in known if isinstance(extra, Range)]
    limits = [limit for extra in ranges for limit in (("minimum", extra.low), ("maximum", extra.high))]
    texts = [extra for extra in known if isinstance(extra, str)]
    made = _schema(base, place) | {key: value for key, value in limits if value is not None}
    return made | ({"description": texts[-1]} if texts else {})


def _example(doc: Docstring, place: str) -> dict[str, Json]:
    if not doc.example:
        return {}
    try:
        example = parse_json(doc.example)
    except ValueError as error:
        raise InputError(f"{place}: the docstring's Example is not JSON: {error}") from None
    if not isinstance(example, dict):
        raise InputError(f"{place}: the docstring's Example must be a JSON object of arguments")
    return example


def parse_docstring(text: str) -> Docstring:
    """Read a Google-style docstring; sections other than `Args` and `Example` are ignored."""
    summary, *parts = _SECTION.split(text)
    sections = dict(zip(parts[::2], parts[1::2], strict=True))
    _, *entries = _ENTRY.split(inspect.cleandoc(f"\n{sections.get('Args', '')}"))
    arguments = {name: " ".join(about.split()) for name, about in zip(entries[::2], entries[1::2], strict=True)}
    return Docstring(" ".join(summary.split()), arguments, sections.get("Example", "").strip())


def accept_models(function: Handler) -> Handler:
    """`function` as a handler that takes and returns plain JSON; unchanged if it uses no pydantic models."""
    hints = get_type_hints(function, include_extras=True)
    models = {name: hint for name, hint in hints.items() if _holds_model(hint)}
    if not models:
        return function
    from pydantic import TypeAdapter, ValidationError
    from pydantic_core import to_jsonable_python

    adapters = {name: TypeAdapter(hint) for name, hint in models.items() if name != "return"}

    def handler(state: State, /, **arguments: Json) -> Any:
        read: dict[str, Any] = dict(arguments)
        for name in arguments.keys() & adapters.keys():
            try:
                read[name] = adapters[name].validate_python(arguments[name])
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = "/".join(map(str, (name, *first["loc"])))
                raise ToolError(f"argument {place!r}: {first['msg']}", status=422, argument=place) from None
        return to_jsonable_python(function(state, **read))

    return handler


def _holds_model(hint: object) -> bool:
    return _is_model(hint) or _is_pydantic(hint) or any(_holds_model(inner) for inner in get_args(hint))


def _is_model(hint: Any) -> bool:
    """Whether `hint` is a pydantic model class, without importing pydantic."""
    return inspect.isclass(hint) and hasattr(hint, "model_json_schema")


def _is_pydantic(hint: Any) -> bool:
    """Whether an `Annotated[...]` holds metadata of pydantic or annotated_types, without importing them."""
    modules = {type(extra).__module__.partition(".")[0] for extra in getattr(hint, "__metadata__", ())}
    return bool(modules & {"pydantic", "annotated_types"})
