"""A call's arguments against its tool's JSON Schema. Remote `$ref`s are never followed: the registry is empty."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError
from referencing import Registry

from agentft.types import ToolCall, ToolDefinition

__all__ = ["SchemaProblem", "pointer", "schema_problems"]

Kind = Literal["missing-required", "unknown-argument", "type", "constraint"]
KINDS: dict[str, Kind] = {
    "required": "missing-required",
    "additionalProperties": "unknown-argument",
    "unevaluatedProperties": "unknown-argument",
    "type": "type",
}


@dataclass(frozen=True, slots=True)
class SchemaProblem:
    """One violation; `pointer` is a JSON Pointer into the arguments."""

    kind: Kind
    pointer: str
    message: str


def schema_problems(tool: ToolDefinition, call: ToolCall) -> list[SchemaProblem]:
    """All violations of a readable call's arguments, by pointer."""
    schema: dict[str, Any] = dict(tool.parameters)
    validator = Draft202012Validator(schema, registry=Registry())
    found = [problem for error in validator.iter_errors(dict(call.arguments)) for problem in _problems(error)]
    return sorted(found, key=lambda problem: problem.pointer)


def pointer(*keys: object) -> str:
    """A JSON Pointer (RFC 6901)."""
    return "".join("/" + str(key).replace("~", "~0").replace("/", "~1") for key in keys)


def _problems(error: ValidationError) -> list[SchemaProblem]:
    kind = KINDS.get(str(error.validator), "constraint")
    path = list(error.absolute_path)
    if kind == "missing-required" and isinstance(error.instance, dict):
        # jsonschema gives one error for each missing key, and names it in the message only.
        missing = [key for key in _keys(error.validator_value) if error.message.startswith(f"{key!r} is ")]
        return [SchemaProblem(kind, pointer(*path, key), "it is missing") for key in missing]
    if kind == "unknown-argument" and isinstance(error.instance, dict) and isinstance(error.schema, dict):
        known = error.schema.get("properties", {})
        surplus = [key for key in error.instance if key not in known]
        return [SchemaProblem(kind, pointer(*path, key), "there is no such argument") for key in surplus]
    return [SchemaProblem(kind, pointer(*path), f"{error.message:.120}")]


def _keys(value: object) -> list[str]:
    return [str(key) for key in value] if isinstance(value, list) else []
