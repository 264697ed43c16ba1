"""Request bodies, as strict JSON of bounded size and depth, and response bodies."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from starlette.requests import Request
from starlette.responses import Response

from agentft.errors import ToolError
from agentft.json_text import UnreadableError, parse_json
from agentft.toolserver.limits import Limits
from agentft.types import Json

__all__ = [
    "DRAIN_LIMIT",
    "JSON_MEDIA",
    "error_body",
    "is_sendable",
    "json_or_text",
    "json_response",
    "parse_body",
    "read_body",
    "read_body_arguments",
]

JSON_MEDIA = "application/json"

DRAIN_LIMIT = 16 << 20
"""How much of an oversized body is read and dropped, so that the client gets the response instead of a reset."""


async def read_body(request: Request, limits: Limits) -> bytes:
    """The body of a request.

    Raises:
        ToolError: 413 if it is larger than `limits.body` bytes.
    """
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= limits.body:
            body += chunk
        elif size > DRAIN_LIMIT:
            break
    if size > limits.body:
        raise ToolError(f"the body is larger than {limits.body} bytes", status=413)
    return bytes(body)


async def read_body_arguments(request: Request, limits: Limits) -> dict[str, Json]:
    """The arguments of a call, from a body that is a JSON object.

    Raises:
        ToolError: 413 if the body is too large, 400 if it is not a JSON object or nested too deeply.
    """
    value = parse_body(await read_body(request, limits), limits)
    if not isinstance(value, dict):
        raise ToolError("the body must be a JSON object of arguments")
    return value


def parse_body(body: bytes, limits: Limits) -> Json:
    """The JSON value of a body.

    Raises:
        ToolError: 400 if the body is not strict JSON, repeats a key, or has more than `limits.depth` levels.
    """
    try:
        return parse_json(body, unique_keys=True, max_depth=limits.depth)
    except UnreadableError as error:
        raise ToolError(f"the body cannot be read: {error}") from None


def json_or_text(body: bytes) -> Json:
    """The JSON value of a body, or its text if it is not JSON."""
    try:
        return parse_body(body, Limits())
    except ToolError:
        return body.decode(errors="replace")


def error_body(error: ToolError) -> dict[str, Json]:
    """The body of a refusal."""
    return {"error": str(error), **cast("dict[str, Json]", error.details)}


def is_sendable(error: ToolError) -> bool:
    """Whether a handler's refusal has an HTTP status of an error, and details that are JSON."""
    try:
        json.dumps(error_body(error), ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return isinstance(error.status, int) and 400 <= error.status < 600


def json_response(
    status: int, content: object, media: str = JSON_MEDIA, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with `content` as JSON; text and bytes are sent unchanged if `media` is not a JSON type."""
    is_text = isinstance(content, str | bytes) and not media.endswith("json")
    body = content if is_text else json.dumps(content, ensure_ascii=False, allow_nan=False)
    return Response(body, min(status, 599), headers, media)
