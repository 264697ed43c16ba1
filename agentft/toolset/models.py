"""Pydantic models as parameters and results of a world's functions. Pydantic is imported only by who uses them."""

from __future__ import annotations

import inspect
from typing import Any, get_args, get_type_hints

from agentft.errors import ToolError
from agentft.toolset.documents import Documents
from agentft.toolset.marks import Handler, State
from agentft.toolset.schemas import Schema, expand
from agentft.types import Json

__all__ = ["accept_models", "is_model", "model_schema", "plain"]


def is_model(hint: object) -> bool:
    """Whether a type hint is a pydantic model's class."""
    return inspect.isclass(hint) and hasattr(hint, "model_json_schema")


def model_schema(model: Any) -> Schema:
    """The JSON Schema of a model, without `$ref`: models inside it are written out."""
    schema: Schema = model.model_json_schema()
    return expand(schema, Documents(schema).find)


def plain(value: Any) -> Any:
    """A model as JSON; any other value as it is."""
    return value.model_dump(mode="json") if is_model(type(value)) else value


def accept_models(function: Handler) -> Handler:
    """`function` as a handler that takes and gives plain JSON; itself if it knows no models."""
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
    return is_model(hint) or any(_holds_model(inner) for inner in get_args(hint))
