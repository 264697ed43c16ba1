"""The probes of a chat template: each finds the fault that it is for, and none in a plain template."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers import GenerationConfig

from agentft.commands import run
from agentft.models.prompting import Prompting
from agentft.models.round_trip import Check, sample_conversation
from agentft.models.template_check import check_template
from agentft.rendering import open_rendering
from agentft.types import ToolCall
from tests.tiny import CHATML_TEMPLATE, save_tiny, tiny_tokenizer

TOOLS = (
    "{% if tools %}<|im_start|>system\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>'
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Earlier answers lose their text, as templates with reasoning do.
REWRITING = CHATML_TEMPLATE.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' and loop.last %}<final>{% endif %}{{ message['content'] }}",
)


def trips(template: str = CHATML_TEMPLATE, folder: Path | None = None, fmt: str = "hermes") -> dict[str, Check]:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    tokenizer.name_or_path = str(folder or "/no/such/folder")
    return {trip.name: trip for trip in check_template(Prompting("m", open_rendering(fmt, tokenizer), tokenizer))}


def test_a_plain_template_is_described() -> None:
    found = trips()
    assert list(found) == ["template", "stop token", "tool support", "prefixes"]
    assert found["template"].found.startswith("a system role; sha256 ")
    assert (found["stop token"].good, found["stop token"].found) == (True, "a turn ends with '<|im_end|>', token 2")
    assert found["prefixes"].good
    assert found["prefixes"].found == "4 prompts of a conversation begin its one training sample, token for token"
    assert not found["tool support"].good
    assert "--format msagent" in found["tool support"].remedy


def test_a_template_with_tools_is_noticed() -> None:
    support = trips(TOOLS)["tool support"]
    assert (support.good, "writes calls" in support.found) == (True, True)


def test_a_template_without_a_system_role_is_noticed() -> None:
    refusing = "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}" + CHATML_TEMPLATE
    assert trips(refusing)["template"].found.startswith("no system role")


def test_a_template_that_rewrites_turns_is_noticed() -> None:
    rewritten = trips(REWRITING)["prefixes"]
    assert (rewritten.good, rewritten.found) == (False, "the template rewrites earlier turns: 4 training samples")
    assert "exact" in rewritten.remedy


@pytest.mark.parametrize(("ends", "good"), [(0, False), ([0, 2], True), (None, True)])
def test_a_stop_token_that_other_programs_do_not_know_is_noticed(
    tmp_path: Path, ends: int | list[int] | None, good: bool
) -> None:
    GenerationConfig(eos_token_id=ends).save_pretrained(tmp_path)
    stop = trips(folder=tmp_path)["stop token"]
    assert stop.good == good
    assert good or stop.remedy.startswith("other programs stop at ['<|endoftext|>'] only: give a server '<|im_end|>'")


def test_the_sample_conversation_calls_twice() -> None:
    turns = sample_conversation().turns
    assert [turn.role for turn in turns] == ["system", *("user", "assistant", "tool", "assistant") * 2]
    assert sum(isinstance(part, ToolCall) for turn in turns for part in turn.parts) == 2


def test_doctor_checks_the_template_before_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model's own probes are left out here; they take long."""
    monkeypatch.setattr("agentft.models.round_trip.round_trip", lambda model: iter(()))
    assert run(["doctor", "--model", str(save_tiny(tmp_path / "m"))]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("ok ", "-- "))]
    assert [line[4:18].strip() for line in lines] == ["template", "stop token", "tool support", "prefixes", "model"]
