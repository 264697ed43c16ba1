"""The frame: how a chat template delimits roles. It wraps the tokenizer's own template, which is probed once.

The template only renders the text *around* the messages' contents; the contents are inserted afterwards. The result is
compared with the template's own rendering of the same messages, so a template that rewrites contents is detected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import product
from typing import Protocol

from agentft.calls.thoughts import THINK
from agentft.errors import FrameError
from agentft.rendering.controls import AddedTokens, control_tokens
from agentft.rendering.template import Template, guarded
from agentft.rendering.thinking import (
    EMPTY_REST,
    MARK,
    THOUGHT_MARK,
    ThoughtForm,
    find_form,
    message_of,
    with_thought,
    wrapped,
)

__all__ = ["CHATML", "FIXED_DATE", "ChatTokenizer", "Frame", "Outline", "Trim", "chat_renderer", "wants_tools"]

# What a side of a message's content may lose: nothing, line breaks, all whitespace. The probes tell them apart.
STRIPPED: dict[str | None, str] = {"": "\n\t", "\n": "\t", None: ""}
_MOST = 1000  # messages; each of the assistant's is rendered with all those before it
_JINJA_RENDERER = "transformers.tokenization_utils_base"  # tokenizers with code of their own override it
# A fixed date, so that prompts match training on any day.
FIXED_DATE = (
    "{% macro strftime_now(form) -%}{{ form | replace('%Y', '2024') | replace('%m', '07') | replace('%d', '26')"
    " | replace('%b', 'Jul') | replace('%B', 'July') }}{%- endmacro %}{{ '' }}"
)

Trim = tuple[str | None, str | None]
"""The characters that a template strips from the left and the right of a content (None: all whitespace)."""


class ChatTokenizer(AddedTokens, Protocol):
    """The part of a transformers tokenizer that a frame needs."""

    chat_template: str | None

    def apply_chat_template(self, conversation: object, *, tokenize: bool, **options: object) -> str:
        """Render messages with the tokenizer's own template."""


@dataclass(frozen=True, slots=True)
class Outline:
    """The texts before, between and after the contents of messages, and what the template strips from each content."""

    pieces: tuple[str, ...]
    trims: tuple[Trim, ...]


@dataclass(frozen=True)
class Frame:
    """A chat template and its probed properties. The roles of messages may be shapes, see `ThoughtForm`.

    `stop`: the text that ends an assistant message, up to its first control token. `stable`: rendering further turns
    only appends text, so one sample can hold every turn. `has_system`: there is a system role; if not, the system text
    is put before the first user message. `controls`: texts of the tokenizer's control tokens.
    `thinker`: the same template with its own thoughts, whose `form` they have; None if it has no form of its own for
    them. `verbatim`: the template provably only prints contents that are not blank.
    """

    template: Template
    fingerprint: str
    stop: str
    stable: bool
    has_system: bool
    controls: tuple[str, ...]
    _outlines: Callable[[tuple[str, ...], bool], Outline] = field(repr=False)
    form: ThoughtForm | None = None
    thinker: Frame | None = None
    verbatim: bool = False

    @classmethod
    def of_template(
        cls, template: Template, controls: Sequence[str], source: str, form: ThoughtForm | None = None
    ) -> Frame:
        """Probe a template.

        Args:
            template: see `Template`.
            controls: texts of the tokenizer's control tokens; one of them must end an assistant message.
            source: the template's source; its SHA-256 is the fingerprint.
            form: how it writes thoughts.

        Raises:
            FrameError: the template fails, drops contents, or no control token ends an assistant message.
        """
        template = guarded(template)
        outlines = lru_cache(maxsize=4096)(lambda roles, prompt: _outline(template, roles, prompt, form))
        talk: tuple[str, ...] = ("user", "assistant") * 3
        plain = outlines(talk, False)
        try:
            outlines(("system", *talk), False)
        except FrameError:
            probes = [talk]
        else:
            probes = [talk, ("system", *talk)]
        stop = _stop([outlines(roles, False).pieces for roles in probes], controls)
        if stop is None:
            raise FrameError(
                f"the chat template ends an assistant turn with {plain.pieces[-1]!r}, which contains no control token "
                "of the tokenizer, so the model could not learn to stop; use an instruction-tuned model's tokenizer"
            )
        return cls(
            template=template,
            fingerprint=hashlib.sha256(source.encode()).hexdigest(),
            stop=stop,
            stable=form is None and all(_is_stable(outlines, roles, stop) for roles in probes),
            has_system=len(probes) > 1,
            controls=tuple(controls),
            _outlines=outlines,
            form=form,
        )

    @classmethod
    def of_tokenizer(cls, tokenizer: ChatTokenizer) -> Frame:
        """The frame of a transformers tokenizer.

        Raises:
            FrameError: the tokenizer has no chat template, or an unusable one.
        """
        if not tokenizer.chat_template:
            raise FrameError(
                "the tokenizer has no chat template, so conversations cannot be rendered; use the model's -Instruct or "
                "-Chat version, or save its template as chat_template.jinja in the tokenizer's folder"
            )

        source, template = tokenizer.chat_template, chat_renderer(tokenizer)
        from agentft.rendering.verbatim import only_prints_contents

        controls = control_tokens(tokenizer)
        frame, thinking = cls.of_template(template, controls, str(source)), partial(template, thinking=True)
        if isinstance(source, str) and tokenizer.apply_chat_template.__module__ == _JINJA_RENDERER:
            frame = replace(frame, verbatim=only_prints_contents(source))
        with suppress(FrameError):
            if form := find_form(guarded(thinking), controls):
                thinker = cls.of_template(thinking, controls, str(source), form)
                return replace(frame, thinker=thinker if thinker.stop == frame.stop else None)
        return frame

    def outline(self, roles: Sequence[str], *, generation_prompt: bool) -> Outline:
        """What the template renders around the contents of messages with these roles.

        Raises:
            FrameError: the template does not support this order of roles, or there are too many.
        """
        if len(roles) > _MOST:
            raise FrameError(f"{len(roles):,} messages; at most {_MOST:,} are rendered, so split the conversation")
        return self._outlines(tuple(roles), generation_prompt)

    def opening(self, roles: Sequence[str], reply: str = "assistant") -> tuple[str, str, Trim]:
        """How the template goes on from its generation prompt to the content of an assistant message after `roles`.

        Returns:
            The text that serving adds to the generation prompt, the text that the model generates before the content
            (whitespace, which a tokenizer may join with the content's first word), and what the content loses.

        Raises:
            FrameError: the template does not support this order of roles.
        """
        full = self.outline((*roles, reply), generation_prompt=False)
        if not roles:  # nothing is served before the first turn, and many templates fail without one
            return "", "", full.trims[-1]
        prompt = self.outline(roles, generation_prompt=True).pieces
        before = full.pieces[len(roles)]
        if _begins_thought(prompt[-1], before):
            before = prompt[-1] + EMPTY_REST  # there is none
        added = before.removeprefix(prompt[-1]) if before.startswith(prompt[-1]) else ""
        trim = full.trims[-1]
        sampled = not added.strip() and trim[0] is None  # else the whitespace would be added to the reply's own later
        return ("", added, trim) if sampled else (added, "", trim)

    def check(
        self, roles: Sequence[str], contents: Sequence[str], *, generation_prompt: bool, thoughts: Sequence[str] = ()
    ) -> None:
        """Compare our text with the template's own rendering, unless they provably cannot differ.

        Args:
            thoughts: one for each message; only those of messages that have the shape are used.

        Raises:
            FrameError: the template renders these messages differently.
        """
        if self.verbatim and all(map(str.strip, contents)):
            return
        pieces = self.outline(roles, generation_prompt=generation_prompt).pieces
        thoughts = thoughts or [""] * len(roles)
        told = ["".join(text for _, text in with_thought(piece, thoughts)) for piece in pieces]
        ours = told[0] + "".join(content + piece for content, piece in zip(contents, told[1:], strict=True))
        messages = [message_of(*item, self.form) for item in zip(roles, contents, thoughts, strict=True)]
        if self.template(messages, generation_prompt) != ours:
            raise FrameError("the chat template rewrites contents, so training would not match serving; use another")


def chat_renderer(tokenizer: ChatTokenizer) -> Callable[..., str]:
    """The tokenizer's template as a function of messages, generation prompt, `thinking` and `tools`, without bounds."""
    source = tokenizer.chat_template
    named = source if isinstance(source, dict) else {"default": source}

    def render(
        messages: Sequence[Mapping[str, object]], prompt: bool, thinking: bool = False, tools: object = None
    ) -> str:
        text = named.get("default" if tools is None or "tool_use" not in named else "tool_use")
        dated = {"chat_template": FIXED_DATE + text} if text and "strftime_now" in text else {}
        rendered = partial(
            tokenizer.apply_chat_template,
            list(messages),
            tokenize=False,
            add_generation_prompt=prompt,
            enable_thinking=thinking,  # Qwen3, GLM-4.5 and SmolLM3
            thinking=thinking,  # DeepSeek V3.1 and Granite
            **dated,
        )
        try:
            return rendered(tools=tools)
        except TypeError:
            if tools is not None:
                raise
            return rendered(tools=[])  # those of FunctionGemma and Hermes 2 Pro go through a list in any case

    return render


def wants_tools(tokenizer: ChatTokenizer) -> bool:
    """Whether its template fails without a list of tools, which may be empty."""
    try:
        tokenizer.apply_chat_template([{"role": "user", "content": "Probe."}], tokenize=False)
    except TypeError:
        return True
    return False


def _outline(template: Template, roles: tuple[str, ...], prompt: bool, form: ThoughtForm | None) -> Outline:
    marks = [wrapped(role, MARK.format(index)) for index, role in enumerate(roles)]
    pieces = _between(template, [(role, mark, mark) for role, mark in zip(roles, marks, strict=True)], prompt, form)
    left, right = STRIPPED[""], STRIPPED[""][::-1]
    wide = [
        (r, left + mark + right if wrapped(r, "") == "" else mark, mark) for r, mark in zip(roles, marks, strict=True)
    ]
    try:
        padded = _between(template, wide, prompt, form)
    except FrameError:
        padded = pieces
    return Outline(pieces, _trims(pieces, padded))


def _between(
    template: Template, messages: Sequence[tuple[str, str, str]], prompt: bool, form: ThoughtForm | None
) -> tuple[str, ...]:
    """The texts around the marks in what the template renders for messages (role, content, mark)."""
    thoughts = map(THOUGHT_MARK.format, range(len(messages)))
    rest = template(
        [message_of(m[0], m[1], thought, form) for m, thought in zip(messages, thoughts, strict=False)], prompt
    )
    pieces = []
    roles = [role for role, _, _ in messages]
    for index, (_, _, mark) in enumerate(messages):
        before, found, rest = rest.partition(mark)
        if not found or MARK[0] in before:
            raise FrameError(
                f"the chat template leaves out message {index} ({roles[index]}) of {'/'.join(roles)}, moves it or "
                "repeats it (some take lists of parts only); save one that prints every text as chat_template.jinja"
            )
        pieces.append(before)
    if MARK[0] in rest:
        raise FrameError(f"the chat template repeats a message of {'/'.join(roles)}")
    return (*pieces, rest)


def _trims(pieces: tuple[str, ...], padded: tuple[str, ...]) -> tuple[Trim, ...]:
    """What the template strips from each content, found by rendering contents with and without outer whitespace."""
    rights: list[str | None] = []
    lefts: list[str | None] = []
    for index, (piece, wide) in enumerate(zip(pieces, padded, strict=True)):
        first, last = index == 0, index == len(pieces) - 1
        sides = product([""] if first else STRIPPED, [""] if last else STRIPPED)
        for right, left in sides:
            before = "" if first else STRIPPED[right][::-1]
            after = "" if last else STRIPPED[left]
            if wide == before + piece + after:
                kept = (right, left)
                break
        else:
            kept = ("", "")
        rights.append(kept[0])
        lefts.append(kept[1])
    return tuple(zip(lefts[:-1], rights[1:], strict=True))


def _stop(outlines: Sequence[tuple[str, ...]], controls: Sequence[str]) -> str | None:
    """What ends an assistant message: after the last one, or if the template writes nothing there, between turns."""
    places = [pieces[-1] for pieces in outlines]
    places += [piece for pieces in outlines for piece in pieces[-3:1:-2]]
    return next(filter(None, (_first_control(place, controls) for place in places)), None)


def _is_stable(outlines: Callable[[tuple[str, ...], bool], Outline], roles: tuple[str, ...], stop: str) -> bool:
    """Whether each prompt, and what the model says after it with `stop`, begins the rendering of all turns."""
    full = outlines(roles, False)
    for index in (index for index, role in enumerate(roles) if role == "assistant"):
        prompt, alone = outlines(roles[:index], True), outlines(roles[: index + 1], False)
        if prompt.pieces[:-1] != full.pieces[:index] or prompt.trims != full.trims[:index]:
            return False
        if not full.pieces[index].startswith(prompt.pieces[-1]) or full.pieces[index] != alone.pieces[index]:
            return False
        last = index == len(roles) - 1
        if _begins_thought(prompt.pieces[-1], full.pieces[index]):
            return False
        if full.trims[index] != alone.trims[index] or not (last or full.pieces[index + 1].startswith(stop)):
            return False
    return True


def _begins_thought(prompt: str, before: str) -> bool:
    """Whether a generation prompt begins a thought that a template does not end before a reply without one."""
    return prompt.rstrip().endswith(THINK) and not (before.startswith(prompt) and "</think>" in before)


def _first_control(text: str, controls: Sequence[str]) -> str | None:
    """`text` up to and including its first control token."""
    ends = [(text.index(token), -len(token), text.index(token) + len(token)) for token in controls if token in text]
    return text[: min(ends)[2]] if ends else None


def _chatml(messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if prompt else "")


CHATML = Frame.of_template(_chatml, ("<|im_start|>", "<|im_end|>"), "agentft-chatml")
"""A built-in frame for backends without a tokenizer (scripted answers) and for tests."""
