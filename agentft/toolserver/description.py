"""The OpenAPI 3.1 document of a set of worlds: every tool at `/tools/<name>`, and at its own path if it has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agentft import __version__
from agentft.strict import own_table
from agentft.toolserver.places import FORM, PARAMETER, own_path
from agentft.toolset import Tool, Toolset
from agentft.toolset.routes import CLIENT_HEADERS

__all__ = ["openapi_document"]

_ERRORS = own_table(__file__, str)
_SESSION = {
    "name": "X-Session",
    "in": "header",
    "description": "Names the state that the call works on; calls without it share one.",
    "schema": {"type": "string", "maxLength": 256},
}


def openapi_document(toolsets: Sequence[Toolset]) -> dict[str, Any]:
    """The document. A tool's schema is `components/schemas/<tool>`, that of its result `<tool>.result`."""
    paths: dict[str, dict[str, Any]] = {}
    schemas: dict[str, Any] = {
        "error": {"type": "object", "properties": {"error": {"type": "string"}}, "required": ["error"]}
    }
    for toolset in toolsets:
        for name, tool in toolset.tools.items():
            schemas[name] = _moved(tool.definition.parameters, name)
            schemas[f"{name}.result"] = _moved(tool.returns, f"{name}.result")
            body = {"required": True, "content": {"application/json": {"schema": _reference(name)}}}
            paths[f"/tools/{name}"] = {"post": {**_operation(toolset, tool, name), "requestBody": body}}
            path = own_path(toolset, tool)
            if path is not None and tool.route is not None:
                operation = {**_operation(toolset, tool, f"{name}.own"), **_inputs(tool, path, schemas[name])}
                paths.setdefault(path, {}).setdefault(tool.route.method.lower(), operation)
    responses = {
        status: {"description": text, "content": {"application/json": {"schema": _reference("error")}}}
        for status, text in _ERRORS.items()
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": " and ".join(toolset.name for toolset in toolsets), "version": __version__},
        "servers": [{"url": "/"}],
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _reference(name: str) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{name}"}


def _moved(schema: Any, name: str) -> Any:
    """The schema with its local references rewritten for its place in the document."""
    if isinstance(schema, list):
        return [_moved(item, name) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    target = schema.get("$ref")
    moved = {key: _moved(value, name) for key, value in schema.items()}
    if isinstance(target, str) and target.startswith("#"):
        moved["$ref"] = f"#/components/schemas/{name}{target[1:]}"
    return moved


def _operation(toolset: Toolset, tool: Tool, identity: str) -> dict[str, Any]:
    name = tool.definition.name
    success = {"description": "The result.", "content": {"application/json": {"schema": _reference(f"{name}.result")}}}
    errors = {status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS}
    return {
        "operationId": identity,
        "tags": [toolset.name, tool.access],
        "description": tool.definition.description,
        "parameters": [_SESSION],
        "responses": {"200": success, **errors},
    }


def _inputs(tool: Tool, path: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    """The `parameters` and the `requestBody` of a tool at its own path."""
    properties: dict[str, Any] = schema.get("properties", {})
    # A path parameter that no argument fills can be any string.
    parameters = {("path", wire): _parameter("path", wire, {"type": "string"}) for wire in PARAMETER.findall(path)}
    content: dict[str, Any] = {}
    needed = False
    for name, (kind, wire) in (tool.route.places if tool.route else {}).items():
        described, required = properties.get(name, {}), name in schema.get("required", ())
        if kind in {"body", "form"}:
            empty = {"schema": {"type": "object", "properties": {}, "required": []}}
            media = content.setdefault("application/json" if kind == "body" else FORM, empty)
            needed |= required
            if wire == "":
                media["schema"] = described
            else:
                media["schema"]["properties"][wire] = described
                media["schema"]["required"] += [wire] if required else []
        elif kind != "header" or wire.lower() not in CLIENT_HEADERS:
            style = tool.route.styles.get(name, "") if tool.route else ""
            parameters[kind, wire] = _parameter(kind, wire, described, style, required=required or kind == "path")
    body = {"requestBody": {"required": needed, "content": content}} if content else {}
    return {"parameters": [_SESSION, *parameters.values()], **body}


def _parameter(kind: str, wire: str, schema: Any, style: str = "", *, required: bool = True) -> dict[str, Any]:
    """A parameter, with its style if it is not written in the default way of its place."""
    made = {"name": wire, "in": kind, "required": required}
    if style == "json":
        return made | {"content": {"application/json": {"schema": schema}}}
    if style in {"", "tabDelimited"}:  # OpenAPI 3 has no name for tabs; repeated values are read, too
        return made | {"schema": schema}
    exploded = style.endswith("*") or style == "deepObject"
    return made | {"schema": schema, "style": style.rstrip("*"), "explode": exploded}
