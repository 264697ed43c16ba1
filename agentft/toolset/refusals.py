"""Turns a violation of a tool's schema into a refusal that tells a model how to correct its call."""

from __future__ import annotations

import json
import textwrap
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise, takewhile
from typing import Any

from jsonschema.exceptions import ValidationError

from agentft.errors import ToolError
from agentft.strict import own_table
from agentft.toolset.subschemas import Subschemas

__all__ = ["refuse"]

_ROOM = 120  # characters of a list in a message
_ARMS = 60  # alternatives that are described in a message, which has room for fewer
_WORDS = own_table(__file__, str)


def refuse(error: ValidationError, tool: str, schema: Subschemas) -> ToolError:
    """The refusal for a violation: 400 if something is missing, unknown or of the wrong type, otherwise 422.

    Args:
        error: the violation.
        tool: the tool's name.
        schema: the tool's parameters.
    """
    path = list(error.absolute_path)
    place = _place(path)
    if _is_of_a_name(error):
        wanted = "" if error.validator in {"oneOf", "anyOf"} else f"; names there must {_wanted(error)}"
        where = f"argument {_clip(place)!r}" if place else tool
        text = f"the name {_shown(error.instance)} is not allowed in {where}{wanted}"
        return ToolError(text, status=422, **({"argument": place} if place else {}))
    if error.validator in {"required", "dependentRequired"}:
        return _missing(error, place, _at(schema, path))
    if error.validator in {"additionalProperties", "unevaluatedProperties"}:
        return _unknown(path, tool, _at(schema, path[:-1]))
    if error.validator in {"oneOf", "anyOf"}:
        return _no_alternative(error, tool, schema, _at(schema, path).alternatives(str(error.validator)))
    status = 400 if error.validator == "type" else 422
    subject = f"argument {_clip(place)!r}" if place else "the arguments together"
    if error.schema is False:
        return ToolError(f"{subject if place else 'an argument is given that'} is not allowed", status=status)
    brief = error.validator == "type" or not isinstance(error.instance, dict | list)  # a container is not shown whole
    shown = f", not {_shown(error.instance)}" if place and brief else ""
    return ToolError(f"{subject} must {_wanted(error)}{shown}", status=status, **({"argument": place} if place else {}))


def _is_of_a_name(error: ValidationError) -> bool:
    """Whether the error is about a property's name rather than its value."""
    keys = list(error.absolute_schema_path)
    return any(
        key == "propertyNames" and before not in {"properties", "patternProperties"}
        for before, key in pairwise([None, *keys])
    )


def _at(schema: Subschemas, path: Sequence[str | int]) -> Subschemas:
    for key in path:
        schema = schema.at(key)
    return schema


def _place(path: Sequence[str | int]) -> str:
    return "/".join(map(str, path))


def _missing(error: ValidationError, place: str, at: Subschemas) -> ToolError:
    instance: Any = error.instance
    value: Any = error.validator_value
    needed: list[str] = value if isinstance(value, list) else []
    if isinstance(value, Mapping):
        needed = [name for key, names in value.items() if key in instance for name in names]
    absent = [name for name in needed if name not in instance]
    start = f"{place}/" if place else ""
    shown = _some(absent, lambda name: f"{_clip(start + name)!r} ({_kind(at.at(name))})")
    noun = "argument" if len(absent) == 1 else "arguments"
    return ToolError(f"missing {noun} {shown}", status=400, argument=start + absent[0] if absent else place)


def _unknown(path: Sequence[str | int], tool: str, at: Subschemas) -> ToolError:
    """`path` leads to the argument; `at` are the schemas of the object that it is in."""
    name, place, known = _clip(_place(path)), _place(path[:-1]), _properties(at)
    if path[-1] in known:
        return ToolError(
            f"argument {name!r} is wrong, or not allowed with the other arguments", status=422, argument=name
        )
    takes = f"takes {_some(known, _clip)}" if known else f"takes no {'properties' if place else 'arguments'}"
    owner = repr(_clip(place)) if place else tool
    return ToolError(f"unknown argument {name!r}; {owner} {takes}", status=400, argument=name)


def _no_alternative(error: ValidationError, tool: str, schema: Subschemas, arms: Sequence[Subschemas]) -> ToolError:
    place = _place(error.absolute_path)
    subject = f"argument {_clip(place)!r}" if place else "the arguments together"
    options = textwrap.shorten(" or ".join(dict.fromkeys(map(_kind, arms[:_ARMS]))), 120, placeholder=" ...")
    more = {"argument": place} if place else {}
    if not error.context:
        text = f"{subject} fits more than one of {len(arms)} alternatives ({options}), and must fit exactly one"
        return ToolError(text, status=422, **more)
    by_arm: defaultdict[Any, list[ValidationError]] = defaultdict(list)
    for inner in error.context:
        by_arm[inner.relative_schema_path[0]].append(inner)
    # The alternative that is meant has the right type and the right constants, and needs the fewest corrections.
    nearest = min(by_arm.values(), key=lambda found: (sum(map(_is_kind, found)), len(found)))
    if all(len(inner.relative_path) == 0 and inner.validator == "type" for inner in error.context):
        wanted = " or ".join(dict.fromkeys(_wanted(inner).removeprefix("be ") for inner in error.context))
        return ToolError(f"{subject} must be {wanted}, not {_shown(error.instance)}", status=400, **more)
    why = refuse(next(iter(sorted(nearest, key=_is_kind))), tool, schema)
    text = f"{subject} fits none of {len(arms)} alternatives ({options}); the closest: {why}"
    return ToolError(text, status=422, argument=why.details.get("argument", place))


def _is_kind(error: ValidationError) -> int:
    return error.validator in {"type", "const", "enum"}


def _properties(schema: Subschemas) -> list[str]:
    return [*dict.fromkeys(name for part, _ in schema.parts for name in part.get("properties") or {})]


def _kind(schema: Subschemas) -> str:
    if values := schema.values:
        return f"one of {_some(values)}" if len(values) > 1 else _some(values)
    if names := _properties(schema):
        return f"object with {_some(names, _clip)}"
    required = [name for part, _ in schema.parts for name in part.get("required") or []]
    return " or ".join(schema.types) or _some(required, repr) or "any value"


def _wanted(error: ValidationError) -> str:
    value: Any = error.validator_value
    schema = error.schema if isinstance(error.schema, dict) else {}
    match error.validator:
        case "type":
            return "be " + " or ".join(_WORDS[kind] for kind in (value if isinstance(value, list) else [value]))
        case "enum":
            return f"be one of {_some(value)}" if len(value) > 1 else f"be {_some(value)}"
        case "const":
            return f"be {_some([value])}"
        case "minimum" | "maximum":
            low, high = schema.get("minimum"), schema.get("maximum")
            if low is not None and high is not None:
                return f"be from {low} to {high}"
            return f"be at least {low}" if high is None else f"be at most {high}"
        case "format":
            return f"be a valid {value}"
        case "uniqueItems":
            return "have no equal items"
    if error.validator in _WORDS:
        return _WORDS[str(error.validator)].format(value)
    return f"be valid ({error.validator} {_clip(str(value))})"


def _json(value: object) -> str:
    return _clip(json.dumps(value, ensure_ascii=False), _ROOM)


def _some(values: Sequence[Any], write: Callable[[Any], str] = _json) -> str:
    """Values for a message; of many, as many as fit, and how many there are."""
    ends = accumulate(len(text) + 2 for text in map(write, values))
    shown = max(1, sum(1 for _ in takewhile(lambda end: end <= _ROOM, ends)))
    more = f" ... ({len(values):,} in all)" if shown < len(values) else ""
    return ", ".join(map(write, values[:shown])) + more


def _shown(value: object) -> str:
    """A value for a message, short whatever the model wrote."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 64:
        return "a number so large"
    return json.dumps(_clip(value) if isinstance(value, str) else value, ensure_ascii=False)


def _clip(text: str, room: int = 60) -> str:
    return text if len(text) <= room else f"{text[: room - 3]}..."
