"""The call format `native`: a tokenizer's own chat template with its tools, calls and results.

The template renders every prompt and every reply itself. Contents stand between marks while it does, so that control
tokens in contents stay text. Without the marks, the text must equal the template's rendering of the bare messages.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, TypeAlias, TypeVar

from agentft.calls import NATIVE
from agentft.calls.format import declare_tool, dump_json
from agentft.calls.thoughts import THINK, parse_begun, with_thoughts
from agentft.errors import FrameError
from agentft.rendering.frame import ChatTokenizer, Frame, chat_renderer
from agentft.rendering.messages import ChatMessage, chat_messages
from agentft.rendering.render import count_thoughts
from agentft.rendering.syntax import EMPTY_THOUGHT, REMEDY, CallSyntax, ToolTemplate, find_syntax
from agentft.rendering.template import guarded
from agentft.rendering.thinking import EMPTY_REST
from agentft.types import Conversation, Json, Part, Segment, SegmentKind, ToolCall

__all__ = ["NativeRendering"]

_BLOCK = re.compile(rf"{THINK}\s*(?:</think>\s*)?\Z")
_KINDS: tuple[SegmentKind, ...] = ("call", "system", "user", "result", "answer", "thought")
_ROLES: dict[str, SegmentKind] = {"system": "system", "user": "user", "tool": "result", "assistant": "answer"}
_Pieces: TypeAlias = list[tuple[SegmentKind | None, str]]
_Marker: TypeAlias = Callable[[SegmentKind, str], str]
_Built = TypeVar("_Built")


class _RewrittenError(FrameError):
    """The template renders marked contents differently."""


@dataclass(frozen=True)
class NativeRendering:
    """The rendering of a tokenizer's own template. `templates`: without and with the model's thoughts."""

    frame: Frame
    syntax: CallSyntax
    templates: tuple[ToolTemplate, ToolTemplate]
    thinking: bool = False

    @classmethod
    def of_tokenizer(cls, tokenizer: ChatTokenizer, *, thinking: bool = False) -> NativeRendering:
        """Probe the tokenizer's template. `thinking`: with the model's thoughts.

        Raises:
            FrameError: it has none, or it cannot declare tools or write calls that can be read back.
        """
        frame, render = Frame.of_tokenizer(tokenizer), chat_renderer(tokenizer)

        def template(
            messages: Sequence[Mapping[str, Any]], prompt: bool, tools: Sequence[Json], *, thinking: bool
        ) -> str:
            return guarded(partial(render, thinking=thinking, tools=[*tools] or None))(messages, prompt)

        templates = partial(template, thinking=False), partial(template, thinking=True)
        return cls(frame, find_syntax(templates[thinking], frame.controls, frame.stop), templates, thinking)

    @property
    def name(self) -> str:
        """See `Rendering.name`."""
        return NATIVE

    @property
    def stop(self) -> tuple[str, ...]:
        """See `Rendering.stop`."""
        return () if self.frame.stop.endswith(self.syntax.stop) else (self.syntax.stop,)

    def prompt(self, conversation: Conversation) -> tuple[Segment, ...]:
        """See `Rendering.prompt`."""
        return _build(conversation, self, lambda chat: tuple(chat.context(len(chat.messages), prompt=True)[0]))

    def samples(self, conversation: Conversation) -> list[tuple[Segment, ...]]:
        """See `Rendering.samples`. If the template rewrites earlier turns, there is one for each reply."""
        thinking = self.thinking and count_thoughts(conversation) > 0
        return _build(conversation, replace(self, thinking=thinking), _samples)

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """Finds control tokens."""
        return re.compile("|".join(map(re.escape, sorted(self.frame.controls, key=len, reverse=True))))

    def parse(self, text: str) -> tuple[Part, ...]:
        """See `Rendering.parse`."""
        return parse_begun(with_thoughts(self.syntax.read), text, begun=self.thinking and self.syntax.begun)

    def describe(self) -> Mapping[str, Json]:
        """See `Rendering.describe`."""
        return {
            "call_format": NATIVE,
            "stop": [*self.stop, self.frame.stop],
            "frame_sha256": self.frame.fingerprint,
            "frame_stable": self.frame.stable,
        }


@dataclass
class _Chat:
    """A conversation with what the template renders for its beginnings: marked text."""

    messages: list[ChatMessage]
    tools: list[Json]
    rendering: NativeRendering
    marks: str = ""  # the closing mark, and an opening mark for each of _KINDS
    whole: bool = True  # contents are marked as a whole, not only the control tokens in them
    texts: dict[tuple[int, bool], str] = field(default_factory=dict)

    @classmethod
    def of(cls, conversation: Conversation, rendering: NativeRendering) -> _Chat:
        messages = [*chat_messages(conversation, rendering.frame, strict_ids=rendering.syntax.strict_ids)]
        chat = cls(messages, [declare_tool(tool) for tool in conversation.tools], rendering)
        used = set(dump_json([chat.tools, [chat.write(message, _bare) for message in messages]]))
        size = len(_KINDS) + 1
        blocks = (range(first, first + size) for first in range(0xF0000, 0xFFFF0, size))
        chat.marks = next(marks for block in blocks if used.isdisjoint(marks := "".join(map(chr, block))))
        return chat

    def replies(self, count: int) -> list[int]:
        """The replies among the first messages. One without a message before it is never asked for."""
        return [at for at in range(1, count) if self.messages[at].role == "assistant"]

    def context(self, count: int, *, prompt: bool) -> tuple[list[Segment], bool]:
        """The first messages as segments, and whether the template renders each reply in them as it was generated."""
        text, segments, at = self._text(count, prompt=prompt), list[Segment](), 0
        for number in self.replies(count):
            try:
                before, body, stop = self._reply(number)
            except _RewrittenError:
                raise
            except FrameError:  # one that serving never asks for: `samples` reports it
                break
            is_last = number == count - 1 and not prompt  # after which some templates write no control token
            if not text.startswith(before + body + ("" if is_last else stop)):
                break
            segments += self._given(text[at : len(before)]) + self.said(number)
            at = len(before + body + stop)
        else:
            return segments + self._given(text[at:]), True
        return segments + self._given(text[at:]), False

    def said(self, number: int) -> list[Segment]:
        """A reply as segments, with its stop token."""
        message, (_, body, stop) = self.messages[number], self._reply(number)
        pieces = list(self._pieces(body))
        thoughts = self._split_thought(pieces, message)
        spoken = self._spoken(pieces)
        kinds: list[SegmentKind] = ["answer"] * len(pieces)
        if message.calls:
            kinds = ["preamble" if at <= spoken else "call" for at in range(len(pieces))]
        end: SegmentKind = "terminator" if message.calls else "end"
        if message.unreadable:
            kinds, end = ["unreadable"] * len(pieces), "unreadable"
        said = [
            Segment(text, True, kind, message.excluded, markup=mark is None)
            for (mark, text), kind in zip(pieces, kinds, strict=True)
        ]
        return [s for s in (*thoughts, *said, Segment(stop, True, end, message.excluded)) if s.text]

    def check(self, number: int) -> None:
        """Raises a FrameError unless the calls of a reply can be read back from it."""
        message, (_, body, stop) = self.messages[number], self._reply(number)
        if not self.whole and (message.thought or (message.calls and message.content.strip())):
            raise FrameError("the chat template rewrites this conversation, so text before a call is not told from it")
        pieces = [*self._pieces(body)]
        before = "".join(text for _, text in pieces[: max(self._spoken(pieces), 0)])
        if message.calls and any(isinstance(part, ToolCall) for part in self.rendering.parse(before)):
            raise FrameError(f"the chat template writes the text of a reply after its calls; {REMEDY}")
        read = self.rendering.parse("".join(text for _, text in pieces) + stop)
        found = [(part.name, part.arguments) for part in read if isinstance(part, ToolCall)]
        if message.calls and not message.unreadable and found != [(c.name, dict(c.arguments)) for c in message.calls]:
            raise FrameError(
                f"the chat template writes the {len(message.calls)} calls of a reply so that "
                f"{len(found)} can be read back; {REMEDY}"
            )

    @staticmethod
    def _spoken(pieces: _Pieces) -> int:
        """The place of the last piece of the reply's text; -1: it has none."""
        return max((at for at, (kind, _) in enumerate(pieces) if kind == "answer"), default=-1)

    def _given(self, text: str) -> list[Segment]:
        kinds: dict[SegmentKind | None, SegmentKind] = {None: "frame", "call": "system"}  # a control token in a tool
        return [Segment(text, False, kinds.get(kind, kind or "frame")) for kind, text in self._pieces(text)]

    def _split_thought(self, pieces: _Pieces, message: ChatMessage) -> list[Segment]:
        """Take the thought from the pieces of a reply, with what the template writes around it."""
        last = max((at for at, (kind, _) in enumerate(pieces) if kind == "thought"), default=-1)
        taken, pieces[: last + 1] = pieces[: last + 1], []
        if pieces and pieces[0][0] is None and self.rendering.thinking:
            text, closing = pieces[0][1], self.rendering.syntax.closing
            empty = EMPTY_THOUGHT.match(text)
            end = (len(closing) if text.startswith(closing) else 0) if taken else empty.end() if empty else 0
            taken, pieces[0] = [*taken, (None, text[:end])], (None, text[end:])
        excluded = message.excluded or last < 0
        return [Segment(text, True, "thought", excluded, markup=kind is None) for kind, text in taken]

    def _reply(self, number: int) -> tuple[str, str, str]:
        """The prompt for a reply, the reply, and the control token that ends it."""
        prompt, done = self._text(number, prompt=True), self._text(number + 1, prompt=False)
        rest = done.removeprefix(prompt) if done.startswith(prompt) else self._rest(number, prompt, done)
        thought = self._mark("thought", self.messages[number].thought) if self.rendering.thinking else ""
        if thought and thought not in rest:  # the template drops it
            rest = ("" if self.rendering.syntax.begun else f"{THINK}\n") + thought + EMPTY_REST + rest
        frame, syntax = self.rendering.frame, self.rendering.syntax
        body = rest.removesuffix(syntax.after)
        bare = body.rstrip()  # some templates write line breaks after the control token of a call
        ends = [end for end in (frame.stop, *frame.controls) if bare.endswith(end)]
        stop, body = max(ends, key=len, default=""), bare if ends else body
        missing = syntax.stop if self.messages[number].calls else frame.stop
        return prompt, body.removesuffix(stop), stop or missing

    def _rest(self, number: int, prompt: str, done: str) -> str:
        """The reply in a text that does not begin with its prompt, since the template rewrites what was before it."""
        head = _BLOCK.sub("", prompt)
        if head != prompt and done.startswith(head):  # the prompt begins a thought, and it is dropped
            lacks = self.rendering.thinking and not self.messages[number].thought
            begun = prompt[len(head) :].removesuffix(EMPTY_REST)  # some templates begin it before each last reply
            return (EMPTY_REST if lacks else "") + done[len(head) :].removeprefix(begun)
        what = "begins this reply (perhaps text after a call) unlike its generation prompt"
        raise FrameError(f"the chat template {what}; {REMEDY}")

    @cached_property
    def written(self) -> list[tuple[list[dict[str, Any]], list[Any]]]:
        """The messages and tools as the template gets them: bare, and with marks."""
        return [
            ([self.write(message, mark) for message in self.messages], [_each_text(tool, mark) for tool in self.tools])
            for mark in (_bare, self._mark)
        ]

    def _text(self, count: int, *, prompt: bool) -> str:
        """What the template renders for the first messages, with marks."""
        if (count, prompt) not in self.texts:
            template = self.rendering.templates[self.rendering.thinking]
            bare, marked = (template(messages[:count], prompt, tools) for messages, tools in self.written)
            pieces = list(self._pieces(marked))
            if "".join(text for _, text in pieces) != bare:
                raise _RewrittenError(f"the chat template rewrites contents or control tokens; {REMEDY}")
            if prompt:
                self._check_kept(self.messages[:count], pieces)
            if prompt and not self.rendering.thinking and bare.rstrip().endswith(THINK):
                marked += EMPTY_REST
            self.texts[count, prompt] = marked
        return self.texts[count, prompt]

    def _check_kept(self, messages: Sequence[ChatMessage], pieces: _Pieces) -> None:
        for role in ("system", "user", "tool"):
            written = sum(bool(message.content.strip()) for message in messages if message.role == role)
            if self.whole and sum(kind == _ROLES[role] for kind, _ in pieces) != written:
                raise FrameError(f"the chat template leaves out or repeats the content of a {role} message")

    def _pieces(self, text: str) -> Iterator[tuple[SegmentKind | None, str]]:
        """The text without marks, in pieces: (kind of content, or None for what the template wrote, text)."""
        close, opens = self.marks[0], self.marks[1:]
        at = 0
        for found in re.finditer(f"([{opens}])([^{self.marks}]*){close}", text):
            if found.start() > at:
                yield None, text[at : found.start()]
            yield _KINDS[opens.index(found[1])], found[2]
            at = found.end()
        if at < len(text):
            yield None, text[at:]

    def _mark(self, kind: SegmentKind, text: str) -> str:
        """The text between marks, or with marks around the control tokens in it. Outer white space stays outside."""
        if self.whole and kind != "call":
            core = text.strip()
            before, _, after = text.partition(core) if core else (text, "", "")
            return before + self._between(kind, core) + after if core else text
        for control in self.rendering.frame.controls:
            if control in text:
                return self.rendering.pattern.sub(lambda found: self._between("call", found[0]), text)
        return text

    def _between(self, kind: SegmentKind, text: str) -> str:
        return self.marks[1 + _KINDS.index(kind)] + text + self.marks[0]

    def write(self, message: ChatMessage, mark: _Marker) -> dict[str, Any]:
        """The message as the template gets it."""
        syntax, role = self.rendering.syntax, message.role
        data: dict[str, Any] = {"role": role, "content": mark(_ROLES[role], message.content)}
        if message.thought and self.rendering.thinking:
            thought = mark("thought", message.thought)
            if syntax.thought_key:
                data[syntax.thought_key] = thought
            else:
                data["content"] = f"{THINK}\n{thought}\n</think>\n\n{data['content']}"
        if role == "tool":
            data |= {"tool_call_id": message.call_id, "name": mark("call", message.name)}
        if message.calls:
            data |= {"content": data["content"] or syntax.blank, "tool_calls": []}
        for call in message.calls:
            arguments: Any = _each_text(dict(call.arguments), mark)
            function = {
                "name": mark("call", call.name),
                "arguments": dump_json(arguments) if syntax.as_text else arguments,
            }
            data["tool_calls"].append({"id": call.id, "type": "function", "function": function})
        return data


def _build(conversation: Conversation, rendering: NativeRendering, build: Callable[[_Chat], _Built]) -> _Built:
    chat = _Chat.of(conversation, rendering)
    try:
        return build(chat)
    except _RewrittenError:  # the template reads or changes contents
        return build(replace(chat, whole=False, texts={}))


def _samples(chat: _Chat) -> list[tuple[Segment, ...]]:
    for at in chat.replies(len(chat.messages)):
        chat.check(at)
    whole, is_stable = chat.context(len(chat.messages), prompt=False)
    if is_stable:
        return [tuple(whole)]
    rows = []
    for at in chat.replies(len(chat.messages)):
        history = chat.context(at, prompt=True)[0]
        earlier = (replace(segment, excluded=True) if segment.sampled else segment for segment in history)
        rows.append((*earlier, *chat.said(at)))
    return rows


def _bare(kind: SegmentKind, text: str) -> str:
    del kind
    return text


def _each_text(value: Json, mark: _Marker) -> Json:
    """A JSON value with every text and key in it marked."""
    if isinstance(value, str):
        return mark("call", value)
    if isinstance(value, list):
        return [_each_text(item, mark) for item in value]
    if isinstance(value, dict):
        return {mark("call", key): _each_text(item, mark) for key, item in value.items()}
    return value
