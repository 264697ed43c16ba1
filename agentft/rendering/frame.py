"""The frame: how a chat template delimits roles. It wraps the tokenizer's own template, which is probed once.

The template only renders the text *around* the messages' contents; the contents are inserted afterwards. The result is
compared with the template's own rendering of the same messages, so a template that rewrites contents is detected.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Protocol

from agentft.errors import FrameError

__all__ = ["CHATML", "ChatTokenizer", "Frame"]

Template = Callable[[Sequence[Mapping[str, str]], bool], str]
"""(messages with `role` and `content`, add generation prompt) -> text. It may raise for roles it does not support."""

# Private-use characters: no template looks for them, and contents cannot clash with them (they are inserted later).
MARK = "\ue0f0{}\ue0f1"


class ChatTokenizer(Protocol):
    """The part of a transformers tokenizer that a frame needs."""

    chat_template: str | None
    all_special_tokens: list[str]

    def apply_chat_template(
        self, conversation: object, *, tokenize: bool, add_generation_prompt: bool, enable_thinking: bool
    ) -> str:
        """Render messages with the tokenizer's own template."""
        ...


@dataclass(frozen=True)
class Frame:
    """A chat template and its probed properties.

    `stop`: the text that ends an assistant message (the stop token). `stable`: rendering further turns only appends
    text, so one sample can hold every turn. `strips`: the template strips leading and trailing whitespace of contents.
    `has_system`: there is a system role; if not, the system text is put before the first user message.
    """

    template: Template
    fingerprint: str
    stop: str
    stable: bool
    strips: bool
    has_system: bool
    _pieces: Callable[[tuple[str, ...], bool], tuple[str, ...]] = field(repr=False)

    @classmethod
    def of_template(cls, template: Template, specials: Sequence[str], source: str) -> Frame:
        """Probe a template.

        Args:
            template: see `Template`.
            specials: texts of the tokenizer's special tokens; one of them must be the stop token.
            source: the template's source; its SHA-256 is the fingerprint.

        Raises:
            FrameError: the template drops contents, or no special token ends an assistant message.
        """
        pieces = lru_cache(maxsize=4096)(lambda roles, prompt: _split(template, roles, prompt))
        try:
            has_system = bool(pieces(("system", "user", "assistant"), False))
        except Exception:  # each template raises its own error for a role that it does not support
            has_system = False
        roles = ("system",) * has_system + ("user", "assistant", "user", "assistant")
        full = pieces(roles, False)
        stop = _first_special(full[-1], specials)
        if stop is None:
            raise FrameError(
                f"the chat template ends an assistant turn with {full[-1]!r}, which contains no special token, so the "
                "model could not learn to stop; use the tokenizer of an instruction-tuned model"
            )
        answers = [index for index, role in enumerate(roles) if role == "assistant"]
        return cls(
            template=template,
            fingerprint=hashlib.sha256(source.encode()).hexdigest(),
            stop=stop,
            stable=all(pieces(roles[:index], True) == full[: index + 1] for index in answers),
            strips=" x " not in template([{"role": "user", "content": " x "}], False),
            has_system=has_system,
            _pieces=pieces,
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

        def template(messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
            return tokenizer.apply_chat_template(
                list(messages), tokenize=False, add_generation_prompt=prompt, enable_thinking=False
            )

        return cls.of_template(template, tokenizer.all_special_tokens, str(tokenizer.chat_template))

    def wrap(self, roles: Sequence[str], contents: Sequence[str], *, generation_prompt: bool) -> tuple[str, ...]:
        """The texts before, between and after the contents of messages with these roles (`len(roles) + 1` texts).

        Raises:
            FrameError: the template renders these messages differently.
        """
        pieces = self._pieces(tuple(roles), generation_prompt)
        ours = pieces[0] + "".join(content + piece for content, piece in zip(contents, pieces[1:], strict=True))
        messages = [{"role": r, "content": c} for r, c in zip(roles, contents, strict=True)]
        if self.template(messages, generation_prompt) != ours:
            raise FrameError(
                "the chat template rewrites the contents of messages, so training would not match serving; use a "
                "tokenizer with a plainer template"
            )
        return pieces


def _split(template: Template, roles: tuple[str, ...], prompt: bool) -> tuple[str, ...]:
    marks = [MARK.format(index) for index in range(len(roles))]
    messages = [{"role": role, "content": mark} for role, mark in zip(roles, marks, strict=True)]
    rest = template(messages, prompt)
    pieces = []
    for index, mark in enumerate(marks):
        before, found, rest = rest.partition(mark)
        if not found:
            raise FrameError(f"the chat template leaves out message {index} ({roles[index]}) of {'/'.join(roles)}")
        pieces.append(before)
    return (*pieces, rest)


def _first_special(text: str, specials: Sequence[str]) -> str | None:
    """`text` up to and including its first special token."""
    ends = [(text.index(token), -len(token), text.index(token) + len(token)) for token in specials if token in text]
    return text[: min(ends)[2]] if ends else None


def _chatml(messages: Sequence[Mapping[str, str]], prompt: bool) -> str:
    text = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in messages)
    return text + ("<|im_start|>assistant\n" if prompt else "")


CHATML = Frame.of_template(_chatml, ("<|im_start|>", "<|im_end|>"), "agentft-chatml")
"""A built-in frame for backends without a tokenizer (scripted answers) and for tests."""
