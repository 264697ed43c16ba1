"""Conversation -> segments. Training and serving both go through `_messages` and `Frame.outline`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby

from agentft.calls import CallFormat
from agentft.calls.thoughts import THINK, is_thought, join_thoughts
from agentft.errors import FrameError
from agentft.rendering.controls import strip_controls
from agentft.rendering.frame import CHATML, Frame, Trim
from agentft.rendering.messages import joined_turns
from agentft.rendering.thinking import EMPTY_REST, ThoughtForm, shape_of, with_thought
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

__all__ = ["count_thoughts", "describe_rendering", "render_messages", "render_prompt", "render_samples"]


@dataclass(slots=True)
class _Message:
    """One message of the frame: a role and the segments of its content."""

    role: str
    segments: list[Segment] = field(default_factory=list)
    thought: Segment | None = None  # what stands in the frame's own form, before the content

    def content(self, frame: Frame) -> list[Segment]:
        """The segments as they stand in the history: a frame with thoughts of its own has none inside contents."""
        return [segment for segment in self.segments if segment.kind != "thought"] if frame.form else self.segments

    def shape(self, frame: Frame) -> str:
        """The role, and what else the frame's template distinguishes."""
        content = "".join(segment.text for segment in self.content(frame))
        return shape_of(self.role, content, thought=self.thought is not None)


def render_samples(
    conversation: Conversation, fmt: CallFormat, frame: Frame, *, thinking: bool = False
) -> list[tuple[Segment, ...]]:
    """The conversation as training samples: one if the frame is stable, else one for each assistant message.

    `thinking`: with the thoughts. A conversation without any is rendered as if it were False.

    Raises:
        FrameError: the template cannot render the conversation faithfully.
    """
    thinking = thinking and count_thoughts(conversation) > 0
    frame = (frame.thinker if thinking else None) or frame
    messages = _messages(conversation, fmt, frame, thinking)
    if frame.stable:
        return [_assemble(messages, frame, generation_prompt=False)]
    rows = []
    for index, message in enumerate(messages):
        if message.role == "assistant":
            prompt, content = _open(messages[:index], message, frame, complete=True)
            completion = _ended(content, frame.stop, frame)
            rows.append((*prompt, *(segment for segment in completion if segment.text)))
    return rows


def render_prompt(
    conversation: Conversation, fmt: CallFormat, frame: Frame, *, thinking: bool = False
) -> tuple[Segment, ...]:
    """The prompt for the assistant's next turn, or for the rest of its turn if the conversation ends with one.

    `thinking`: the model thinks first, and gets its earlier thoughts where the template has them.

    Raises:
        FrameError: the template cannot render the conversation faithfully.
    """
    frame = (frame.thinker if thinking else None) or frame
    messages = _messages(conversation, fmt, frame, thinking)
    reply = messages.pop() if messages and messages[-1].role == "assistant" else None
    prompt, content = _open(messages, reply, frame)
    return (*prompt, *content)


def count_thoughts(conversation: Conversation) -> int:
    """The number of thoughts that are not empty."""
    return sum(is_thought(part) and bool(join_thoughts([part])) for turn in conversation.turns for part in turn.parts)


def render_messages(conversation: Conversation, fmt: CallFormat) -> list[tuple[str, str]]:
    """Roles and contents for a server that applies the chat template itself.

    With `inline_results`, the last message may be the assistant's, which the model must continue.
    """
    messages = _messages(conversation, fmt, CHATML, thinking=False)
    return [(message.role, "".join(segment.text for segment in message.segments)) for message in messages]


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


def _messages(conversation: Conversation, fmt: CallFormat, frame: Frame, thinking: bool) -> list[_Message]:
    """Turns as the frame's messages. Results go into the assistant message or into a separate user message.

    `thinking`: with thoughts, in the frame's own form if it has one, else as text.
    """
    messages: list[_Message] = []
    verbatim = conversation.source == fmt.name
    system = _system(conversation, fmt, verbatim)
    if system:
        messages.append(_Message("system", [Segment(system, False, "system")]))
    for turn in conversation.turns if verbatim else joined_turns(conversation.turns, weighted=True):
        if turn.role == "user":
            messages.append(_Message("user", [Segment(turn.raw, False, "user")]))
        elif turn.role != "system":
            for injected, parts in groupby(turn.parts, lambda part: isinstance(part, ToolResult)):
                group = list(parts)
                if injected:
                    _add_results(messages, group, turn.raw, fmt, verbatim and turn.role == "assistant")
                    continue
                if frame.form:
                    _add_thought(_assistant(messages), join_thoughts(group), turn.excluded, frame.form)
                spoken = [part for part in group if not is_thought(part)]
                _add_run(messages, group if thinking and not frame.form else spoken, turn, fmt, verbatim)
    for message in messages:
        if message.role == "assistant":
            message.segments = _without_stop(message.segments, frame)
    return _fold_system(messages) if system and not frame.has_system else messages


def _without_stop(segments: list[Segment], frame: Frame) -> list[Segment]:
    """The content without the control tokens that many data sets have at the end of an answer."""
    if not segments or segments[-1].kind not in ("answer", "preamble"):
        return segments
    *rest, last = segments
    return [*rest, replace(last, text=strip_controls(last.text, frame.controls))]


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
        raise FrameError("the chat template has no system role, and no first user message could hold the system text")
    first, *rest = turns
    gap = Segment("\n\n", False, "system")
    return [_Message(first.role, [*system.segments, gap, *first.segments]), *rest]


def _assistant(messages: list[_Message]) -> _Message:
    if not messages or messages[-1].role != "assistant":
        messages.append(_Message("assistant"))
    return messages[-1]


def _add_thought(message: _Message, thought: str, excluded: bool, form: ThoughtForm) -> None:
    """Add a run's thought (empty: none) in the template's form. In a message's later runs it is part of the content."""
    if not message.segments:
        before = message.thought.text + "\n\n" if message.thought else ""
        message.thought = Segment(before + thought, True, "thought", excluded) if thought else message.thought
        return
    if message.segments[-1].kind == "result" and not form.opening:  # as the prompt does
        message.segments.append(Segment(f"{THINK}\n", False, "thought"))
        thought, excluded = (form.write(thought), excluded) if thought else (EMPTY_REST, True)
    elif thought:
        thought = form.write(thought)
    message.segments += [Segment(thought, True, "thought", excluded)] if thought else []


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


def _open(
    messages: Sequence[_Message], reply: _Message | None, frame: Frame, *, complete: bool = False
) -> tuple[tuple[Segment, ...], list[Segment]]:
    """The prompt for a reply, and the reply as far as it was generated (None: nothing yet; `complete`: all of it)."""
    form = frame.form
    shapes = [message.shape(frame) for message in messages]
    if messages or reply is None:
        prompt = _assemble(messages, frame, generation_prompt=True)
    else:
        prompt = (Segment(_before_first(reply, frame), False, "frame"),)
    if form and reply is None:
        return prompt, []
    reply = reply or _Message("assistant")
    given, lead, trim = frame.opening(shapes, reply.shape(frame))
    content = _trimmed(reply.segments, trim if complete else (trim[0], ""))
    if form and reply.thought:
        return prompt, [replace(reply.thought, text=form.write(reply.thought.text)), *content]
    if form and given:  # no thought, which the row does not say
        return prompt, [Segment(given, True, "thought", excluded=True), *content]
    if given:
        prompt = (*prompt[:-1], replace(prompt[-1], text=prompt[-1].text + given))
    return prompt, _with_lead(lead, content) if content or complete else []


def _before_first(reply: _Message, frame: Frame) -> str:
    """What precedes a reply with which the conversation begins: templates cannot render a prompt of no messages."""
    (_, before), *thought = with_thought(frame.outline([reply.shape(frame)], generation_prompt=False).pieces[0], [""])
    if frame.form is None or reply.thought is None:
        return _without_block(before)
    if thought:
        return before.removesuffix(frame.form.opening)
    bare = _without_block(frame.outline(["assistant"], generation_prompt=False).pieces[0])
    return bare if frame.form.opening else f"{bare}{THINK}\n"


def _without_block(before: str) -> str:
    """What precedes a reply, without the beginning of a thought that some templates write before the last one."""
    start = before.rstrip().removesuffix(THINK)
    return start if before.rstrip() != start else before


def _assemble(messages: Sequence[_Message], frame: Frame, *, generation_prompt: bool) -> tuple[Segment, ...]:
    """Messages inside the frame's text. The stop token counts as sampled wherever serving waits for it."""
    roles = [message.shape(frame) for message in messages]
    outline = frame.outline(roles, generation_prompt=generation_prompt)
    contents = [_trimmed(m.content(frame), trim) for m, trim in zip(messages, outline.trims, strict=True)]
    texts = ["".join(segment.text for segment in content) for content in contents]
    thoughts = [message.thought.text if message.thought else "" for message in messages]
    frame.check(roles, texts, generation_prompt=generation_prompt, thoughts=thoughts)
    segments: list[Segment] = []
    before = outline.pieces[0]
    for index, (content, after) in enumerate(zip(contents, outline.pieces[1:], strict=True)):
        lead = ""
        if roles[index] == "assistant":
            lead = frame.opening(roles[:index])[1]
            if index == len(messages) - 1 and not after.startswith(frame.stop) and _stop_kind(content):
                after = frame.stop  # noqa: PLW2901  the template writes no end after the last turn
        segments += [Segment(text, False, kind) for kind, text in with_thought(before.removesuffix(lead), thoughts)]
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
    if kept and text != kept[0].text:
        kept[0] = replace(kept[0], text=text)
    while kept and not (text := kept[-1].text.rstrip(right)):
        kept.pop()
    if kept and text != kept[-1].text:
        kept[-1] = replace(kept[-1], text=text)
    return kept
