"""Reading a request's body: of bounded size, valid UTF-8, strict JSON, an object."""

from __future__ import annotations

import json
from typing import NoReturn

from starlette.requests import Request

from agentft.errors import ToolError
from agentft.types import Json

__all__ = ["BODY_LIMIT", "read_arguments"]

BODY_LIMIT = 1 << 20
# Read on past the limit, up to here, so that a client that is still sending gets the answer and not a reset.
_DRAIN_LIMIT = 16 << 20


async def read_arguments(request: Request) -> dict[str, Json]:
    """The arguments that a request carries.

    Raises:
        ToolError: 413 for a body over `BODY_LIMIT` bytes, 400 for one that is not a JSON object.
    """
    body, size = bytearray(), 0
    async for chunk in request.stream():
        size += len(chunk)
        if size <= BODY_LIMIT:
            body += chunk
        elif size > _DRAIN_LIMIT:
            break
    if size > BODY_LIMIT:
        raise ToolError(f"the body is larger than {BODY_LIMIT} bytes", status=413)
    return _parse(bytes(body))


def _parse(body: bytes) -> dict[str, Json]:
    try:
        value = json.loads(body.decode(), parse_constant=_refuse)
        # Half a surrogate pair can be escaped in JSON, and could not be answered in UTF-8.
        if b"\\u" in body:
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        raise ToolError("the body is not valid JSON: it is nested too deeply") from None
    except UnicodeEncodeError:
        raise ToolError("the body is not valid JSON: a \\u escape is half a surrogate pair") from None
    except ValueError as error:
        raise ToolError(f"the body is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ToolError("the body must be a JSON object of arguments")
    return value


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
