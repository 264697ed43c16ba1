"""What a frame detects in chat templates, and which templates it refuses."""

from __future__ import annotations

import pytest

from agentft.calls import call_format
from agentft.errors import FrameError
from agentft.rendering.frame import CHATML, Frame
from agentft.rendering.render import render_prompt, render_samples
from agentft.types import Conversation, Span, Text, Turn
from tests.tiny import tiny_tokenizer

MSAGENT = call_format("msagent")


def frame(template: str) -> Frame:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return Frame.of_tokenizer(tokenizer)


def turn(role: str, text: str) -> Turn:
    return Turn(role, (Text(text, Span(0, len(text))),), text)  # type: ignore[arg-type]


TALK = Conversation(
    "talk", (turn("system", "Be kind."), turn("user", " Hi "), turn("assistant", " Hello ")), (), "msagent"
)
LOOP = "{% for m in messages %}"
CHAT = "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
PROMPT = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
STRIPS = LOOP + CHAT.replace("m['content']", "m['content'] | trim") + PROMPT
NO_SYSTEM = LOOP + "{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHAT + PROMPT
# Like the reasoning models' templates: only the last answer is rendered with its (empty) thought.
UNSTABLE = (
    LOOP
    + "<|im_start|>{{ m['role'] }}\n{% if m['role'] == 'assistant' and loop.last %}<think></think>{% endif %}"
    + "{{ m['content'] }}<|im_end|>\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n<think></think>{% endif %}"
)


def text_of(frame: Frame) -> str:
    return "".join(segment.text for segment in render_samples(TALK, MSAGENT, frame)[0])


def test_a_tokenizer_without_a_template_is_a_clear_error() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    with pytest.raises(FrameError, match=r"no chat template.*-Instruct"):
        Frame.of_tokenizer(tokenizer)


def test_a_plain_template() -> None:
    plain = frame(LOOP + CHAT + PROMPT)
    assert (plain.stop, plain.stable, plain.strips, plain.has_system) == ("<|im_end|>", True, False, True)
    assert text_of(plain) == text_of(CHATML)


def test_contents_are_stripped_if_the_template_strips_them() -> None:
    assert frame(STRIPS).strips
    assert "\nHi<|im_end|>" in text_of(frame(STRIPS))
    assert "\nHello<|im_end|>" in text_of(frame(STRIPS))


def test_without_a_system_role_the_first_user_message_starts_with_the_system_text() -> None:
    assert not frame(NO_SYSTEM).has_system
    assert "<|im_start|>user\nBe kind.\n\n Hi <|im_end|>" in text_of(frame(NO_SYSTEM))


def test_a_template_without_a_stop_token_is_refused() -> None:
    with pytest.raises(FrameError, match="no special token"):
        frame(LOOP + "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")


def test_a_template_that_drops_a_message_is_refused() -> None:
    with pytest.raises(FrameError, match="leaves out message"):
        frame("{{ messages[-1]['content'] }}<|im_end|>")


def test_a_template_that_rewrites_contents_is_refused() -> None:
    rewriting = frame(LOOP + CHAT.replace("m['content']", "m['content'] | replace('Hi', 'Hey')") + PROMPT)
    with pytest.raises(FrameError, match="rewrites the contents of messages"):
        text_of(rewriting)


def test_an_unstable_template_gives_one_sample_for_each_answer() -> None:
    unstable = frame(UNSTABLE)
    assert not unstable.stable
    twice = Conversation("talk", (*TALK.turns, turn("user", "More"), turn("assistant", "Yes")), (), "msagent")
    rows = render_samples(twice, MSAGENT, unstable)
    assert len(rows) == 2
    for row, turns in zip(rows, (twice.turns[:2], twice.turns[:4]), strict=True):
        prompt = render_prompt(Conversation("talk", turns, (), "msagent"), MSAGENT, unstable)
        assert row[: len(prompt)] == prompt
        assert row[len(prompt) :][-1].text == "<|im_end|>"
        assert all(segment.sampled for segment in row[len(prompt) :])
    assert "".join(s.text for s in rows[1]).count("<think>") == 1
