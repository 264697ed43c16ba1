"""The grammar of an MS-Agent assistant value: text, calls and results in any sequence.

    CALL    <|startofthink|> ```JSON\\n{"api_name": S, "url": S?, "parameters": {...}?}\\n``` <|endofthink|>
    RESULT  <|startofexec|> ```JSON\\n{...}\\n``` <|endofexec|>

Read as it occurs, not as it should be: any fence or none, Python literals, raw newlines in strings, markers missing at
the end. One extension of ours: a block may hold a JSON list of call objects, which are parallel calls.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import deque

from agentft.formats.values import kind_of, read_arguments, read_json, read_value
from agentft.types import Json, Part, Span, Text, ToolCall, ToolResult

__all__ = ["CALL_END", "CALL_START", "RESULT_END", "RESULT_START", "parse_parts"]

CALL_START = "<|startofthink|>"
CALL_END = "<|endofthink|>"
RESULT_START = "<|startofexec|>"
RESULT_END = "<|endofexec|>"

_MARKER = re.compile(r"<\|(?:start|end)of(?:think|exec)\|>")
_STARTS = (CALL_START, RESULT_START)
_OPEN = re.compile(r"\s*(?:```[ \t]*\w*\s*)?")
_SPACE = re.compile(r"\s*")
_CLOSE = re.compile(r"\s*(?:```)?\s*")
_RESULT_FENCE = re.compile(r"\s*```(?:json)?[ \t]*(?:\r?\n|(?=[{\[\"]))", re.IGNORECASE)
_NAME = re.compile(r"""["']api_name["']\s*:\s*(?:"([^"\n]*)"|'([^'\n]*)')""")
_MAX_READINGS = 4  # how many end markers may lie inside one Python-literal call before we stop looking

_Item = tuple[Json, int, str | None]  # a call's value, the index after its text, what was wrong


def parse_parts(text: str) -> tuple[Part, ...]:
    """The parts of an assistant value; their spans tile `text`. Never raises: a bad call carries `parse_error`.

    Calls are numbered `call_0`, `call_1`, ...; a result answers the earliest call before it that has none yet (`""` if
    there is none). A result's content is the text between its markers, without the fence. White space before it (behind
    a call or a result) and the newline after it belong to its span, since a model says neither.
    """
    if "<|startof" not in text:
        return (Text(text, Span(0, len(text))),) if text else ()
    return _Reader(text).read()


class _Reader:
    """One pass over a value. `at` is where the next part's span begins."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.marks = [(match.start(), match[0]) for match in _MARKER.finditer(text)]
        self.starts = [start for start, _ in self.marks]
        self.parts: list[Part] = []
        self.open_calls: deque[str] = deque()
        self.calls = 0
        self.at = 0

    def read(self) -> tuple[Part, ...]:
        index = 0
        while index < len(self.marks):
            start, marker = self.marks[index]
            if marker in _STARTS:
                read_block = self._read_call if marker == CALL_START else self._read_result
                read_block(index, start)
                index = self._next_mark(self.at)
            else:
                index += 1
        self._add_text(len(self.text))
        return tuple(self.parts)

    def _next_mark(self, position: int) -> int:
        return bisect_left(self.starts, position)

    def _add_text(self, end: int) -> None:
        if self.at < end:
            self.parts.append(Text(self.text[self.at : end], Span(self.at, end)))
            self.at = end

    def _read_call(self, index: int, start: int) -> None:
        self._add_text(start)
        body = _skip(_OPEN, self.text, start + len(CALL_START))
        try:
            items = _read_items(self.text, body)
        except ValueError as error:
            item, end = self._read_otherwise(index, body, str(error))
            self._add_calls([item], end)
            return
        end, problem = self._find_call_end(items[-1][1])
        self._add_calls([(value, stop, error or problem) for value, stop, error in items], end)

    def _find_call_end(self, position: int) -> tuple[int, str | None]:
        """Where the block ends whose JSON ends at `position`, and what is wrong with its end."""
        after = _skip(_CLOSE, self.text, position)
        if self.text.startswith(CALL_END, after):
            return after + len(CALL_END), None
        index = self._next_mark(position)
        if index == len(self.marks):
            rest = self.text[after:]
            return len(self.text), None if CALL_END.startswith(rest) else _surplus(rest)
        stop, marker = self.marks[index]
        if marker in _STARTS:
            if stop == after:
                return position + len(self.text[position:stop].rstrip()), None
            return stop, _surplus(self.text[after:stop])
        return stop + len(marker), _surplus(self.text[after:stop])

    def _read_otherwise(self, index: int, body: int, problem: str) -> tuple[_Item, int]:
        """A call that is not JSON: a Python literal up to one of the next end markers, or unreadable."""
        limit = self._block_limit(index)
        ends = [stop for stop, marker in self.marks[index + 1 : index + 9] if marker == CALL_END]
        for stop in ends[:_MAX_READINGS] or [limit]:
            try:
                value = read_value(self.text[body:stop].rstrip().removesuffix("```"))
            except ValueError:
                continue
            error = "a list of calls must be JSON" if isinstance(value, list) else None
            return (value, stop, error), self._behind(stop)
        name = _NAME.search(self.text, body, limit)
        return ({"api_name": name[1] or name[2]} if name else {}, limit, problem), self._behind(limit)

    def _block_limit(self, index: int) -> int:
        """Where an unreadable block ends: at the next marker that can end it, or at the end of the text."""
        for later in range(index + 1, len(self.marks)):
            stop, marker = self.marks[later]
            if marker != RESULT_END:
                return stop
        return len(self.text)

    def _behind(self, stop: int) -> int:
        return stop + len(CALL_END) if self.text.startswith(CALL_END, stop) else stop

    def _add_calls(self, items: list[_Item], end: int) -> None:
        last = len(items) - 1
        for number, (value, stop, problem) in enumerate(items):
            span = Span(self.at, end if number == last else stop)
            identity = f"call_{self.calls}"
            self.parts.append(_make_call(identity, value, span, problem))
            self.open_calls.append(identity)
            self.calls += 1
            self.at = span.end

    def _read_result(self, index: int, start: int) -> None:
        follows = bool(self.parts) and isinstance(self.parts[-1], ToolCall | ToolResult)
        if not (follows and self.text[self.at : start].isspace()):  # space between a call and its result is injected
            self._add_text(start)
        body = start + len(RESULT_START)
        stop = self._result_end(index, body)
        end = stop + len(RESULT_END) if self.text.startswith(RESULT_END, stop) else stop
        if self.text.startswith("\n", end):
            end += 1
        call_id = self.open_calls.popleft() if self.open_calls else ""
        self.parts.append(ToolResult(call_id, _strip_fence(self.text[body:stop]), Span(self.at, end)))
        self.at = end

    def _result_end(self, index: int, body: int) -> int:
        """Where the result's text ends: before the next end marker, unless that lies inside a JSON string of it."""
        first = _skip(_OPEN, self.text, body)
        stop, closed = self._nearest_result_end(index)
        if not closed or _breaks_off(self.text[first:stop]):
            try:
                after = _skip(_CLOSE, self.text, read_json(self.text, first)[1])
            except ValueError:
                return stop
            if self.text.startswith(RESULT_END, after):
                return after
        return stop

    def _nearest_result_end(self, index: int) -> tuple[int, bool]:
        """The next end marker if no other result starts before it; else the next start marker or the text's end."""
        stop = len(self.text)
        for later in range(index + 1, len(self.marks)):
            place, marker = self.marks[later]
            if marker == RESULT_END:
                return place, True
            if marker in _STARTS:
                stop = min(stop, place)
            if marker == RESULT_START:
                break
        return stop, False


def _skip(pattern: re.Pattern[str], text: str, position: int) -> int:
    matched = pattern.match(text, position)
    return matched.end() if matched else position


def _surplus(text: str) -> str:
    return f"surplus text after the call: {text.strip()[:40]!r}" if text.strip() else "the call's end marker is missing"


def _breaks_off(text: str) -> bool:
    """True for JSON that lacks its end, as when an end marker was found inside one of its strings."""
    body = text.rstrip().removesuffix("```").rstrip()
    return body.startswith(("{", "[")) and not body.endswith(("}", "]"))


def _strip_fence(text: str) -> str:
    opened = _RESULT_FENCE.match(text)
    if not opened:
        return text.strip()
    body = text[opened.end() :]
    ending = body.rstrip()
    return ending[:-3].removesuffix("\n") if ending.endswith("```") else body.strip()


def _read_items(text: str, body: int) -> list[_Item]:
    """The call object at `body`, or the call objects of the list there. Raises ValueError."""
    first = text[body : body + 1]
    if first == "{":
        return [(*read_json(text, body), None)]
    if first != "[":
        raise ValueError("no JSON object between the call's markers")
    items: list[_Item] = []
    position = body + 1
    while True:
        position = _skip(_SPACE, text, position)
        value, position = read_json(text, position)
        items.append((value, position, None))
        position = _skip(_SPACE, text, position)
        separator = text[position : position + 1]
        position += 1
        if separator == "]":
            items[-1] = (value, position, None)
            return items
        if separator != ",":
            raise ValueError(f"a list of calls that breaks off at character {position - 1}")


def _make_call(identity: str, value: Json, span: Span, problem: str | None) -> ToolCall:
    if not isinstance(value, dict):
        return ToolCall(identity, "", {}, span, problem or f"a call must be an object, not {kind_of(value)}")
    name, url = value.get("api_name"), value.get("url")
    arguments, unreadable = read_arguments(value.get("parameters"), "parameters")
    if not (isinstance(name, str) and name):
        problem, name = problem or "api_name is missing", ""
    if not isinstance(url, str | None):
        problem, url = problem or f"url must be text, not {kind_of(url)}", None
    return ToolCall(identity, name, arguments, span, problem or unreadable, url)
