"""Chat templates for servers render what training rendered, byte for byte."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from jinja2 import Environment, nodes

from agentft.calls import CALL_FORMATS
from agentft.calls.msagent import MSAGENT
from agentft.errors import FrameError
from agentft.export.instructions import tool_parser
from agentft.export.ollama import ollama_template
from agentft.export.parity import Render, check_parity, server_messages
from agentft.export.serving import given_text, served_template
from agentft.records import parse_row
from agentft.rendering import open_rendering
from agentft.types import Conversation, Json, Span, Text, ToolDefinition, Turn
from tests.export import go_template
from tests.export.rows import awkward, declared, plain, tools_of
from tests.invariants.families import NATIVE_FAMILIES, load_tokenizer
from tests.rendering.test_thinking import HERMES2
from tests.tiny import tiny_tokenizer

TRIMMED = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ 'model' if message['role'] == 'assistant' else 'user' }}\n"
    "{{ message['content'] | trim }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>model\n{% endif %}\n"
)
THINKER = (
    "{% set ns = namespace(day=strftime_now('%Y')) %}{{ ns.day }}{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% if m['role'] == 'assistant' and m['reasoning_content'] %}<think>\n{{ m['reasoning_content'] }}\n</think>\n\n"
    "{% endif %}{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)


def tokenizer_with(template: str | None = None) -> Any:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template or tokenizer.chat_template
    return tokenizer


def jinja(tokenizer: Any, source: str) -> Render:
    def render(messages: Sequence[Any], tools: Sequence[Any], prompt: bool) -> str:
        text = tokenizer.apply_chat_template(
            list(messages),
            tools=list(tools) or None,
            tokenize=False,
            add_generation_prompt=prompt,
            chat_template=source,
        )
        return str(text)

    return render


def parity(tokenizer: Any, call_format: str, rows: list[Conversation], *, thinking: bool = False) -> Any:
    rendering: Any = open_rendering(call_format, tokenizer, thinking=thinking)
    source = served_template(rendering, tokenizer, tools_of(rows), thinking=thinking)
    return check_parity(rendering, rows, jinja(tokenizer, source))


@pytest.mark.parametrize("template", [None, TRIMMED, THINKER, HERMES2], ids=["chatml", "trimmed", "thinker", "hermes2"])
@pytest.mark.parametrize("call_format", sorted(CALL_FORMATS))
def test_every_prompt_is_equal(template: str | None, call_format: str) -> None:
    found = parity(tokenizer_with(template), call_format, [*plain(), *awkward()])
    assert (found.first, found.differ, found.unsendable) == ("", 0, [])
    assert (found.rows, found.texts, found.as_text) == (6, 12, 0)


@pytest.mark.parametrize("template", [None, THINKER], ids=["chatml", "thinker"])
def test_thoughts_are_equal(template: str | None) -> None:
    found = parity(tokenizer_with(template), "hermes", plain("Let me\nthink."), thinking=True)
    assert (found.first, found.differ) == ("", 0)
    assert (found.rows, found.texts) == (3, 7)  # the two rows without thoughts are trained as if it did not think


def test_rows_in_the_data_sets_wording_are_sent_as_text() -> None:
    found = parity(tokenizer_with(), "msagent", declared())
    assert (found.first, found.differ, found.as_text, found.texts) == ("", 0, 3, 3)
    assert parity(tokenizer_with(), "hermes", declared()).as_text == 0


def test_urls_come_from_the_training_data() -> None:
    """A server declares tools without their URLs, which MS-Agent's texts contain."""
    city: dict[str, Json] = {
        "type": "object",
        "properties": {"city": {"type": "string", "title": "x"}, "n": {"type": "integer"}},
    }
    tools = [
        ToolDefinition("now", "Now.", city, ("http://w.test:80/now",)),
        ToolDefinition("later", "Later.", {"type": "object", "properties": {"a": {"required": ["b"]}}}, ("http://w.test:80/x",)),
        ToolDefinition("find", "", {"type": "object", "$defs": {}}, ("http://s.test/a", "http://s.test/b")),
        ToolDefinition("local", "No URL.", {}),
    ]  # fmt: skip
    turns = (Turn("system", (Text("Persona.", Span(0, 8)),), "Persona."), Turn("user", (Text("q", Span(0, 1)),), "q"))
    tokenizer = tokenizer_with()
    rendering: Any = open_rendering("msagent", tokenizer)
    asked = Conversation("c", turns, tuple(tools), "openai")
    source = served_template(rendering, tokenizer, tools, thinking=False)
    messages: list[Any] = server_messages(asked, rendering)
    declared_tools: list[Any] = [
        {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
        for t in tools
    ]  # fmt: skip
    served = jinja(tokenizer, source)(messages, declared_tools, True)
    assert served == "".join(segment.text for segment in rendering.prompt(asked))
    assert MSAGENT.write_system("Persona.", tools) in served
    call = {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"function": {"name": "now", "arguments": {"city": "Oslo"}}}],
    }
    assert '"url": "http://w.test:80/now"' in jinja(tokenizer, source)([*messages, call], declared_tools, False)


def test_vllm_may_leave_the_newline_before_a_call_in_the_content() -> None:
    """Its Hermes parser returns all text up to the tag, and the next prompt must not have a second newline."""
    tokenizer = tokenizer_with()
    rendering: Any = open_rendering("hermes", tokenizer)
    call = {"function": {"name": "f", "arguments": {}}}
    for text in ("I look.", "I look.\n", "I look.\n\n"):
        trained = f"{text}\n<tool_call>\n"
        for gap, content in ((True, text), (False, f"{text}\n")):
            source = served_template(rendering, tokenizer, [], thinking=False, gap=gap)
            messages: list[Any] = [
                {"role": "user", "content": "q"},
                {"role": "assistant", "content": content, "tool_calls": [call, call]},
            ]
            served = jinja(tokenizer, source)(messages, [], False)
            assert f"assistant\n{trained}" in served
            assert served.count("</tool_call>\n<tool_call>") == 1
    assert "assistant\nI look.\n<tool_call>" in jinja(tokenizer, source)(
        [messages[0], {**messages[1], "content": "I look."}], [], False
    )  # a client's own message


def test_a_server_that_leaves_arguments_as_text_or_contents_as_parts_renders_the_same() -> None:
    tokenizer = tokenizer_with()
    rendering: Any = open_rendering("hermes", tokenizer)
    render = jinja(tokenizer, served_template(rendering, tokenizer, [], thinking=False))
    call = {"function": {"name": "f", "arguments": {"a": "é"}}}
    messages: list[Any] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
    ]
    expected = render(messages, [], False)
    assert '<tool_call>\n{"name": "f", "arguments": {"a": "é"}}\n</tool_call>' in expected
    text: list[Any] = [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {**messages[1], "tool_calls": [
        {"function": {"name": "f", "arguments": '{"a": "é"}'}}]}]  # fmt: skip
    assert render(text, [], False) == expected


@pytest.mark.parametrize("call_format", sorted(CALL_FORMATS))
def test_the_template_calls_only_what_other_implementations_of_jinja_have(call_format: str) -> None:
    """LM Studio's (@huggingface/jinja) has no `dict`, for example; TGI's is minijinja."""
    rendering: Any = open_rendering(call_format, tokenizer_with())
    tree = Environment(autoescape=True).parse(
        served_template(rendering, tokenizer_with(), tools_of(plain()), thinking=False)
    )
    own = {macro.name for macro in tree.find_all(nodes.Macro)}
    called = {getattr(call.node, "name", getattr(call.node, "attr", "")) for call in tree.find_all(nodes.Call)}
    assert called - own <= {"namespace", "endswith", "lstrip", "get", "items"}
    asked = [test.node for test in tree.find_all(nodes.Test) if test.name == "iterable"]
    assert not any(isinstance(node, nodes.Call) for node in asked), "minijinja takes what is missing for iterable"


def test_the_first_difference_shows_both_texts() -> None:
    tokenizer = tokenizer_with()
    rendering: Any = open_rendering("hermes", tokenizer)
    source = served_template(rendering, tokenizer, [], thinking=False).replace(
        "provided with function", "given function"
    )
    found = check_parity(rendering, plain(), jinja(tokenizer, source))
    assert (found.differ, found.texts) == (7, 10)
    assert found.first.startswith("row-2: at character 1")
    assert "trained: " in found.first
    assert "You are provided with f" in found.first
    assert "You are given function" in found.first
    broken = check_parity(rendering, plain(), jinja(tokenizer, "{{ raise_exception('no') }}"))
    assert broken.differ == broken.texts
    assert "(the template fails: no)" in broken.first


@pytest.mark.parametrize("arguments", ['{"a": "x"', "x"])
def test_a_row_with_an_unreadable_call_and_its_result_is_not_compared(arguments: str) -> None:
    call: Json = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    tool: Json = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    messages: list[Json] = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "r"},
        {"role": "assistant", "content": "done"},
    ]
    row = parse_row({"messages": messages, "tools": [tool]}, "rows.jsonl:7")
    found = parity(tokenizer_with(), "hermes", [row, *plain()])
    assert (found.differ, found.rows, found.unsendable) == (0, 5, ["rows.jsonl:7"])


def test_msagent_with_a_templates_own_thoughts_is_refused() -> None:
    tokenizer = tokenizer_with(THINKER)
    rendering = open_rendering("msagent", tokenizer, thinking=True)
    with pytest.raises(FrameError, match="train with --format hermes or native"):
        served_template(rendering, tokenizer, [], thinking=True)


def test_several_templates_are_refused() -> None:
    tokenizer = tokenizer_with()
    rendering = open_rendering("hermes", tokenizer)
    tokenizer.chat_template = {"default": "x", "tool_use": "y"}
    with pytest.raises(FrameError, match="several chat templates"):
        served_template(rendering, tokenizer, [], thinking=False)


def go_parity(template: str | None, rows: list[Conversation], *, thinking: bool = False) -> tuple[Any, Any]:
    """Parity of what we think that Ollama renders, and of what Go renders."""
    tokenizer = tokenizer_with(template)
    rendering: Any = open_rendering("hermes", tokenizer, thinking=thinking)
    given = given_text(rendering, tokenizer, thinking=thinking)
    made = ollama_template(rendering.frame, given, tools_of(rows), thinking=thinking)

    pairs: list[tuple[str, str]] = []

    def go(messages: Sequence[Any], tools: Sequence[Any], prompt: bool) -> str:
        text = go_template.render(made.source(), go_template.ollama_values(messages, tools))
        pairs.append((text, made.render(messages, tools, prompt)))
        return text

    found = check_parity(rendering, rows, made.render), check_parity(rendering, rows, go)
    assert [text for text, _ in pairs] == [text for _, text in pairs]
    assert len(pairs) == found[0].texts
    return found


@pytest.mark.parametrize("template", [None, TRIMMED], ids=["chatml", "trimmed"])
def test_ollama_renders_every_prompt(template: str | None) -> None:
    ours, gos = go_parity(template, plain())
    assert ours == gos
    assert (ours.first, ours.differ, ours.texts) == ("", 0, 10)


def test_ollama_renders_thoughts() -> None:
    ours, gos = go_parity(None, plain("Think."), thinking=True)
    assert ours == gos
    assert (ours.first, ours.differ, ours.texts) == ("", 0, 7)


def test_what_ollama_cannot_render_is_a_difference() -> None:
    """It does not trim system texts, and its JSON escapes `<` and has no spaces."""
    ours, gos = go_parity(None, awkward())
    assert ours == gos
    assert (ours.differ, ours.texts) == (2, 2)


def test_ollama_finds_the_tag_of_the_calls() -> None:
    """It searches the first `{{ if .ToolCalls }}` for the text before the first call, up to a brace or an action."""
    rendering: Any = open_rendering("hermes", tokenizer_with())
    source = ollama_template(rendering.frame, "", tools_of(plain()), thinking=False).source()
    after = source.partition("{{ if .ToolCalls }}")[2].partition("{{ range $n, $c := .ToolCalls }}")[2]
    assert after.startswith('<tool_call>\n{{ "{" }}"name"')
    assert ".Tools" in source


def test_an_irregular_template_is_refused_for_ollama() -> None:
    odd = (
        "{% for m in messages %}<|im_start|>{{ m.role }} {{ loop.index }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant {{ messages | length + 1 }}\n{% endif %}"
    )
    with pytest.raises(FrameError, match="writes turns differently in different places; export it --to vllm"):
        go_parity(odd, plain())
    with pytest.raises(FrameError, match="thoughts of its own"):
        go_parity(THINKER, plain("Think."), thinking=True)


def test_vllms_parser_is_that_of_the_calls() -> None:
    tokenizer = tokenizer_with()
    found = [tool_parser(open_rendering(one, tokenizer)) for one in ("hermes", "msagent")]  # type: ignore[arg-type]
    assert found == ["hermes", None]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3", "qwen2.5", "llama3_1_tools", "mistral_tools", "phi3", "glm4_tools"])
def test_real_templates_are_equal(family: str) -> None:
    tokenizer = load_tokenizer(family)
    native = family in NATIVE_FAMILIES and family != "mistral_tools"
    for call_format in (*sorted(CALL_FORMATS), *(("native",) if native else ())):
        found = parity(tokenizer, call_format, [*plain(), *awkward()])
        assert (found.first, found.differ) == ("", 0), call_format


@pytest.mark.slow
@pytest.mark.xfail(reason="its template moves the system text, so later prompts differ", strict=True)
def test_mistrals_own_template_is_equal() -> None:
    found = parity(load_tokenizer("mistral_tools"), "native", [*plain(), *awkward()])
    assert (found.first, found.differ) == ("", 0)
