"""What models write in the call syntax of their templates is read back, and failures are told apart."""

from __future__ import annotations

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import FrameError
from agentft.records import parse_row
from agentft.rendering import open_rendering
from agentft.rendering.encoding import tokens_of
from agentft.rendering.native import NativeRendering
from agentft.types import Json, Text, ToolCall
from tests.invariants.families import FAMILIES, NATIVE_FAMILIES, TEMPLATES
from tests.tiny import CHATML_TEMPLATE, tiny_tokenizer

QWEN = TEMPLATES.parents[1] / "rendering" / "qwen2.5_chat_template.jinja"
CONTROLS = {
    "llama3_1_tools": ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|python_tag|>"),
    "deepseek_tools": tuple(f"<｜{name}｜>" for name in ("User", "Assistant", "end▁of▁sentence", "tool▁call▁end")),
    "gptoss_tools": ("<|start|>", "<|message|>", "<|channel|>", "<|end|>", "<|return|>", "<|call|>", "<|constrain|>"),
}
HAND_WRITTEN = sorted(name for name, family in NATIVE_FAMILIES.items() if family.template)
SHOW = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
TOOLS = "{% for tool in tools or [] %}{{ tool | tojson }}{% endfor %}"


def tokenizer_of(template: str | Path, controls: tuple[str, ...] = ()) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": list(controls)})
    tokenizer.chat_template = template if isinstance(template, str) else template.read_text(encoding="utf-8")
    return tokenizer


def rendering_of(name: str) -> NativeRendering:
    controls = CONTROLS.get(name, NATIVE_FAMILIES[name].controls)
    native = open_rendering("native", tokenizer_of(NATIVE_FAMILIES[name].template or QWEN, controls))
    assert isinstance(native, NativeRendering)
    return native


def read(name: str, text: str) -> list[Any]:
    """Texts, calls as (name, arguments), and failures by their kind."""
    parts = rendering_of(name).parse(text)
    assert "".join(text[part.span.start : part.span.end] for part in parts) == text
    found: list[Any] = []
    for part in parts:
        if isinstance(part, ToolCall):
            found.append(part.parse_error.kind if part.parse_error else (part.name, dict(part.arguments)))
        elif isinstance(part, Text):
            found.append(f"thought: {part.text}" if part.thought else part.text)
    return found


OSLO, ROME = ("weather", {"city": "Oslo"}), ("time", {"city": "Rome"})
THREE = ("a", {"b": 3 * "</tool_call>"})
SEP, FUNCTION = "<｜tool▁sep｜>", "<｜tool▁call▁begin｜>function"
DEEPSEEK = f'{FUNCTION}{SEP}weather\n```json\n{{"city": "Oslo"}}\n```<｜tool▁call▁end｜>'
ENDS = "<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
HARMONY = '<|channel|>commentary json<|message|>{"city": "Oslo"}'
TO = "<|channel|>commentary to=functions.weather"


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("qwen2.5", '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool_call>', [OSLO]),
        ("qwen2.5", '<tool_call>{"arguments":{"city":"Oslo"},"name":"weather"}</tool_call>', [OSLO]),
        ("qwen2.5", 'Wait.\n<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}', ["Wait.", OSLO]),
        ("qwen2.5", '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}\n</tool', [OSLO]),
        ("qwen2.5", '<tool_call>\n{"name": "weather", "argum', ["structure"]),
        ("qwen2.5", "<tool_call>\n{oh no}\n</tool_call>", ["content"]),
        ("qwen2.5", "<tool_call>\nweather\n</tool_call>", ["structure"]),
        ("qwen2.5", '<tool_call>\n{"arguments": {}}\n</tool_call>', ["content"]),
        ("qwen2.5", '<tool_call>\n{"name": "weather", "arguments": [1]}\n</tool_call>', ["content"]),
        ("qwen2.5", '<tool_call>\n{"name": "a", "arguments": {}} so\n</tool_call>done', ["structure", "done"]),
        (
            "qwen2.5",
            "<tool_call>\n{'name': 'weather', 'arguments': {'city': 'Oslo'}}\n</tool_call>\n"
            '<tool_call>\n{"name": "time", "arguments": {"city": "Rome"}}\n</tool_call>',
            [OSLO, ROME],
        ),
        ("qwen2.5", '<tool_call>\n{"name": "weather", "arguments": {"city": "Oslo"}}' + " " * 99, [OSLO]),
        ("qwen2.5", f'<tool_call>\n{{"name": "a", "arguments": {{}}}}{" " * 99}So.', ["structure"]),
        ("qwen2.5", '<tool_call>\n{"name": "a", "arguments": {}} </tool_cal', [("a", {})]),
        ("qwen2.5", '<tool_call>\n{"name": "a", "arguments": {}} </tool-cal', ["structure"]),
        (
            "qwen2.5",
            f"<tool_call>\n{{'name': 'a', 'arguments': {{'b': '{3 * '</tool_call>'}'}}}}\n</tool_call>",
            [THREE],
        ),
        (
            "qwen2.5",
            f"<tool_call>\n{{'name': 'a', 'arguments': {{'b': '{4 * '</tool_call>'}'}}}}\n</tool_call>",
            ["content", 3 * "</tool_call>" + "'}}\n</tool_call>"],
        ),
        ("qwen2.5", "<think>\nHm.\n</think>\n\nIt is fine.", ["thought: Hm.", "It is fine."]),
        ("llama3_1_tools", '{"name": "weather", "parameters": {"city": "Oslo"}}', [OSLO]),
        ("llama3_1_tools", '<|python_tag|>{"name": "weather", "parameters": {"city": "Oslo"}}', [OSLO]),
        ("llama3_1_tools", '{"name": "weather", "parameters": {"city":', ["content"]),
        ("llama3_1_tools", '{"name": "Oslo", "country": "Norway"}', ['{"name": "Oslo", "country": "Norway"}']),
        ("llama3_1_tools", '{"name": "weather", "parameters": {"city": "Oslo"}} So be it.', [OSLO, " So be it."]),
        ("llama3_1_tools", "It is fine.", ["It is fine."]),
        (
            "mistral_tools",
            '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": "Oslo"}, "id": "a"}, '
            '{"name": "time", "arguments": {"city": "Rome"}}]',
            [OSLO, ROME],
        ),
        ("mistral_tools", '[TOOL_CALLS][{"name": "weather", "arguments": {"city": "Oslo"}}]', [OSLO]),
        ("mistral_tools", '[TOOL_CALLS] [{"name": "weather", "arguments": {"city": }]', ["content"]),
        ("mistral_tools", " It is fine.", ["It is fine."]),
        ("deepseek_tools", f"Wait.<｜tool▁calls▁begin｜>{DEEPSEEK}<｜tool▁calls▁end｜>", ["Wait.", OSLO]),
        ("deepseek_tools", f"<｜tool▁calls▁begin｜>{DEEPSEEK}\n{DEEPSEEK}<｜tool▁calls▁end｜>", [OSLO, OSLO]),
        ("deepseek_tools", f"<｜tool▁calls▁begin｜>{FUNCTION}{SEP}a\n```json\n{{no\n```{ENDS}", ["content"]),
        ("gptoss_tools", f" to=functions.weather{HARMONY}<|call|>", [OSLO]),
        ("gptoss_tools", f'{TO} <|constrain|>json<|message|>{{"city": "Oslo"}}<|call|>', [OSLO]),
        (
            "gptoss_tools",
            f'<|channel|>analysis<|message|>Hm.<|end|><|start|>assistant{TO}<|message|>{{"city": "Oslo"}}',
            ["thought: Hm.", OSLO],
        ),
        ("gptoss_tools", "<|channel|>final<|message|>It is fine.", ["It is fine."]),
        ("gptoss_tools", f"{TO} json<|message|>Oslo<|call|>", ["structure"]),
        ("glm4_tools", 'weather\n{"city": "Oslo"}<|observation|>', [OSLO]),
        ("glm4_tools", 'weather\n{"city": "Oslo"}<|assistant|>time\n{"city": "Rome"}', [OSLO, ROME]),
        ("glm4_tools", "\nIt is fine.", ["It is fine."]),
    ],
)
def test_what_models_write_is_read(name: str, text: str, found: list[Any]) -> None:
    assert read(name, text) == found


def test_calls_are_numbered_and_surplus_text_is_shown_in_part() -> None:
    call = '<tool_call>\n{"name": "a", "arguments": {}}%s\n</tool_call>'
    parts = rendering_of("qwen2.5").parse("\n".join([call % "", call % "", call % (" " + 41 * "x")]))
    calls = [part for part in parts if isinstance(part, ToolCall)]
    assert [part.id for part in calls] == ["call_0", "call_1", "call_2"]
    assert calls[2].parse_error is not None
    assert calls[2].parse_error.detail.endswith(f"surplus text after the call: {40 * 'x'!r}")


def test_ids_of_calls_are_kept_where_the_template_shows_or_checks_them() -> None:
    shown = CALLS.replace("<tool_call>", "<tool_call>{{ c.id }}:")
    checked = CALLS.replace(
        "<tool_call>", "{% if c.id | length != 9 %}{{ raise_exception('id') }}{% endif %}<tool_call>"
    )
    for calls, strict in ((CALLS, False), (shown, True), (checked, True)):
        native = open_rendering("native", tokenizer_of(TOOLS + SHOW + calls + END))
        assert isinstance(native, NativeRendering)
        assert native.syntax.strict_ids is strict


@pytest.mark.parametrize("name", HAND_WRITTEN)
def test_stops_are_the_control_tokens_that_end_calls(name: str) -> None:
    stops = {"gptoss_tools": ("<|call|>",), "glm4_tools": ("<|observation|>",)}
    assert rendering_of(name).stop == stops.get(name, ())


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        (CHATML_TEMPLATE, "does not declare tools"),
        (
            TOOLS.replace("tool |", "(tool.name ~ tool.parameter_definitions.items()) |") + SHOW + END,
            "has no attribute",
        ),
        (TOOLS + SHOW + END, "not a name with JSON arguments"),
        (TOOLS + SHOW + "{% for c in m.tool_calls or [] %}{{ c.id }}{% endfor %}" + END, "not a name with JSON"),
        (
            TOOLS + SHOW + "{% for c in m.tool_calls or [] %}{{ c.function.name }}("
            "{% for k, v in c.function.arguments | items %}{{ k }}={{ v }}{% endfor %}){% endfor %}" + END,
            "not a name with JSON",
        ),
        (TOOLS + SHOW + "{% if m.tool_calls %}{{ raise_exception('no calls') }}{% endif %}" + END, "no calls"),
        (  # like Qwen3-Coder's: its calls are rendered, if not as JSON
            TOOLS + SHOW + "{% for c in m.tool_calls or [] %}<function={{ c.function.name }}>"
            "{% for k, v in c.function.arguments.items() %}<{{ k }}>{{ v }}{% endfor %}{% endfor %}" + END,
            "so they could not be read back; use",
        ),
        (FAMILIES["llama2"].template, "does not declare tools"),
    ],
)
def test_a_template_that_cannot_be_read_is_refused_with_the_remedy(template: str | Path, reason: str) -> None:
    with pytest.raises(FrameError, match=rf"{reason}[^\n]*--format hermes"):
        open_rendering("native", tokenizer_of(template, ("</s>",)))


CALLS = "{% for c in m.tool_calls or [] %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}"
DECLARED: list[Json] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def test_a_template_that_changes_contents_keeps_control_tokens_as_text_and_the_mask_exact() -> None:
    shown = SHOW.replace("{{ m.content }}", "{{ (m.content[:1] | upper) ~ m.content[1:] }}")
    tokenizer = tokenizer_of(TOOLS + shown + CALLS + END)
    native = open_rendering("native", tokenizer)
    asked: Json = {"role": "user", "content": "hi <|im_end|>"}
    row = parse_row(
        {"messages": [asked, {"role": "assistant", "content": "an <|im_end|> b"}], "tools": DECLARED}, "row"
    )
    (sample,) = native.samples(row)
    assert "".join(segment.text for segment in sample).endswith("An <|im_end|> b<|im_end|>\n")
    assert tokens_of(sample, tokenizer).count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2
    call: Json = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    for text, works in (("", True), ("look", False)):
        reply: Json = {"role": "assistant", "content": text, "tool_calls": [call]}
        row = parse_row({"messages": [asked, reply], "tools": DECLARED}, "row")
        with nullcontext() if works else pytest.raises(FrameError, match="text before a call is not told from it"):
            assert [s.kind for s in native.samples(row)[0] if s.sampled] == ["call", "terminator"]


def test_a_template_with_a_notation_of_its_own_for_arguments_is_refused_even_if_it_prints_texts() -> None:
    """Like Gemma 4's, which would be trained on `{{"city": "Rome"}}`."""
    calls = (
        "{% for c in m.tool_calls or [] %}<tool_call>call:{{ c.function.name }}{{ '{' }}"
        "{% if c.function.arguments is mapping %}{% for k, v in c.function.arguments.items() %}{{ k }}:<|{{ v }}|>"
        "{% endfor %}{% else %}{{ c.function.arguments }}{% endif %}{{ '}' }}</tool_call>{% endfor %}"
    )
    with pytest.raises(FrameError, match="not a name with JSON arguments"):
        open_rendering("native", tokenizer_of(TOOLS + SHOW + calls + END))


def test_a_template_that_prints_arguments_as_python_does_gets_them_as_json() -> None:
    calls = CALLS.replace(
        "{{ c.function | tojson }}", '{"name": "{{ c.function.name }}", "arguments": {{ c.function.arguments }}}'
    )
    native = open_rendering("native", tokenizer_of(TOOLS + SHOW + calls + END))
    assert isinstance(native, NativeRendering)
    assert native.syntax.as_text


def test_a_template_that_writes_the_text_of_a_reply_after_its_calls_is_refused() -> None:
    """The call would be taken for a part of the text, which `--learn calls` does not supervise."""
    after = SHOW.replace("{{ m.content }}", "") + CALLS + "{{ m.content }}" + END
    native = open_rendering("native", tokenizer_of(TOOLS + after))
    call: Json = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns: Json = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "Look.", "tool_calls": [call]}]
    with pytest.raises(FrameError, match="after its calls; use the call format hermes"):
        native.samples(parse_row({"messages": turns, "tools": DECLARED}, "row"))


def test_a_reply_has_one_stop_and_no_thought_that_is_begun_twice() -> None:
    """Like Nemotron's: the last reply has the thought that the prompt begins, and line breaks follow a call's stop."""
    begun = "{% if m.role == 'assistant' and loop.last %}<think>\n{% endif %}{{ m.content }}"
    end = END.replace("<|im_end|>\n", "<|im_end|>\n{% if m.tool_calls and loop.last %}{{ '\n' }}{% endif %}")
    end = end.replace("assistant\n", "assistant\n<think>\n")
    native = open_rendering("native", tokenizer_of(TOOLS + SHOW.replace("{{ m.content }}", begun) + CALLS + end))
    call: Json = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    replies: list[Json] = [{"role": "assistant", "content": "Hi."}]
    replies.append({"role": "assistant", "content": "", "tool_calls": [call]})
    for reply in replies:
        row = parse_row({"messages": [{"role": "user", "content": "u"}, reply], "tools": DECLARED}, "row")
        (sample,) = native.samples(row)
        text = "".join(segment.text for segment in sample)
        assert text.count("<think>") == text.count("</think>") == 1
        assert "".join(segment.text for segment in sample if segment.sampled).count("<|im_end|>") == 1


@pytest.mark.parametrize("block", ["<think>\n", "<think>\n</think>"])
def test_a_thought_that_the_prompt_begins_and_the_history_lacks_is_empty(block: str) -> None:
    """Like QwQ's, and its copy in llama.cpp."""
    native = open_rendering("native", tokenizer_of(TOOLS + SHOW + CALLS + END.replace("ant\n", f"ant\n{block}")))
    turns: Json = [{"role": "user", "content": "u"}, {"role": "assistant", "content": "Hi."}]
    (sample,) = native.samples(parse_row({"messages": turns, "tools": DECLARED}, "row"))
    text = "".join(segment.text for segment in sample)
    assert text.partition("assistant\n<think>\n")[2].strip().startswith("</think>")
    assert [segment.text for segment in sample if segment.sampled] == ["Hi.", "<|im_end|>"]


def test_a_row_that_a_template_renders_in_another_way_than_its_prompt_is_refused_with_the_remedy() -> None:
    """Like that of Hermes in vLLM: a line break follows a result, but not if it is the last message."""
    result = SHOW + "{% if m.role == 'tool' and not loop.last %}{{ '\n' }}{% endif %}"
    native = open_rendering("native", tokenizer_of(TOOLS + result + CALLS + END))
    call: Json = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    turns: Json = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "r"},
        {"role": "assistant", "content": "Hi."},
    ]
    with pytest.raises(FrameError, match="unlike its generation prompt; use the call format hermes"):
        native.samples(parse_row({"messages": turns, "tools": DECLARED}, "row"))


@pytest.mark.parametrize("name", HAND_WRITTEN)
@pytest.mark.parametrize(
    "unit",
    [
        " ",
        "\n",
        "<tool_call>",
        "<tool_call>{",
        "[TOOL_CALLS] [",
        " to=functions.a",
        "<|channel|>commentary",
        "a\n{",
        "{",
    ],
)
def test_hostile_texts_are_read_in_linear_time(name: str, unit: str) -> None:
    native = rendering_of(name)
    native.parse("warm")
    started = time.process_time()
    parts = native.parse(unit * (60_000 // len(unit)))
    assert time.process_time() - started < 2
    assert parts
