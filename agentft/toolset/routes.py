"""The routes of imported tools: the method, the path and the places of the arguments in an HTTP request."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote

from agentft.errors import InputError
from agentft.strict import own_table

__all__ = ["CLIENT_HEADERS", "DEFAULT_STYLES", "STYLES", "Route", "check_route", "has_dot_segment"]

CLIENT_HEADERS = frozenset({"accept", "authorization", "connection", "content-length", "content-type", "host"})
CLIENT_HEADERS |= {"transfer-encoding"}
"""The headers that the HTTP client sets, so that they are not arguments."""

DEFAULT_STYLES = {"path": "simple", "header": "simple", "query": "form*", "cookie": "form*", "form": "form*"}
"""Place of an argument -> OpenAPI's style there; `*`: exploded."""
STYLES = own_table(__file__, tuple[str, ...])
"""Place of an argument -> the styles it may have. `binary`: a file in a multipart form."""
_LONGEST = 8000  # characters of a path
_METHODS = ("GET", "PUT", "POST", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE")


@dataclass(frozen=True, slots=True)
class Route:
    """The operation of an imported API that a tool stands for, and how its arguments are sent.

    `places`: argument -> (`path`, `query`, `header`, `cookie`, `form` or `body`, its name there). A `body` with the
    name "" is the whole JSON body. `path` is a template such as `/pets/{petId}`, below the world's base URL.
    `styles`: argument -> how its arrays and objects are written, if not in the default way of its place. `media`: the
    media type of the body; "": JSON, or a URL-encoded form.
    """

    method: str
    path: str
    places: Mapping[str, tuple[str, str]]
    styles: Mapping[str, str] = field(default_factory=dict)
    media: str = ""

    def style(self, argument: str) -> str:
        """The style of an argument."""
        return self.styles.get(argument) or DEFAULT_STYLES.get(self.places.get(argument, ("", ""))[0], "json")


def check_route(method: str, path: str) -> None:
    """Refuse a method or a path that could send a request anywhere but below the service's address.

    Raises:
        InputError: the method is not one of HTTP's; the path has no leading slash or two, or it has a dot segment, a
            query, a fragment, a backslash or a control character, or it is longer than servers accept.
    """
    if method not in _METHODS:
        raise InputError(f"the method {method!r:.40} must be one of {', '.join(_METHODS)}")
    if len(path) > _LONGEST:  # and each of its parameters would have it in its place
        raise InputError(f"the path {path!r:.100} has {len(path):,} characters (at most {_LONGEST:,} are accepted)")
    if not re.fullmatch(r"/(?!/)[^?#\\\x00-\x20\x7f]*", path) or has_dot_segment(path):
        raise InputError(
            f"the path {path!r:.100} must begin with one `/` and have no segment `.` or `..` and no `?`, `#` or `\\`"
        )


def has_dot_segment(path: str) -> bool:
    """Whether a server may take a segment of an escaped path for `.` or `..`.

    Some decode `%2F`, and drop a segment's `;parameters` and its end from a zero byte on, before they look at that.
    """
    return bool({".", ".."} & {*re.split(r"[/\\]|[;\0][^/\\]*", unquote(path))})
