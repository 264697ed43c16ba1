"""Call objects -> `ToolCall`. All call formats and record parsers validate calls here, so their verdicts agree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agentft.json_text import UnreadableError, kind_of, read_value
from agentft.types import Json, ParseFailure, Span, ToolCall

__all__ = ["ARGUMENT_KEYS", "CallKeys", "make_call", "read_literal_call"]

ARGUMENT_KEYS = ("arguments", "args", "parameters", "input")
"""The keys of a call under which its arguments may stand: OpenAI's, LangChain's, Llama's or Anthropic's."""

_CLOSERS = {"{": "}", "[": "]"}


@dataclass(frozen=True, slots=True)
class CallKeys:
    """The keys of a format's call object. `url` is None if the format's calls have no URL."""

    name: str = "name"
    arguments: str = "arguments"
    url: str | None = None


def make_call(call_id: str, value: Json, span: Span, keys: CallKeys, structure: ParseFailure | None = None) -> ToolCall:
    """The call that the parsed `value` describes. Never raises: an unusable call has a `parse_error`.

    Arguments may be an object, or text that holds one as JSON or as a Python literal; if they are missing, null or
    blank, they are empty, unless they stand under another format's key. `structure` is a failure in the text around the
    value; it is reported first.
    """
    if not isinstance(value, dict):
        failure = ParseFailure("content", f"a call must be an object, not {kind_of(value)}")
        return ToolCall(call_id, "", {}, span, structure or failure)
    problems = [] if structure is None else [structure]
    name = value.get(keys.name)
    if not (isinstance(name, str) and name):
        name = ""
        problems.append(ParseFailure("content", f"{keys.name} is missing"))
    url = value.get(keys.url) if keys.url else None
    if not isinstance(url, str | None):
        problems.append(ParseFailure("content", f"{keys.url} must be text, not {kind_of(url)}"))
        url = None
    arguments, detail = _read_arguments(value.get(keys.arguments), keys.arguments)
    others = (key for key in ARGUMENT_KEYS if key != keys.arguments and value.get(key) not in (None, "", {}, []))
    if not arguments and not detail and (other := next(others, "")):
        detail = f"`{other}` instead of `{keys.arguments}`"
    if detail:
        problems.append(ParseFailure("content", detail))
    return ToolCall(call_id, name, arguments, span, problems[0] if problems else None, url)


def read_literal_call(text: str, start: int, stops: Iterable[int], fence: str = "") -> tuple[Json, int] | None:
    """The value from `start` to the first of `stops` at which it is complete, and that stop. None if there is none.

    This reads calls and declarations written as Python literals, whose strings may contain an end marker. A `fence`
    before the stop is ignored.
    """
    for stop in stops:
        body = text[start:stop].strip().removesuffix(fence).rstrip()
        closer = _CLOSERS.get(body[:1], "")  # before a comma (a tuple) or a comment, too
        if not body or not (body.rstrip(", \t\r\n").endswith(closer) or "#" in body):
            continue
        try:
            return read_value(body), stop
        except UnreadableError:
            continue
    return None


def _read_arguments(value: Json, key: str) -> tuple[dict[str, Json], str]:
    """The arguments, and the reason if they are unreadable."""
    if isinstance(value, str):
        try:
            value = read_value(value) if value.strip() else None
        except UnreadableError as error:
            return {}, f"{key}: {error}"
    if isinstance(value, dict | None):
        return value or {}, ""
    return {}, f"{key} must be an object, not {kind_of(value)}"
