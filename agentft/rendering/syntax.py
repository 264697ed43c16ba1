"""How a chat template writes calls, found by probing it with sentinel calls, and the reader that follows from it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product, takewhile
from typing import Any

from agentft.calls.format import declare_tool, dump_json
from agentft.calls.reading import CallKeys, make_call, read_literal_call
from agentft.calls.thoughts import THINK
from agentft.errors import FrameError
from agentft.json_text import UnreadableError, read_json
from agentft.rendering.thinking import EMPTY_REST, MARK, THOUGHT_MARK
from agentft.types import Json, ParseFailure, Part, Span, Text, ToolCall, ToolDefinition

__all__ = ["EMPTY_THOUGHT", "REMEDY", "CallSyntax", "ToolTemplate", "find_syntax"]

Message = Mapping[str, Any]
ToolTemplate = Callable[[Sequence[Message], bool, Sequence[Json]], str]
"""(messages, add generation prompt, tools) -> text. It may raise a FrameError."""

_NO_TOOLS = "the chat template does not declare tools to the model, so the call format native is not possible"
_UNREADABLE = "the calls of the chat template are not a name with JSON arguments, so they could not be read back"
REMEDY = "use the call format hermes (--format hermes; for --baseline base, --baseline-format hermes)"
_IDS = ("aB3dE6gH9", "zY8wV5tS2")
_NAMES = ("probe_alpha", "probe_omega")
_ARGUMENTS: tuple[dict[str, Json], ...] = ({"city": "Oslo fjord", "days": 2}, {"city": "Rome", "exact": True})
_THOUGHT_KEYS = ("reasoning_content", "thinking", "reasoning")
_CITY: dict[str, Json] = {"type": "object", "properties": {"city": {"type": "string"}}}
_TOOLS: tuple[Json, ...] = tuple(declare_tool(ToolDefinition(name, "A probe.", _CITY)) for name in _NAMES)
_USER: Message = {"role": "user", "content": "Probe."}
EMPTY_THOUGHT = re.compile(rf"\s*(?:{THINK})?\s*</think>\s*")
_NAME = r"""([^\s<>{}\[\]"|]{1,256})"""
_WHITE = r"\s{0,8}"  # bounded, like all repetitions here: the text is a model's
_SPACE = re.compile(r"\s*")
_MAX_STOPS = 4  # closing marks that are tried as the end of a Python literal


@dataclass(frozen=True)
class CallSyntax:
    """What a template writes around calls and answers after its generation prompt.

    `head`, `tail`: before the first call and after the last. `gap`: between two calls; None if each has its own head
    and tail, or a reply has only one. `keys`: of the object that holds name and arguments; None if `middle` stands
    between the name and the arguments. `stop`: the control token after a reply that calls. `lead`: before an answer.
    `after`: what the template writes after an answer's control token. `opening`, `closing`: around a thought that
    messages have under `thought_key`. `as_text`: it wants arguments as JSON text. `blank`: the content of a message
    that only calls. `strict_ids`: it shows the ids of calls, or wants ids of nine letters and digits.
    `begun`: the generation prompt begins a thought.
    """

    head: str
    gap: str | None
    tail: str
    keys: CallKeys | None
    middle: str
    stop: str
    lead: str
    after: str
    thought_key: str
    opening: str
    closing: str
    as_text: bool
    blank: str | None
    strict_ids: bool
    begun: bool

    def read(self, text: str) -> tuple[Part, ...]:
        """A completion as parts whose spans tile it. Never raises: a bad call has a `parse_error`."""
        parts: list[Part] = []
        at = self._read_thought(text, parts) if self.opening and THINK not in self.opening else 0
        begin = at + len(self.lead) if text.startswith(self.lead, at) else at
        calls = 0
        while opened := self._opener.search(text, begin):
            found = list(self._read_section(text, opened))
            if not found:
                break  # JSON that is an answer
            if opened.start() > begin:
                parts.append(Text(text[begin : opened.start()], Span(at, opened.start())))
                at = opened.start()
            for value, end, failure in found:
                parts.append(make_call(f"call_{calls}", value, Span(at, end), self.keys or CallKeys(), failure))
                calls, at = calls + 1, end
            begin = at
        if at < len(text):
            parts.append(Text(text[begin:], Span(at, len(text))))
        return tuple(parts)

    def _read_thought(self, text: str, parts: list[Part]) -> int:
        """Add the thought at the start of the text; its end."""
        if not text.startswith(self.opening):
            return 0
        middle, closed, _ = text[len(self.opening) :].partition(self.closing)
        end = len(self.opening) + len(middle) + len(closed)
        parts.append(Text(middle.strip(), Span(0, end), thought=True))
        return end

    @cached_property
    def _opener(self) -> re.Pattern[str]:
        between = rf"|{_loose(self.gap)}" if self.gap and self.gap.strip() else ""  # also after a text
        head = rf"\n?{_loose(self.head)}" if self.head.strip() else rf"(?:\A{between}){_WHITE}"
        if self.keys is None:
            if self.head.strip() and not self.head.lstrip().startswith("<"):
                head = rf"(?:<\|\w{{1,32}}\|>\w{{0,32}})?{head}"  # models may name the channel before the recipient
            marks = re.findall(r"<[^<>\s]+>", self.middle)
            middle = rf"[^{{]{{0,80}}?{re.escape(marks[-1])}{_WHITE}" if marks else _loose(self.middle)
            return re.compile(f"{head}{_NAME}{middle}" + ("" if self.head.strip() else r"(?=\{)"))
        if self.head.strip():
            return re.compile(head)
        return re.compile(
            rf'{head}(?:<\|\w{{1,32}}\|>{_WHITE})?(?=\{{{_WHITE}"(?:{self.keys.name}|{self.keys.arguments})"{_WHITE}:)'
        )

    @cached_property
    def _tail(self) -> re.Pattern[str]:
        return re.compile(rf"{_loose(self.tail)}(?:{_WHITE}{re.escape(self.stop)})?")

    @cached_property
    def _gap(self) -> re.Pattern[str]:
        gap = r"(?!)" if self.gap is None else _loose(self.gap)
        return re.compile(gap if self.keys or self.gap is None else rf"{gap}{_NAME}{_loose(self.middle)}")

    def _read_section(self, text: str, opened: re.Match[str]) -> Iterator[tuple[Json, int, ParseFailure | None]]:
        """The value of each call after `opened`, with its end and a failure in its structure, if any."""
        close = self.tail.split()[0] if self.tail.strip() else ""
        while True:
            value, end, failure = _read_object(text, opened.end(), close)
            if not self.head.strip() and self.keys and not failure and not _has(value, self.keys):
                return
            if self.keys is None:
                value = {"name": opened[1], "arguments": value}
            following = None if failure else self._gap.match(text, end)
            if following is not None:
                yield value, following.start(), None
                opened = following
                continue
            if failure is None:
                closed = self._tail.match(text, end)
                if closed:
                    end = closed.end()
                elif _cut_off(text, end, self.tail.strip()):
                    end = len(text)
                else:
                    at = text.find(close, end) if close else -1
                    stop = len(text) if at < 0 else at + len(close)
                    surplus = text[end:stop].removesuffix(close).strip()
                    failure, end = ParseFailure("structure", f"surplus text after the call: {surplus[:40]!r}"), stop
            yield value, end, failure
            return


def _read_object(text: str, start: int, close: str) -> tuple[Json, int, ParseFailure | None]:
    """The object that begins at `start`, its end, and a failure, whose end is after the next closing mark."""
    try:
        if not text.startswith("{", start):
            raise UnreadableError("no JSON object where the call begins")
        value, end = read_json(text, start)
    except UnreadableError as error:
        found = islice(re.compile(re.escape(close) or r"\Z").finditer(text, start), _MAX_STOPS)
        ends = [match.start() for match in found]
        if literal := read_literal_call(text, start, ends or [len(text)]):
            return *literal, None
        is_content = bool(ends) and text.startswith("{", start)
        end = ends[0] + len(close) if ends else len(text)
        return {}, end, ParseFailure("content" if is_content else "structure", str(error))
    return value, end, None


def _cut_off(text: str, end: int, tail: str) -> bool:
    """Whether the text ends inside the closing mark, or before it."""
    space = _SPACE.match(text, end)
    start = space.end() if space else end
    return len(text) - start < len(tail) and tail.startswith(text[start:])


def _has(value: Json, keys: CallKeys) -> bool:
    return isinstance(value, dict) and {keys.name, keys.arguments} <= value.keys()


def _common(texts: Sequence[str]) -> str:
    """The longest common beginning."""
    return "".join(both[0] for both in takewhile(lambda both: len(set(both)) == 1, zip(*texts, strict=False)))


def _loose(literal: str) -> str:
    """A pattern for a text of the template with any white space where it has some, and any id for that of a probe."""
    pattern = _WHITE.join(map(re.escape, re.split(r"\s+", literal)))
    for identity in _IDS:
        pattern = pattern.replace(identity, r"[^\s{]{0,64}?")
    return pattern


def find_syntax(template: ToolTemplate, controls: Sequence[str], stop: str) -> CallSyntax:
    """Probe a template.

    Args:
        controls: texts of the tokenizer's control tokens.
        stop: what ends an answer.

    Raises:
        FrameError: it declares no tools, or its calls cannot be read back.
    """
    try:
        shown = template([_USER], True, _TOOLS)
    except FrameError as error:  # it wants tools in a form of its own
        raise FrameError(f"{_NO_TOOLS}: {error}; {REMEDY}") from None
    if _NAMES[0] not in shown:
        raise FrameError(f"{_NO_TOOLS}; {REMEDY}")
    problems: list[str] = []  # empty where calls are rendered
    forms = (False, True) if _wants_text(template) else (False,)
    for as_text, blank in product(forms, ("", None)):
        found = None
        try:
            found = _Probe(template, controls, stop, as_text, blank).find()
            problems.append("")
        except FrameError as error:
            problems.append(f": {error}")
        if found:
            return found
    raise FrameError(f"{_UNREADABLE}{problems[0] if all('cannot render' in one for one in problems) else ''}; {REMEDY}")


def _wants_text(template: ToolTemplate) -> bool:
    """Whether the template fails for arguments that are an object, or writes them as Python does."""
    try:
        reply = {"role": "assistant", "content": "", "tool_calls": [_call(0, _IDS[0], as_text=False)]}
        return str(_ARGUMENTS[0]) in template([_USER, reply], False, _TOOLS)
    except FrameError:
        return True


@dataclass(frozen=True)
class _Probe:
    """One way to give calls to a template. Its methods raise a FrameError if the template fails."""

    template: ToolTemplate
    controls: Sequence[str]
    stop: str
    as_text: bool
    blank: str | None

    def find(self) -> CallSyntax | None:
        """The syntax, or None if the calls that the template writes this way cannot be read back."""
        answer = self._said({"content": MARK.format(0)})
        lead, _, after = answer.partition(MARK.format(0))
        after = after.removeprefix(self.stop) if after.startswith(self.stop) else ""
        one, stop = self._stopped([_call(0, _IDS[0], self.as_text)], after)
        first = _locate(one, 0)
        if first is None:
            return None
        start, end, keys, middle = first
        head, tail, gap = one[:start], one[end:], None
        with suppress(FrameError):
            two = self._stopped([_call(at, identity, self.as_text) for at, identity in enumerate(_IDS)], after)[0]
            second = _locate(two, 1)
            if second and two.startswith(one[:end]):
                gap, tail = two[end : second[0]], two[second[1] :]
        if gap is not None and gap.startswith(tail) and tail.strip() and gap.endswith(head) and head.strip():
            gap = None  # each call has its own marks
        key, opening, closing = self._thought()
        syntax = CallSyntax(
            head=head,
            gap=gap,
            tail=tail,
            keys=keys,
            middle=middle,
            stop=stop,
            lead=lead,
            after=after,
            thought_key=key,
            opening=opening,
            closing=closing,
            as_text=self.as_text,
            blank=self.blank,
            strict_ids=self._wants_ids(one),
            begun=self._prompt.rstrip().endswith(THINK),
        )
        match syntax.read(one + stop):
            case [ToolCall(name=name, arguments=said, parse_error=None)] if (name, said) == (_NAMES[0], _ARGUMENTS[0]):
                return syntax
        return None

    @cached_property
    def _prompt(self) -> str:
        return self.template([_USER], True, _TOOLS)

    def _said(self, message: Message, *more: Message) -> str:
        """What follows the generation prompt."""
        prompt = self._prompt
        text = self.template([_USER, {"role": "assistant", **message}, *more], False, _TOOLS)
        said = text[len(_common([text, prompt])) :]
        empty = EMPTY_THOUGHT.match(said)
        return said[empty.end() :] if empty else said

    def _stopped(self, calls: list[Json], after: str) -> tuple[str, str]:
        """The calls as the template writes them, and the control token after them."""
        message = {"content": self.blank, "tool_calls": calls}
        text = self._said(message).removesuffix(after)
        ends = [control for control in self.controls if text.endswith(control)]
        if ends:
            stop = max(ends, key=len)
            return text.removesuffix(stop), stop
        result = {"role": "tool", "tool_call_id": _IDS[0], "name": _NAMES[0], "content": MARK.format(1)}
        following = self._said(message, result).removeprefix(text)
        found = [
            (following.index(control), -len(control), control) for control in self.controls if control in following
        ]
        return text, min(found)[2] if found else self.stop

    def _thought(self) -> tuple[str, str, str]:
        """The key of a message's thought, and what the template writes before and after it."""
        mark = THOUGHT_MARK.format(0)
        for key in _THOUGHT_KEYS:
            with suppress(FrameError):
                before, shown, after = self._said({"content": MARK.format(0), key: mark}).partition(mark)
                call = {"content": self.blank, "tool_calls": [_call(0, _IDS[0], self.as_text)], key: mark}
                if shown:
                    return key, before, _common([after, self._said(call).partition(mark)[2] or after])
        return "", "", EMPTY_REST

    def _wants_ids(self, one: str) -> bool:
        try:
            self._said({"content": self.blank, "tool_calls": [_call(0, "c1", self.as_text)]})
        except FrameError:
            return True
        return _IDS[0] in one


def _call(at: int, identity: str, as_text: bool) -> Json:
    arguments: Json = dump_json(_ARGUMENTS[at]) if as_text else dict(_ARGUMENTS[at])
    return {"id": identity, "type": "function", "function": {"name": _NAMES[at], "arguments": arguments}}


def _locate(text: str, at: int) -> tuple[int, int, CallKeys | None, str] | None:
    """Start and end of a sentinel call, its keys, and what stands between name and arguments."""
    found = None
    for start in (match.start() for match in re.finditer(r"\{", text)):
        with suppress(UnreadableError):
            value, end = read_json(text, start)
            if not isinstance(value, dict):
                continue
            names = [key for key, one in value.items() if one == _NAMES[at]]
            arguments = [key for key, one in value.items() if one in (_ARGUMENTS[at], dump_json(_ARGUMENTS[at]))]
            if names and arguments:
                return start, end, CallKeys(names[0], arguments[0]), ""
            if value == _ARGUMENTS[at] and found is None:
                found = start, end
    if found is None:
        return None
    begin = text.rfind(_NAMES[at], 0, found[0])
    return None if begin < 0 else (begin, found[1], None, text[begin + len(_NAMES[at]) : found[0]])
