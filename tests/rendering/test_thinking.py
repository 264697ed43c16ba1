"""Thoughts stand in the template's own form, or in a block of their own, and never in an answer."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.calls import CALL_FORMATS
from agentft.records import parse_row
from agentft.rendering import FramedRendering, open_rendering
from agentft.rendering.encoding import LEARN_RULES, encode, tokens_of
from agentft.rendering.thinking import ThoughtForm
from agentft.types import Conversation, Json, Segment, Text
from tests.invariants.rows import served
from tests.tiny import CHATML_TEMPLATE, tiny_tokenizer

LOOP = "{% for m in messages %}<|im_start|>{{ m.role }}\n"
PROMPT = "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
EMPTY = "<think>\n\n</think>\n\n"
NO_THOUGHT = "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
QWEN3 = (  # thoughts of the current turn, in `reasoning_content` or in the content
    "{% set ns = namespace(last=-1) %}{% for m in messages %}"
    "{% if m.role == 'user' and not m.content.startswith('<tool_response>') %}"
    "{% set ns.last = loop.index0 %}{% endif %}"
    "{% endfor %}" + LOOP + "{% set c, r = m.content, m.reasoning_content or '' %}{% if not r and '</think>' in c %}"
    "{% set r = c.split('</think>')[0].split('<think>')[-1].strip('\n') %}"
    "{% set c = c.split('</think>')[-1].lstrip('\n') %}{% endif %}"
    "{% if m.role == 'assistant' and loop.index0 > ns.last and (loop.last or r) %}"
    "<think>\n{{ r.strip('\n') }}\n</think>\n\n{{ c.lstrip('\n') }}{% else %}{{ c }}{% endif %}<|im_end|>\n"
    + PROMPT
    + NO_THOUGHT
)
R1 = (  # the prompt begins the thought, and no message keeps it
    LOOP + "{{ m.content.split('</think>')[-1] }}<|im_end|>\n" + PROMPT + "<think>\n{% endif %}"
)
GLM = (  # every message with `reasoning_content` keeps it, in a block of another form
    LOOP + "{% if m.reasoning_content %}<think>{{ m.reasoning_content.strip() }}</think>\n"
    "{% elif m.role == 'assistant' %}<think></think>\n{% endif %}{{ m.content }}<|im_end|>\n"
    + PROMPT
    + NO_THOUGHT.replace("\n\n", "", 1).replace("\n\n", "\n", 1)
)
QWEN35 = (  # every reply of the current turn has a block, and the prompt begins it
    QWEN3.replace(" and (loop.last or r)", "").removesuffix(NO_THOUGHT)
    + "<think>\n{% if not enable_thinking %}\n</think>\n\n{% endif %}{% endif %}"
)
NEMOTRON = (  # the last reply has the block that the prompt begins, and nothing ends it
    LOOP + "{% if m.role == 'assistant' and loop.last %}<think>\n{% endif %}{{ m.content.split('</think>')[-1] }}"
    "<|im_end|>\n" + PROMPT + "<think>\n{% endif %}"
)
HERMES2 = "{% for tool in tools %}{{ tool | tojson }}{% endfor %}" + CHATML_TEMPLATE  # tools must be a list
TEMPLATES = {
    "plain": CHATML_TEMPLATE,
    "qwen3": QWEN3,
    "qwen3.5": QWEN35,
    "r1": R1,
    "glm": GLM,
    "nemotron": NEMOTRON,
    "hermes2": HERMES2,
}


def call(city: str, identity: str) -> dict[str, Json]:
    return {"id": identity, "type": "function", "function": {"name": "weather", "arguments": f'{{"city": "{city}"}}'}}


TOOLS: list[Json] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
BESIDE: list[Json] = [
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": "", "tool_calls": [call("Rome", "c1")], "reasoning_content": "They want Rome."},
    {"role": "tool", "tool_call_id": "c1", "content": '{"high": 30}'},
    {"role": "assistant", "content": "It is 30 degrees.", "reasoning_content": "Say it."},
    {"role": "user", "content": "And Oslo?"},
    {"role": "assistant", "content": None, "tool_calls": [call("Oslo", "c2")], "reasoning_content": "Now Oslo."},
    {"role": "tool", "tool_call_id": "c2", "content": '{"high": 9}'},
    {"role": "assistant", "content": "It is 9 degrees."},
]
INSIDE: list[Json] = [
    {"role": "user", "content": "Weather in Rome?"},
    {"role": "assistant", "content": "<think>\nThey want Rome.\n</think>\n\n", "tool_calls": [call("Rome", "c1")]},
    {"role": "tool", "tool_call_id": "c1", "content": '{"high": 30}'},
    {"role": "assistant", "content": "<think>\nSay it.\n</think>\n\nIt is 30 degrees."},
]
MSAGENT: list[Json] = [
    {"from": "user", "value": "Weather in Rome?"},
    {
        "from": "assistant",
        "value": '<think>They want Rome.</think><|startofthink|>```JSON\n{"api_name": "weather", "parameters": {}}\n```'
        "<|endofthink|>\n\n<|startofexec|>```JSON\n{}\n```<|endofexec|>\n<think>Say it.</think>It is 30 degrees.",
    },
    {"from": "user", "value": "Why?"},
    {"from": "assistant", "value": "The sun.", "reasoning_content": "Explain."},
]
ROWS = {
    "beside": parse_row({"messages": BESIDE, "tools": TOOLS}, "beside"),
    "inside": parse_row({"messages": INSIDE, "tools": TOOLS}, "inside"),
    "msagent": parse_row({"conversations": MSAGENT}, "msagent"),
}
THOUGHTS = ["They want Rome.", "Say it.", "Now Oslo.", "Explain."]


def tokenizer_of(template: str) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def rendering_of(template: str, fmt: str, *, thinking: bool) -> FramedRendering:
    rendering = open_rendering(fmt, tokenizer_of(template), thinking=thinking)
    assert isinstance(rendering, FramedRendering)
    return rendering


def text_of(segments: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in segments)


@pytest.fixture(params=TEMPLATES)
def template(request: pytest.FixtureRequest) -> str:
    return TEMPLATES[request.param]


@pytest.fixture(params=CALL_FORMATS)
def fmt(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(params=ROWS)
def row(request: pytest.FixtureRequest) -> Conversation:
    return ROWS[request.param]


def thoughts_of(row: Conversation) -> list[str]:
    return [part.text for turn in row.turns for part in turn.parts if isinstance(part, Text) and part.thought]


def test_the_form_of_a_templates_thoughts() -> None:
    forms = {name: rendering_of(text, "hermes", thinking=True).frame.thinker for name, text in TEMPLATES.items()}
    assert {name: frame and frame.form for name, frame in forms.items()} == {
        "plain": None,
        "qwen3": ThoughtForm("<think>\n", "\n</think>\n\n", keyed=True),
        "qwen3.5": ThoughtForm("", "\n</think>\n\n", keyed=True),
        "r1": ThoughtForm("", "\n</think>\n\n", keyed=False),
        "nemotron": ThoughtForm("", "\n</think>\n\n", keyed=False),
        "hermes2": None,
        "glm": ThoughtForm("<think>", "</think>\n", keyed=True),
    }


@pytest.mark.parametrize("thinking", [False, True])
def test_what_serving_sends_is_a_token_prefix_of_a_sample(
    template: str, fmt: str, row: Conversation, thinking: bool
) -> None:
    rendering, tokenizer = rendering_of(template, fmt, thinking=thinking), tokenizer_of(template)
    samples = [tokens_of(segments, tokenizer) for segments in rendering.samples(row)]
    steps = 0
    for turns, said in served(row):
        prompt = tokens_of(rendering.prompt(Conversation(row.id, turns, row.tools, row.source)), tokenizer)
        assert any(sample[: len(prompt)] == prompt for sample in samples), said
        steps += 1
    assert steps >= 2


def test_every_thought_is_supervised_once_in_a_block_and_is_no_part_of_an_answer(
    template: str, fmt: str, row: Conversation
) -> None:
    rendering, tokenizer = rendering_of(template, fmt, thinking=True), tokenizer_of(template)
    learnt: dict[str, list[str]] = {"thought": [], "answer": []}
    for segments in rendering.samples(row):
        assert text_of(segments).count("</think>") == text_of(segments).count("<think>")
        assert "</think>\n\n<think>" not in text_of(segments)
        encoded = encode(segments, tokenizer, LEARN_RULES["assistant"])
        for index, segment in enumerate(segments):
            places = [at for at, owner in enumerate(encoded.segments) if owner == index]
            if segment.kind in learnt and any(encoded.loss_weights[at] for at in places):
                learnt[segment.kind].append(segment.text)
                assert tokenizer.decode([encoded.input_ids[at] for at in places]) == segment.text
    bare = [text.replace("<think>", "").replace("</think>", "").strip() for text in learnt["thought"]]
    assert bare == thoughts_of(row)
    assert all("think>" not in text and not any(one in text for one in THOUGHTS) for text in learnt["answer"])


def test_without_thoughts_none_is_rendered_and_a_block_is_empty(template: str, fmt: str, row: Conversation) -> None:
    rendering = rendering_of(template, fmt, thinking=False)
    for segments in rendering.samples(row):
        text = text_of(segments)
        assert not any(thought in text for thought in THOUGHTS)
        assert all(not block.partition("</think>")[0].strip() for block in text.split("<think>")[1:])
        assert text.count("</think>") == text.count("<think>")


def test_what_the_model_says_is_parsed_as_the_thought_and_the_rest(template: str, fmt: str) -> None:
    rendering = rendering_of(template, fmt, thinking=True)
    row = ROWS["inside"]
    before = row.turns[:-1]
    prompt = rendering.prompt(Conversation(row.id, before, row.tools, row.source))
    full = next(text for segments in rendering.samples(row) if "30 degrees" in (text := text_of(segments)))
    said = full.removeprefix(text_of(prompt)).split("<|im_end|>")[0]
    assert [(part.text, part.thought) for part in rendering.parse(said) if isinstance(part, Text)] == [
        ("Say it.", True),
        ("It is 30 degrees.", False),
    ]
    assert "".join(said[part.span.start : part.span.end] for part in rendering.parse(said)) == said
    cut = said.partition("say")[0].partition("</think>")[0]
    assert all(isinstance(part, Text) and part.thought for part in rendering.parse(cut))


@pytest.mark.parametrize("name", ["qwen3", "glm"])
@pytest.mark.parametrize("turns", [2, 4, 6, 8])
def test_a_sample_equals_the_templates_own_rendering(name: str, turns: int) -> None:
    """Up to each reply, with the results in the user's messages as the template expects them."""
    rendering, tokenizer = rendering_of(TEMPLATES[name], "hermes", thinking=True), tokenizer_of(TEMPLATES[name])
    messages: list[dict[str, Any]] = []
    for message in BESIDE[:turns]:
        assert isinstance(message, dict)
        calls: Any = message.get("tool_calls") or []
        texts = [
            f'<tool_call>\n{{"name": "weather", "arguments": {c["function"]["arguments"]}}}\n</tool_call>'
            for c in calls
        ]
        content = "\n".join([*([str(message["content"])] if message.get("content") else []), *texts])
        if message["role"] == "tool":
            content = f"<tool_response>\n{content}\n</tool_response>"
        role = "user" if message["role"] == "tool" else message["role"]
        messages.append({"role": role, "content": content, "reasoning_content": message.get("reasoning_content")})
    theirs = tokenizer.apply_chat_template(messages, tokenize=False, enable_thinking=True)
    ours = rendering.samples(parse_row({"messages": BESIDE}, "row"))[turns // 2 - 1]
    assert text_of(ours) + "\n" == theirs


def test_a_row_without_thoughts_is_rendered_as_without_thinking(fmt: str) -> None:
    plain: list[Json] = [
        {key: value for key, value in message.items() if key != "reasoning_content"}
        for message in BESIDE
        if isinstance(message, dict)
    ]
    row = parse_row({"messages": plain, "tools": TOOLS}, "row")
    for template in TEMPLATES.values():
        on, off = (rendering_of(template, fmt, thinking=thinking).samples(row) for thinking in (True, False))
        assert on == off


@pytest.mark.parametrize("thinking", [False, True])
def test_a_row_may_begin_with_the_assistant(template: str, fmt: str, thinking: bool) -> None:
    rendering = rendering_of(template, fmt, thinking=thinking)
    row = parse_row({"messages": [{"role": "assistant", "content": "Hi!", "reasoning": "Greet."}, *BESIDE[:4]]}, "row")
    text = text_of(rendering.samples(row)[0])
    start, block = "<|im_start|>assistant\n", {GLM: "<think></think>\n", QWEN3: EMPTY, QWEN35: EMPTY}
    empty = block.get(template, "")
    form = rendering.frame.thinker.form if rendering.frame.thinker and rendering.frame.thinker.form else None
    begun = "" if form is None or form.opening else "<think>\n"
    thought = (begun + form.write("Greet.") if form else "<think>\nGreet.\n</think>\n\n") if thinking else empty
    assert text.startswith(f"{start}{thought}Hi!<|im_end|>")
