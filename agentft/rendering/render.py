"""Conversation -> segments. Training and serving both go through `_messages` and `Frame.outline`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from agentft.calls import CallFormat
from agentft.errors import FrameError
from agentft.rendering.frame import Frame, Trim
from agentft.types import (
    Conversation,
    Json,
    Part,
    Segment,
    SegmentKind,
    Text,
    ToolCall,
    ToolDefinition,
    ToolResult,
    Turn,
)

__all__ = ["describe_rendering", "render_prompt", "render_samples"]


@dataclass(slots=True)
class _Message:
    """One message of the frame: a role and the segments of its content."""

    role: str
    segments: list[Segment] = field(default_factory=list)


def render_samples(conversation: Conversation, fmt: CallFormat, frame: Frame) -> list[tuple[Segment, ...]]:
    """The conversation as training samples: one if the frame is stable, else one for each assistant message.

    Raises:
        FrameError: the template cannot render the conversation faithfully.
    """
    messages = _messages(conversation, fmt, frame)
    if frame.stable:
        return [_assemble(messages, frame, generation_prompt=False)]
    rows = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            prompt, lead, trim = _open(messages[:index], frame)
            completion = _ended(_with_lead(lead, _trimmed(message.segments, trim)), frame.stop, frame)
            rows.append((*prompt, *(segment for segment in completion if segment.text)))
    return rows


def render_prompt(conversation: Conversation, fmt: CallFormat, frame: Frame) -> tuple[Segment, ...]:
    """The prompt for the assistant's next turn, or for the rest of its turn if the conversation ends with one.

    Raises:
        FrameError: the template cannot render the conversation faithfully.
    """
    messages = _messages(conversation, fmt, frame)
    tail = messages.pop().segments if messages and messages[-1].role == "assistant" else []
    prompt, lead, trim = _open(messages, frame)
    begun = _trimmed(tail, (trim[0], ""))
    return (*prompt, *(_with_lead(lead, begun) if begun else ()))


def describe_rendering(fmt: CallFormat, frame: Frame) -> dict[str, Json]:
    """Metadata stored with an adapter, so that serving renders as training did."""
    probe = ToolDefinition("probe", "A probe.", {"type": "object", "properties": {}}, ("http://probe.test/probe",))
    system = fmt.write_system("Persona.", [probe])
    return {
        "call_format": fmt.name,
        "stop": [*fmt.stop, frame.stop],
        "frame_sha256": frame.fingerprint,
        "frame_stable": frame.stable,
        "system_sha256": hashlib.sha256(system.encode()).hexdigest(),
    }


def _messages(conversation: Conversation, fmt: CallFormat, frame: Frame) -> list[_Message]:
    """Turns as the frame's messages. Results go into the assistant message or into a separate user message."""
    messages: list[_Message] = []
    verbatim = conversation.source == fmt.name
    system = _system(conversation, fmt, verbatim)
    if system:
        messages.append(_Message("system", [Segment(system, False, "system")]))
    for turn in conversation.turns:
        if turn.role == "user":
            messages.append(_Message("user", [Segment(turn.raw, False, "user")]))
        elif turn.role != "system":
            for injected, parts in groupby(turn.parts, lambda part: isinstance(part, ToolResult)):
                group = list(parts)
                if injected:
                    _add_results(messages, group, turn.raw, fmt, verbatim and turn.role == "assistant")
                else:
                    _add_run(messages, group, turn, fmt, verbatim)
    for message in messages:
        if message.role == "assistant":
            message.segments = _without_stop(message.segments, frame)
    return _fold_system(messages) if system and not frame.has_system else messages


def _without_stop(segments: list[Segment], frame: Frame) -> list[Segment]:
    """The content without the control tokens that many data sets have at the end of an answer."""
    if not segments or segments[-1].kind not in ("answer", "preamble"):
        return segments
    *rest, last = segments
    text = last.text
    while stop := next((stop for stop in frame.controls if text.rstrip().endswith(stop)), None):
        text = text.rstrip().removesuffix(stop)
    return [*rest, replace(last, text=text)]


def _system(conversation: Conversation, fmt: CallFormat, verbatim: bool) -> str:
    turn = next((turn for turn in conversation.turns if turn.role == "system"), None)
    parts = turn.parts if turn else ()
    if turn and verbatim and not all(isinstance(part, Text) for part in parts):
        return turn.raw  # it declares the tools itself
    persona = "".join(part.text for part in parts if isinstance(part, Text))
    return fmt.write_system(persona.strip() if conversation.tools else persona, conversation.tools)


def _fold_system(messages: list[_Message]) -> list[_Message]:
    """Prepend the system text to the first user message, for frames without a system role."""
    system, *turns = messages
    if not turns or turns[0].role != "user":
        raise FrameError(
            "the chat template has no system role, and there is no first user message that could hold the system text"
        )
    first, *rest = turns
    gap = Segment("\n\n", False, "system")
    return [_Message(first.role, [*system.segments, gap, *first.segments]), *rest]


def _assistant(messages: list[_Message]) -> _Message:
    if not messages or messages[-1].role != "assistant":
        messages.append(_Message("assistant"))
    return messages[-1]


def _add_run(messages: list[_Message], parts: list[Part], turn: Turn, fmt: CallFormat, verbatim: bool) -> None:
    segments = fmt.read_run(parts, turn.raw) if verbatim else _rewritten(parts, turn.raw, fmt)
    segments = [replace(segment, excluded=True) for segment in segments] if turn.excluded else segments
    message = _assistant(messages)
    for run in _split_runs(segments):
        closed = bool(message.segments) and message.segments[-1].kind == "terminator"
        if closed and not "".join(segment.text for segment in run).strip():
            message.segments += [replace(segment, sampled=False, kind="frame") for segment in run]
            continue
        calls = any(segment.kind in ("call", "unreadable") for segment in run)
        message.segments += [replace(s, kind="preamble") if calls and s.kind == "answer" else s for s in run]


def _rewritten(parts: list[Part], raw: str, fmt: CallFormat) -> list[Segment]:
    """The run rewritten in the format `fmt`; unreadable calls stay verbatim."""
    segments: list[Segment] = []
    for unreadable, group in groupby(parts, lambda part: isinstance(part, ToolCall) and part.parse_error is not None):
        if unreadable:
            segments += [Segment(raw[part.span.start : part.span.end], True, "unreadable") for part in group]
        else:
            segments += fmt.write_run(list(group))
    return segments


def _split_runs(segments: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Split after each terminator, since serving stops there."""
    run: list[Segment] = []
    for segment in segments:
        run.append(segment)
        if segment.kind == "terminator":
            yield run
            run = []
    if run:
        yield run


def _add_results(messages: list[_Message], parts: list[Part], raw: str, fmt: CallFormat, verbatim: bool) -> None:
    results = [part for part in parts if isinstance(part, ToolResult)]
    written = "".join(raw[part.span.start : part.span.end] for part in results)
    text = written if verbatim else fmt.write_results(results)
    segment = Segment(text, False, "result")
    if fmt.inline_results:
        _assistant(messages).segments.append(segment)
    elif len(messages) > 1 and messages[-1].segments[-1].kind == "result":
        # Results of one step share a message even if each has its own turn, as in the vendor's template.
        messages[-1].segments[-1] = Segment(f"{messages[-1].segments[-1].text}\n{text}", False, "result")
    else:
        messages.append(_Message("user", [segment]))


def _open(messages: Sequence[_Message], frame: Frame) -> tuple[tuple[Segment, ...], str, Trim]:
    """The prompt for an assistant message, what the model generates before its content, and what the content loses."""
    given, lead, trim = frame.opening([message.role for message in messages])
    prompt = _assemble(messages, frame, generation_prompt=True)
    if given:
        prompt = (*prompt[:-1], replace(prompt[-1], text=prompt[-1].text + given))
    return prompt, lead, trim


def _assemble(messages: Sequence[_Message], frame: Frame, *, generation_prompt: bool) -> tuple[Segment, ...]:
    """Messages inside the frame's text. The stop token counts as sampled wherever serving waits for it."""
    roles = [message.role for message in messages]
    outline = frame.outline(roles, generation_prompt=generation_prompt)
    contents = [_trimmed(m.segments, trim) for m, trim in zip(messages, outline.trims, strict=True)]
    texts = ["".join(segment.text for segment in content) for content in contents]
    frame.check(roles, texts, generation_prompt=generation_prompt)
    segments: list[Segment] = []
    before = outline.pieces[0]
    for index, (content, after) in enumerate(zip(contents, outline.pieces[1:], strict=True)):
        lead = ""
        if roles[index] == "assistant":
            lead = frame.opening(roles[:index])[1]
            if index == len(messages) - 1 and not after.startswith(frame.stop) and _stop_kind(content):
                after = frame.stop  # noqa: PLW2901  the template writes no end after the last turn
        segments.append(Segment(before.removesuffix(lead), False, "frame"))
        *ended, last = _ended(_with_lead(lead, content), after, frame)
        segments += ended
        before = last.text
    segments += [Segment(before, False, "frame")]
    # An unstable frame renders the history again at each step, so none of it is sampled.
    return tuple(s if frame.stable else replace(s, sampled=False) for s in segments if s.text)


def _with_lead(text: str, content: list[Segment]) -> list[Segment]:
    """The content with the whitespace that the model generates before it."""
    if not text:
        return content
    head = content[0] if content else Segment("", True, "answer")
    return [replace(head, text=text + head.text), *content[1:]]


def _ended(content: list[Segment], after: str, frame: Frame) -> list[Segment]:
    """A message's content, the stop token if the model generates it, and the frame's remaining text."""
    stop = _stop_kind(content)
    if stop is None or not after.startswith(frame.stop):
        return [*content, Segment(after, False, "frame")]
    return [
        *content,
        Segment(frame.stop, True, stop, content[-1].excluded),
        Segment(after.removeprefix(frame.stop), False, "frame"),
    ]


def _stop_kind(content: Sequence[Segment]) -> SegmentKind | None:
    """The kind of the stop token after a message, or None if serving never waits for it there."""
    if not content or not content[-1].sampled:
        return None
    kinds: list[SegmentKind] = []  # kinds in the message's last run
    for segment in content:
        if not segment.sampled or "terminator" in kinds:
            kinds = []
        if segment.sampled:
            kinds.append(segment.kind)
    if "unreadable" in kinds:
        return "unreadable"
    if "call" not in kinds:
        return "end"
    return None if "terminator" in kinds else "terminator"


def _trimmed(segments: Sequence[Segment], trim: Trim) -> list[Segment]:
    """The content as the template renders it: without the outer characters that it strips."""
    left, right = trim
    kept = list(segments)
    while kept and not (text := kept[0].text.lstrip(left)):
        kept.pop(0)
    if kept:
        kept[0] = replace(kept[0], text=text)
    while kept and not (text := kept[-1].text.rstrip(right)):
        kept.pop()
    if kept:
        kept[-1] = replace(kept[-1], text=text)
    return kept
