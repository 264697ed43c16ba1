"""The grammar of an MS-Agent assistant value: text, calls and results in any sequence.

    CALL    <|startofthink|> ```JSON\\n{"api_name": S, "url": S?, "parameters": {...}?}\\n``` <|endofthink|>
    RESULT  <|startofexec|> ```JSON\\n{...}\\n``` <|endofexec|>

The parser accepts what real data contains: any fence or none, Python literals, raw newlines in strings, a missing last
marker. Our one extension: a block may hold a JSON list of call objects, which are parallel calls.
"""

from __future__ import annotations

import re
from bisect import bisect_left

from agentft.calls.reading import CallKeys, make_call, read_literal_call
from agentft.json_text import read_json
from agentft.types import Json, ParseFailure, Part, Span, Text, ToolCall, ToolResult

__all__ = ["CALL_END", "CALL_START", "RESULT_END", "RESULT_START", "parse_parts"]

CALL_START = "<|startofthink|>"
CALL_END = "<|endofthink|>"
RESULT_START = "<|startofexec|>"
RESULT_END = "<|endofexec|>"

_MARKER = re.compile(r"<\|(?:start|end)of(?:think|exec)\|>")
_START = re.compile(r"<\|startof(?:think|exec)\|>")
_RESULT_MARKER = re.compile(r"<\|(?:start|end)ofexec\|>")
_LIMIT = re.compile(r"<\|(?:startof(?:think|exec)|endofthink)\|>")  # what may end an unreadable call
_OPEN = re.compile(r"\s*(?:```[ \t]*\w*\s*)?")
_SPACE = re.compile(r"\s*")
_CLOSE = re.compile(r"\s*(?:```)?\s*")
_RESULT_FENCE = re.compile(r"\s*```(?:json)?[ \t]*(?:\r?\n|(?=[{\[\"]))", re.IGNORECASE)
_NAME = re.compile(r"""["']api_name["']\s*:\s*(?:"([^"\n]*)"|'([^'\n]*)')""")
_FENCE = "```"
_KEYS = CallKeys("api_name", "parameters", "url")
_MAX_STOPS = 4  # end markers that are tried as the end of a Python literal
_MAX_MARKERS = 8  # markers after a call that are looked at for them


def parse_parts(text: str) -> tuple[Part, ...]:
    """The parts of an assistant value; their spans tile `text`. Never raises: a bad call has a `parse_error`.

    Calls are numbered `call_0`, `call_1`, ...; a result answers the earliest unanswered call before it (`""` if there
    is none). A result's content is the text between its markers, without the fence. Whitespace between a call or result
    and the next result, and the newline after a result, belong to the result's span: the model generates neither.
    """
    return _Reader(text).read()


class _Reader:
    """One pass over a value. `at`: start of the next part's span."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.parts: list[Part] = []
        self.calls = self.answered = 0
        self.at = 0
        self.marks = [mark.start() for mark in _MARKER.finditer(text)]

    def read(self) -> tuple[Part, ...]:
        while found := _START.search(self.text, self.at):
            if found[0] == CALL_START:
                self._read_call(found.start(), found.end())
            else:
                self._read_result(found.start(), found.end())
        self._add_text(len(self.text))
        return tuple(self.parts)

    def _add_text(self, end: int) -> None:
        if self.at < end:
            self.parts.append(Text(self.text[self.at : end], Span(self.at, end)))
            self.at = end

    def _read_call(self, start: int, body: int) -> None:
        self._add_text(start)
        body = _skip(_OPEN, self.text, body)
        try:
            items = _read_items(self.text, body)
            end, failure = self._find_call_end(items[-1][1])
        except ValueError as error:
            value, end, failure = self._read_literal(body, str(error))
            items = [(value, end)]
        for number, (value, stop) in enumerate(items, 1):
            span = Span(self.at, end if number == len(items) else stop)
            self.parts.append(make_call(f"call_{self.calls}", value, span, _KEYS, failure))
            self.calls += 1
            self.at = span.end

    def _find_call_end(self, position: int) -> tuple[int, ParseFailure | None]:
        """The end of the block whose JSON ends at `position`, and a failure if the block does not end properly."""
        after = _skip(_CLOSE, self.text, position)
        mark = _MARKER.search(self.text, after)
        surplus = self.text[after : mark.start() if mark else None]
        if mark is None:
            return len(self.text), None if CALL_END.startswith(surplus) else _surplus(surplus)
        if mark[0] == CALL_END and not surplus:
            return mark.end(), None
        if not _START.match(mark[0]):
            return mark.end(), _surplus(surplus)
        if surplus:
            return mark.start(), _surplus(surplus)
        return position + len(self.text[position:after].rstrip()), None

    def _read_literal(self, body: int, problem: str) -> tuple[Json, int, ParseFailure | None]:
        """Read a call that is not JSON: a Python literal that ends at one of the next end markers, or a failure."""
        limit = _find(_LIMIT, self.text, body)
        first = bisect_left(self.marks, body)
        upcoming = self.marks[first : first + _MAX_MARKERS]
        ends = [mark for mark in upcoming if self.text.startswith(CALL_END, mark)]
        if literal := read_literal_call(self.text, body, ends[:_MAX_STOPS] or [limit], _FENCE):
            value, stop = literal
            failure = ParseFailure("content", "a list of calls must be JSON") if isinstance(value, list) else None
            return value, _after(CALL_END, self.text, stop), failure
        name = _NAME.search(self.text, body, limit)
        is_content = self.text.startswith(("{", "["), body) and self.text.startswith(CALL_END, limit)
        failure = ParseFailure("content" if is_content else "structure", problem)
        return {"api_name": name[1] or name[2]} if name else {}, _after(CALL_END, self.text, limit), failure

    def _read_result(self, start: int, body: int) -> None:
        after_call = bool(self.parts) and isinstance(self.parts[-1], ToolCall | ToolResult)
        if not (after_call and self.text[self.at : start].isspace()):  # whitespace before a result is injected
            self._add_text(start)
        stop = self._result_end(body)
        end = _after("\n", self.text, _after(RESULT_END, self.text, stop))
        call_id = f"call_{self.answered}" if self.answered < self.calls else ""
        self.answered = min(self.answered + 1, self.calls)
        self.parts.append(ToolResult(call_id, _strip_fence(self.text[body:stop]), Span(self.at, end)))
        self.at = end

    def _result_end(self, body: int) -> int:
        """The end of the result's text: the next end marker that is not inside one of its JSON strings.

        If there is none before the next result, the text ends at the next start marker.
        """
        first = _skip(_OPEN, self.text, body)
        mark = _RESULT_MARKER.search(self.text, body)
        closed = mark is not None and mark[0] == RESULT_END
        stop = mark.start() if mark and closed else _find(_START, self.text, body)
        if not closed or _is_truncated(self.text[first:stop]):
            try:
                after = _skip(_CLOSE, self.text, read_json(self.text, first)[1])
            except ValueError:
                return stop
            if self.text.startswith(RESULT_END, after):
                return after
        return stop


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    matched = pattern.match(text, position)
    return matched.end() if matched else position


def _find(pattern: re.Pattern[str], text: str, position: int) -> int:
    """The start of the next match, or the end of the text."""
    found = pattern.search(text, position)
    return found.start() if found else len(text)


def _after(marker: str, text: str, position: int) -> int:
    return position + len(marker) if text.startswith(marker, position) else position


def _surplus(text: str) -> ParseFailure:
    surplus = text.strip()[:40]
    detail = f"surplus text after the call: {surplus!r}" if surplus else "the call's end marker is missing"
    return ParseFailure("structure", detail)


def _is_truncated(text: str) -> bool:
    """Whether JSON lacks its closing bracket, because the end marker that was found is inside a string."""
    body = text.rstrip().removesuffix("```").rstrip()
    return body.startswith(("{", "[")) and not body.endswith(("}", "]"))


def _strip_fence(text: str) -> str:
    opened = _RESULT_FENCE.match(text)
    if not opened:
        return text.strip()
    body = text[opened.end() :]
    ending = body.rstrip()
    return ending[:-3].removesuffix("\n") if ending.endswith("```") else body.strip()


def _read_items(text: str, body: int) -> list[tuple[Json, int]]:
    """The call object at `body`, or each object of the list there, with its end. Raises ValueError."""
    if text.startswith("{", body):
        return [read_json(text, body)]
    separator, position = text[body : body + 1], body
    if separator != "[":
        raise ValueError("no JSON object between the call's markers")
    items: list[tuple[Json, int]] = []
    while separator != "]":
        items.append(read_json(text, _skip(_SPACE, text, position + 1)))
        position = _skip(_SPACE, text, items[-1][1])
        separator = text[position : position + 1]
        if separator not in ("]", ","):
            raise ValueError(f"a list of calls that breaks off at character {position}")
    items[-1] = (items[-1][0], position + 1)
    return items
