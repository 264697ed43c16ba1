"""Thoughts in an assistant's text: a `<think>` block at the start of a reply is a part of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from agentft.types import Part, Span, Text, ToolResult

__all__ = [
    "THINK",
    "add_thought",
    "begin_thought",
    "is_thought",
    "join_thoughts",
    "parse_begun",
    "read_text",
    "with_thoughts",
    "write_thought",
]

THINK, _END = "<think>", "</think>"
_BLOCK = re.compile(rf"\s*{THINK}(.*?){_END}\s*", re.DOTALL)
_BEGUN = re.compile(rf"\s*{THINK}\s*")

Parse = Callable[[str], tuple[Part, ...]]


def write_thought(text: str) -> str:
    """A thought as text, where the chat template has no form of its own for it."""
    return f"{THINK}\n{text.strip()}\n{_END}\n\n"


def is_thought(part: Part) -> bool:
    """Whether a part is a thought, perhaps an empty one."""
    return isinstance(part, Text) and part.thought


def join_thoughts(parts: Sequence[Part]) -> str:
    """The different thoughts among the parts as one text."""
    thoughts = (part.text.strip() for part in parts if isinstance(part, Text) and part.thought)
    return "\n\n".join(dict.fromkeys(filter(None, thoughts)))


def add_thought(text: str, thought: str) -> str:
    """A reply's text with one more thought at its start."""
    if not thought.strip():
        return text
    block = _BLOCK.match(text)
    own, end = (block[1], block.end()) if block else ("", 0)
    return write_thought(join_thoughts([Text(one, Span(0, 0), thought=True) for one in (thought, own)])) + text[end:]


def begin_thought(text: str, beside: str) -> str:
    """A recorded reply with the `<think>` that its prompt began, so that only a line with the end was recorded.

    `beside`: the thought under a key of its own, if there is one; a text that does not repeat it is then an answer.
    """
    thought, end, answer = text.partition(_END)
    other = THINK in thought or "<|startof" in thought  # the end stands in a block, or in an MS-Agent call
    return THINK + text if end and not other and beside.strip() in thought and answer[:1] in ("", "\n") else text


def with_thoughts(parse: Parse) -> Parse:
    """A parser that splits off the thoughts: a block at the start of the text or after a result.

    The whitespace around a block belongs to its span. A block that is not closed ends before the first call.
    """

    def parse_thoughts(text: str) -> tuple[Part, ...]:
        block = _BLOCK.match(text)
        if block is None:
            return tuple(_split_later(parse(text)))
        end = block.end()
        rest = (replace(part, span=Span(part.span.start + end, part.span.end + end)) for part in parse(text[end:]))
        return (Text(block[1].strip(), Span(0, end), thought=True), *_split_later(tuple(rest)))

    return parse_thoughts


def parse_begun(parse: Parse, text: str, *, begun: bool) -> tuple[Part, ...]:
    """Parse a completion. `begun`: the prompt began the thought, unless the model did so again."""
    if not begun or text.lstrip().startswith(THINK):
        return parse(text)
    shift = len(THINK)
    parts = parse(THINK + text)
    spans = (Span(max(part.span.start - shift, 0), part.span.end - shift) for part in parts)
    return tuple(replace(part, span=span) for part, span in zip(parts, spans, strict=True))


def _split_later(parts: tuple[Part, ...]) -> Iterator[Part]:
    before: Part | None = None
    for part in parts:
        block = None
        if isinstance(part, Text) and isinstance(before, ToolResult):
            block = _BLOCK.match(part.text)
        begun = _BEGUN.match(part.text) if isinstance(part, Text) and part.span.start == 0 else None
        if block and isinstance(part, Text):
            middle = part.span.start + block.end()
            yield Text(block[1].strip(), Span(part.span.start, middle), thought=True)
            if middle < part.span.end:
                yield Text(part.text[block.end() :], Span(middle, part.span.end))
        elif begun and isinstance(part, Text):
            yield Text(part.text[begun.end() :], part.span, thought=True)
        else:
            yield part
        before = part


def _whole(text: str) -> tuple[Part, ...]:
    return (Text(text, Span(0, len(text))),) if text else ()


read_text: Parse = with_thoughts(_whole)
"""The parts of a text without calls."""
