"""Compares what a server will render with what the run was trained on, prompt by prompt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, TypeAlias

from agentft.calls.format import declare_tool, dump_json
from agentft.errors import FrameError
from agentft.rendering import FramedRendering
from agentft.rendering.messages import ChatMessage, chat_messages
from agentft.rendering.native import NativeRendering
from agentft.rendering.render import count_thoughts, render_messages
from agentft.strict import counted
from agentft.types import Conversation, Json, Segment, ToolCall

__all__ = ["Parity", "Render", "check_parity", "server_messages"]

Render: TypeAlias = Callable[[Sequence[Mapping[str, Any]], Sequence[Json], bool], str]
"""(messages, tools, add generation prompt) -> text, as the server renders it. It may raise any error of a template."""
_AROUND = 60


@dataclass(slots=True)
class Parity:
    """What was compared. `texts`: prompts; `equal`: those that are. `as_text`: rows whose system text and calls only
    render as trained if they are sent as text, since they were trained in the data set's own wording."""

    rows: int = 0
    texts: int = 0
    equal: int = 0
    as_text: int = 0
    first: str = ""
    unsendable: list[str] = field(default_factory=list)

    @property
    def differ(self) -> int:
        """How many texts differ."""
        return self.texts - self.equal

    def sentence(self) -> str:
        """The result in one sentence."""
        rows = counted(self.rows, "row")
        return f"{self.equal} of {self.texts} prompts of {rows} are rendered exactly as in training"


def check_parity(
    rendering: FramedRendering | NativeRendering, conversations: Iterable[Conversation], render: Render
) -> Parity:
    """Render each prompt of the conversations both ways."""
    parity = Parity()
    for conversation in conversations:
        if rendering.thinking and not count_thoughts(conversation):
            continue  # such a row was trained as if the model did not think
        try:
            samples = rendering.samples(conversation)
        except FrameError:  # training rejected it
            continue
        ours = _prompts(samples, framed=isinstance(rendering, FramedRendering))
        pairs = _structured(rendering, conversation, ours, render)
        if isinstance(rendering, FramedRendering) and conversation.source == rendering.name:
            known = pairs is not None and all(a == b for a, b in pairs)
            texts = None if known else _as_text(rendering, conversation, render)
            if texts is not None and texts[0] == texts[1]:
                parity.as_text += 1
                pairs = [texts]
        if pairs and any(a != b for a, b in pairs) and _is_unreadable(conversation):
            pairs = None  # a server that cannot read a call takes no result of it
        if pairs is None:
            parity.unsendable.append(conversation.id)
            continue
        parity.rows += 1
        parity.texts += len(pairs)
        parity.equal += sum(a == b for a, b in pairs)
        if not parity.first and (wrong := next((pair for pair in pairs if pair[0] != pair[1]), None)):
            parity.first = f"{conversation.id}: {_first_difference(*wrong)}"
    return parity


def _is_unreadable(conversation: Conversation) -> bool:
    parts = (part for turn in conversation.turns for part in turn.parts)
    return any(isinstance(part, ToolCall) and part.parse_error is not None for part in parts)


def server_messages(conversation: Conversation, rendering: FramedRendering | NativeRendering) -> list[dict[str, Any]]:
    """The conversation as a server hands it to a chat template, with arguments as objects."""
    syntax = rendering.syntax if isinstance(rendering, NativeRendering) else None
    frame = replace(rendering.frame, has_system=True)  # the served template folds it
    found = chat_messages(conversation, frame, strict_ids=syntax is not None and syntax.strict_ids)
    return [_message(one, rendering.thinking, syntax) for one in found]


def _message(message: ChatMessage, thinking: bool, syntax: Any) -> dict[str, Any]:
    data: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.thought and thinking:
        data["reasoning_content"] = message.thought
    if message.role == "tool":
        data |= {"tool_call_id": message.call_id, "name": message.name}
    if message.calls:
        as_text, blank = (syntax.as_text, syntax.blank) if syntax else (False, "")
        calls = [(call.id, call.name, dict(call.arguments)) for call in message.calls]
        functions = [
            (call_id, {"name": name, "arguments": dump_json(values) if as_text else values})
            for call_id, name, values in calls
        ]
        data["content"] = data["content"] or blank
        data["tool_calls"] = [{"id": one, "type": "function", "function": function} for one, function in functions]
    return data


def _prompts(samples: Sequence[tuple[Segment, ...]], *, framed: bool) -> list[str]:
    """The text before each reply. Only a frame's samples mark none but their own replies as sampled."""
    found = []
    for segments in samples:
        text, starts = "", list[str]()
        for sampled, run in groupby(segments, lambda segment: segment.sampled):
            if sampled:
                starts.append(text)
            text += "".join(segment.text for segment in run)
        found += starts if framed or len(samples) == 1 else starts[-1:]
    return found


def _structured(
    rendering: FramedRendering | NativeRendering, conversation: Conversation, ours: list[str], render: Render
) -> list[tuple[str, str]] | None:
    """Each prompt as trained and as served; None if the replies cannot be told apart as messages."""
    messages, tools = server_messages(conversation, rendering), [declare_tool(tool) for tool in conversation.tools]
    replies = [at for at, message in enumerate(messages) if message["role"] == "assistant"]
    if replies[:1] == [0]:  # nothing is asked before it
        ours = ours[1:] if len(ours) == len(replies) else ours
        replies = replies[1:]
    if len(replies) != len(ours):
        return None
    return [(text, _rendered(render, messages[:at], tools, True)) for text, at in zip(ours, replies, strict=True)]


def _as_text(rendering: FramedRendering, conversation: Conversation, render: Render) -> tuple[str, str] | None:
    """The whole row as trained, up to its last reply's end, and as served from contents alone."""
    samples = rendering.samples(conversation)
    messages = [{"role": role, "content": text} for role, text in render_messages(conversation, rendering.format)]
    if len(samples) > 1:
        return None
    last = max(at for at, one in enumerate(samples[0]) if one.sampled and one.kind != "end")
    ours = "".join(segment.text for segment in samples[0][: last + 1])
    return ours, _rendered(render, messages, [], False)[: len(ours)]


def _rendered(render: Render, messages: Sequence[Mapping[str, Any]], tools: Sequence[Json], prompt: bool) -> str:
    try:
        return render(messages, tools, prompt)
    except FrameError:
        raise
    except Exception as error:  # a template raises errors of its own, and its code may fail in any way
        return f"(the template fails: {error})"


def _first_difference(trained: str, served: str) -> str:
    """Both texts around the first difference."""
    at = next(
        (n for n, (a, b) in enumerate(zip(trained, served, strict=False)) if a != b), min(len(trained), len(served))
    )
    start = max(at - _AROUND, 0)
    shown = [f"{text[start : at + _AROUND]!r}" for text in (trained, served)]
    return f"at character {at}, trained: {shown[0]}, served: {shown[1]}"
