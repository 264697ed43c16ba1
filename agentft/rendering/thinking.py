"""The form in which a chat template writes the thoughts of its model, found by probing it.

A frame that has such a form gets *shapes* instead of roles: `assistant/thought` is a reply with a thought, and
`user/results` a message that templates recognise by its tags as the results of the current turn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from agentft.calls.thoughts import THINK, write_thought
from agentft.rendering.template import Template
from agentft.types import SegmentKind

__all__ = [
    "EMPTY_REST",
    "MARK",
    "THOUGHT_MARK",
    "ThoughtForm",
    "find_form",
    "message_of",
    "shape_of",
    "with_thought",
    "wrapped",
]

# Private-use characters: no template looks for them, and contents cannot clash with them (they are inserted later).
MARK = "\ue0f0{}\ue0f1"
THOUGHT_MARK = "\ue0f2{}\ue0f3"
_RESULTS = ("<tool_response>", "</tool_response>")
_END = "\n</think>\n\n"
EMPTY_REST = _END
"""What follows a generation prompt that begins a thought, if the reply has none."""


@dataclass(frozen=True, slots=True)
class ThoughtForm:
    """How a template writes a thought.

    `opening`: what the model generates before it; empty if the generation prompt has begun the block. `closing`: what
    it generates between the thought and the content. `keyed`: the template takes thoughts from `reasoning_content`,
    else from a block in the content.
    """

    opening: str
    closing: str
    keyed: bool

    def write(self, thought: str) -> str:
        """What the model generates before the content."""
        return self.opening + thought + self.closing


def wrapped(shape: str, text: str) -> str:
    """The text as the content of a message of this shape."""
    return text.join(_RESULTS) if shape.endswith("/results") else text


def message_of(shape: str, content: str, thought: str, form: ThoughtForm | None) -> dict[str, str]:
    """A message for the template."""
    role = shape.partition("/")[0]
    if form is None or not shape.endswith("/thought"):
        return {"role": role, "content": content}
    if form.keyed:
        return {"role": role, "content": content, "reasoning_content": thought}
    return {"role": role, "content": write_thought(thought) + content}


def shape_of(role: str, content: str, *, thought: bool) -> str:
    """The shape of a message. `thought`: whether it has one."""
    if role == "assistant":
        return "assistant/thought" if thought else role
    return f"{role}/results" if content.startswith(_RESULTS[0]) and content.endswith(_RESULTS[1]) else role


def with_thought(piece: str, thoughts: Sequence[str]) -> Iterator[tuple[SegmentKind, str]]:
    """The text between two contents, with the thought that the template writes there, if any."""
    before, mark, rest = piece.partition(THOUGHT_MARK[0])
    yield "frame", before
    if mark:
        number, _, after = rest.partition(THOUGHT_MARK[-1])
        yield "thought", thoughts[int(number)]
        yield "frame", after


def find_form(template: Template, controls: Sequence[str]) -> ThoughtForm | None:
    """How the template writes thoughts itself; None if it leaves blocks in contents as they are.

    Raises:
        FrameError: the template fails.
    """
    for keyed in (True, False):
        form = _probe(template, ThoughtForm("", "", keyed))
        if form and not any(control in form.opening + form.closing for control in controls):
            return None if not keyed and _is_plain(template) else form
    if _is_plain(template):
        return None
    begun = _ask(template).rstrip().endswith(THINK)  # and thoughts are dropped, even the last one
    return ThoughtForm("" if begun else f"{THINK}\n", _END, keyed=False)


def _ask(template: Template) -> str:
    return template([{"role": "user", "content": MARK.format(0)}], True)


def _probe(template: Template, form: ThoughtForm) -> ThoughtForm | None:
    """The form of the last reply's thought, if the template shows it in think tags before the content."""
    asked, thought, content = _ask(template), THOUGHT_MARK.format(1), MARK.format(1)
    reply = message_of("assistant/thought", content, thought, form)
    text = template([{"role": "user", "content": MARK.format(0)}, reply], False)
    before, _, after = text.partition(thought)
    closing, shown, _ = after.partition(content)
    if not shown or not before.startswith(asked) or "</think>" not in closing or not before.rstrip().endswith(THINK):
        return None
    return ThoughtForm(before.removeprefix(asked), closing, form.keyed)


def _is_plain(template: Template) -> bool:
    """Whether blocks in contents stay as they are, in the last reply and in earlier ones."""

    def render(begin: str) -> str:
        talk = [("user", ""), ("assistant", begin), ("user", ""), ("assistant", begin)]
        messages = [{"role": role, "content": text + MARK.format(at)} for at, (role, text) in enumerate(talk)]
        return template(messages, False)

    block, plain = write_thought("\ue0f2"), render("")
    return render(block) == plain.replace(MARK.format(1), block + MARK.format(1)).replace(
        MARK.format(3), block + MARK.format(3)
    )
