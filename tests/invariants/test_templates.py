"""Invariants 2 and 3 with some seventy real chat templates, those of the package `trl`, and a tiny tokenizer."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from agentft.errors import FrameError, MissingError
from agentft.models.wheels import Wheel, pull_wheel
from agentft.records import parse_row
from agentft.rendering import FramedRendering, Rendering, open_rendering
from agentft.rendering.encoding import LEARN_RULES, encode, tokens_of
from agentft.types import Conversation, ToolCall
from tests.invariants.rows import served
from tests.invariants.test_families import readable_calls, row_with, supervised
from tests.rendering.test_native import SHAPES, TOOLS
from tests.rendering.test_thinking import ROWS as THINKING
from tests.tiny import tiny_tokenizer

TRL = Wheel("trl", "1.16.0", "c4726e139dd40e1a41661511c639c8a68416782b2e3e8c0befebd77bb7ba0396", 948205)
# What looks like a control token in a template.
CONTROL = re.compile(
    r"<\|[^|<>\s]{1,40}\|>|<｜[^｜<>]{1,40}｜>|<\|[a-z_]+>|<[a-z_]+\|>|</?s>|<(?:start|end)_of_\w+>|<SPECIAL_\d+>"
    r"|\[/?[A-Z_]{3,30}\]|<\w{2,30}_token>|<(?:eos|bos)>"
)
PARTS = ("idefics3", "llava_next", "smolvlm")
"""Those that take lists of parts only."""
FEWEST = 60
pytestmark = pytest.mark.slow


@cache
def templates() -> dict[str, str]:
    with zipfile.ZipFile(pull_wheel(TRL)) as wheel:
        names = [name for name in wheel.namelist() if name.endswith(".jinja")]
        return {name.rpartition("/")[2].removesuffix(".jinja"): wheel.read(name).decode() for name in names}


@pytest.fixture(scope="module", autouse=True)
def fetched() -> None:
    try:
        templates()
    except MissingError as error:
        pytest.fail(str(error), pytrace=False)


def tokenizer_of(name: str) -> Any:
    source = templates()[name]
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": sorted({*CONTROL.findall(source), "</s>"})})
    tokenizer.bos_token, tokenizer.eos_token, tokenizer.chat_template = "<|endoftext|>", "</s>", source
    return tokenizer


def rows() -> Iterator[Conversation]:
    for name, messages in SHAPES.items():
        yield parse_row({"messages": messages, "tools": TOOLS}, name)
    yield from THINKING.values()


def check(rendering: Rendering, row: Conversation, tokenizer: Any) -> None:
    """Serving sends prefixes of the samples, and what is supervised reads back as the row's calls."""
    samples = [encode(sample, tokenizer, LEARN_RULES["calls"]) for sample in rendering.samples(row)]
    for turns, said in served(row):
        prompt = tokens_of(rendering.prompt(replace(row, turns=turns)), tokenizer)
        starts = [list(sample.input_ids[: len(prompt)]) for sample in samples]
        assert list(prompt) in starts, f"{row.id}: before {said[:60]!r}"
    stop = rendering.frame.stop.strip()  # type: ignore[attr-defined]
    texts = [text for sample in samples for text in supervised(sample, tokenizer, stop)]
    assert all(text.strip().endswith((stop, *rendering.stop)) for text in texts), row.id
    parts = [part for text in texts for part in rendering.parse(text.strip().removesuffix(stop))]
    found = [(part.name, part.arguments) for part in parts if isinstance(part, ToolCall)]
    assert found == [(call.name, call.arguments) for call in readable_calls(row)], row.id


def test_there_are_enough_of_them() -> None:
    assert len(templates()) >= FEWEST


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_call_formats_work_in_every_template_that_takes_texts(fmt: str) -> None:
    for name in templates():
        tokenizer = tokenizer_of(name)
        if name.startswith(PARTS):
            with pytest.raises(FrameError, match=r"chat_template\.jinja|has no attribute 'text'"):
                open_rendering(fmt, tokenizer)
            continue
        rendering = open_rendering(fmt, tokenizer)
        assert isinstance(rendering, FramedRendering)
        for row in rows():
            try:
                check(rendering, row, tokenizer)
            except (AssertionError, FrameError) as error:
                pytest.fail(f"{name}: {row.id}: {error!s:.400}")


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_no_text_of_a_row_becomes_a_control_token(fmt: str) -> None:
    """A template that looks for control tokens in contents, as Gemma 4's does, may refuse the row."""
    refused = 0
    for name in (name for name in templates() if not name.startswith(PARTS)):
        tokenizer = tokenizer_of(name)
        rendering = open_rendering(fmt, tokenizer)
        special = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
        evil = "x".join(["", *tokenizer.convert_ids_to_tokens(sorted(special)[:60]), ""])
        for place in ("system", "user", "before", "argument", "nested", "result", "answer", "tool"):
            try:
                controls = [
                    [[token for token in tokens_of(sample, tokenizer) if token in special] for sample in samples]
                    for samples in (rendering.samples(row_with(text, place)) for text in (evil, "plain"))
                ]
            except FrameError:
                refused += 1
                continue
            assert controls[0] == controls[1], f"{name}: {place}"
    assert refused < FEWEST


def test_native_is_right_or_refused_with_the_remedy() -> None:
    used, refusals = 0, {}
    for name in (name for name in templates() if not name.startswith(PARTS)):
        tokenizer = tokenizer_of(name)
        try:
            rendering = open_rendering("native", tokenizer)
        except FrameError as error:
            refusals[name] = str(error)
            continue
        for row in rows():
            try:
                check(rendering, row, tokenizer)
                used += 1
            except FrameError as error:
                refusals[f"{name}: {row.id}"] = str(error)
            except AssertionError as error:
                pytest.fail(f"{name}: {row.id}: {error!s:.400}")
    assert used > 100
    one_call = {at for at, reason in refusals.items() if "single tool-calls" in reason}  # Llama's own words
    assert {at for at, reason in refusals.items() if "--format hermes" not in reason} == one_call
    assert len(one_call) < 10
