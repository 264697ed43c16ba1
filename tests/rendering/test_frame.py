"""What a frame detects in chat templates, and which templates it refuses."""

from __future__ import annotations

import pytest

from agentft.calls import call_format
from agentft.errors import FrameError
from agentft.rendering.frame import CHATML, Frame, chat_renderer
from agentft.rendering.render import render_prompt, render_samples
from agentft.types import Conversation, Span, Text, Turn
from tests.tiny import tiny_tokenizer

MSAGENT = call_format("msagent")


def frame(template: str | dict[str, str]) -> Frame:
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
    assert (plain.stop, plain.stable, plain.has_system) == ("<|im_end|>", True, True)
    assert plain.outline(["user"], generation_prompt=True).trims == (("", ""),)
    assert text_of(plain) == text_of(CHATML)


def test_contents_are_stripped_if_the_template_strips_them() -> None:
    assert frame(STRIPS).outline(["user"], generation_prompt=True).trims == ((None, None),)
    assert "\nHi<|im_end|>" in text_of(frame(STRIPS))
    assert "\nHello<|im_end|>" in text_of(frame(STRIPS))


def test_without_a_system_role_the_first_user_message_starts_with_the_system_text() -> None:
    assert not frame(NO_SYSTEM).has_system
    assert "<|im_start|>user\nBe kind.\n\n Hi <|im_end|>" in text_of(frame(NO_SYSTEM))


def test_a_template_without_a_stop_token_is_refused() -> None:
    with pytest.raises(FrameError, match="no control token"):
        frame(LOOP + "{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}")


def test_a_template_that_drops_a_message_is_refused() -> None:
    with pytest.raises(FrameError, match="leaves out message"):
        frame("{{ messages[-1]['content'] }}<|im_end|>")


@pytest.mark.parametrize(
    "content",
    [
        "{% for part in m['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}{% endif %}{% endfor %}",
        "{{ m['content'][0]['text'] }}",
    ],
)
def test_a_template_that_takes_only_lists_of_parts_is_refused_with_a_remedy(content: str) -> None:
    with pytest.raises(
        FrameError, match=r"lists of parts only\); save one that prints every text as chat_template.jin"
    ):
        frame(LOOP + CHAT.replace("{{ m['content'] }}", content) + PROMPT)


def test_a_template_that_rewrites_contents_is_refused() -> None:
    rewriting = frame(LOOP + CHAT.replace("m['content']", "m['content'] | replace('Hi', 'Hey')") + PROMPT)
    with pytest.raises(FrameError, match="rewrites contents, so training would not match serving"):
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


# Shapes of real templates, after public bug reports.
TURNS = "{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('take turns') }}{% endif %}"
END_OF_TEXT = (
    LOOP + CHAT + "{% if add_generation_prompt %}<|im_start|>assistant\n{% else %}{{ '<|endoftext|>' }}{% endif %}"
)
NEXT_ROLE = LOOP + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}{% endfor %}" + PROMPT  # like GLM-4's
LAST_END = (  # like gpt-oss's
    LOOP
    + "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}"
    + "{% if loop.last and m['role'] == 'assistant' %}<|endoftext|>{% else %}<|im_end|>{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant{% endif %}"
)
SPACED = LOOP + (  # like Llama 2's
    "{% if m['role'] == 'user' %}[INST] {{ m['content'] | trim }} [/INST]"
    "{% else %} {{ m['content'] | trim }} <|im_end|>{% endif %}{% endfor %}"
)
LATE_SYSTEM = (  # like Mistral's: the system text stands before the last user message
    "{% if messages[0]['role'] == 'system' %}{% set s, rest = messages[0]['content'] + '\n\n', messages[1:] %}"
    "{% else %}{% set s, rest = '', messages %}{% endif %}{% for m in rest %}{% if m['role'] == 'user' %}"
    "[INST]{{ s if m == (rest | selectattr('role', 'equalto', 'user') | list)[-1] else '' }}{{ m['content'] }}[/INST]"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
SHAPES = {
    "roles that take turns": LOOP + TURNS + CHAT + PROMPT,
    "an end of the text": END_OF_TEXT,
    "no end but the next role": NEXT_ROLE,
    "another end for the last turn": LAST_END,
    "spaces around contents": SPACED,
    "a late system text": LATE_SYSTEM,
    "no system role": NO_SYSTEM,
    "thoughts in the last turn": UNSTABLE,
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_answer_is_followed_by_the_stop_and_serving_sends_a_prefix(shape: str) -> None:
    shaped = frame(SHAPES[shape])
    talk = (*TALK.turns, turn("user", "More"), turn("assistant", "Yes"), turn("user", "Why?"), turn("assistant", "So."))
    if shape.startswith("roles"):
        talk = talk[1:]
    rows = render_samples(Conversation("talk", talk, (), "msagent"), MSAGENT, shaped)
    assert len(rows) == (1 if shaped.stable else 3)
    said = [[s.text for s in row if s.sampled] for row in rows]
    assert ["".join(texts[-1]) for texts in said] == [shaped.stop] * len(rows)
    assert sum(texts.count(shaped.stop) for texts in said) == 3
    for index in (index for index, one in enumerate(talk) if one.role == "assistant"):
        prompt = render_prompt(Conversation("talk", talk[:index], (), "msagent"), MSAGENT, shaped)
        text = "".join(segment.text for segment in prompt)
        assert any("".join(segment.text for segment in row).startswith(text) for row in rows)
        assert not prompt[-1].sampled  # the next token is the model's, a space before an answer too


def test_the_stop_is_any_special_token_and_what_ends_the_text_is_not_learnt() -> None:
    assert frame(END_OF_TEXT).stop == "<|im_end|>"
    assert frame(END_OF_TEXT).stable
    last = render_samples(TALK, MSAGENT, frame(END_OF_TEXT))[0][-1]
    assert (last.text, last.sampled) == ("\n<|endoftext|>", False)
    assert frame(NEXT_ROLE).stop == "<|im_start|>"
    assert (frame(LAST_END).stop, frame(LAST_END).stable) == ("<|endoftext|>", False)
    assert (frame(SPACED).stop, frame(SPACED).stable) == (" <|im_end|>", True)
    assert not frame(LATE_SYSTEM).has_system


def test_a_space_before_an_answer_is_said_by_the_model() -> None:
    text = [(s.text, s.sampled) for s in render_samples(TALK, MSAGENT, frame(SPACED))[0] if s.sampled]
    assert text == [(" Hello", True), (" <|im_end|>", True)]


def test_a_template_that_repeats_a_message_is_refused() -> None:
    with pytest.raises(FrameError, match="repeats"):
        frame(LOOP + CHAT + "{% endfor %}" * 0 + "{{ messages[-1]['content'] }}" + PROMPT)


def test_a_row_that_begins_with_the_assistant_has_no_place_for_a_system_text() -> None:
    early = Conversation("talk", (TALK.turns[0], TALK.turns[2]), (), "msagent")
    with pytest.raises(FrameError, match="no first user message"):
        render_samples(early, MSAGENT, frame(NO_SYSTEM))


def test_the_date_that_a_template_prints_is_always_the_same() -> None:
    dated = frame("{{ strftime_now('%Y-%m-%d') }}" + LOOP + CHAT + PROMPT)
    assert dated.outline(["user"], generation_prompt=True).pieces[0].startswith("2024-07-26")


def test_so_is_the_date_of_named_templates() -> None:
    texts = {
        name: "{{ strftime_now('%Y-%m-%d %f') }}" + name + LOOP + CHAT + PROMPT for name in ("default", "tool_use")
    }
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = texts
    render = chat_renderer(tokenizer)
    for tools, name in ((None, "default"), ([{"type": "function", "function": {"name": "f"}}], "tool_use")):
        assert render([{"role": "user", "content": "Hi"}], True, tools=tools).startswith(f"2024-07-26 %f{name}<|im_")
    assert text_of(frame(texts)) == "2024-07-26 %fdefault" + text_of(CHATML)


def test_too_many_messages_are_refused_before_they_are_rendered() -> None:
    # Each assistant message is rendered with all before it, so that 4,000 took minutes and a gigabyte.
    with pytest.raises(FrameError, match="1,002 messages; at most 1,000 are rendered, so split the conversation"):
        CHATML.outline(("user", "assistant") * 501, generation_prompt=False)
