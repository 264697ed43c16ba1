from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentft.calls import call_format
from agentft.errors import InputError
from agentft.models import Request, Sampling, opening
from agentft.models.completion import Completion
from agentft.models.opening import check_rendering, doubt_bits, identify, open_model
from agentft.rendering import open_rendering
from agentft.rendering.render import describe_rendering
from agentft.runs import find_finished
from agentft.types import Conversation, Span, Text, Turn
from tests.tiny import tiny_tokenizer

FRAME: Any = SimpleNamespace(fingerprint="f", stop="</s>", stable=True)


def make_run(
    root: Path, name: str, *, kind: str = "adapter", weights: str = "w", when: int = 1, method: str = "lora"
) -> Path:
    folder = root / name
    (folder / kind).mkdir(parents=True)
    (folder / "recipe.toml").write_text(f'model = "some-model"\nmethod = "{method}"\n')
    (folder / "format.json").write_text(json.dumps({"call_format": "hermes"}))
    (folder / kind / "weights.safetensors").write_text(weights)
    os.utime(folder / kind, (when, when))
    return folder


def test_a_run_of_full_training_is_opened_without_the_base_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_run(tmp_path, "whole", kind="model", when=9)
    run = find_finished("last", tmp_path)
    assert (run.path, run.model, run.weights, run.is_whole) == (whole, "some-model", whole / "model", True)
    opened: list[tuple[object, ...]] = []

    def fake(*arguments: object, **options: object) -> SimpleNamespace:
        opened.append((*arguments, *options.values()))
        return SimpleNamespace(tokenizer=tiny_tokenizer(), name="tiny")

    monkeypatch.setattr("agentft.models.hf.HfEngine.open", fake)
    open_model(None, str(whole))
    monkeypatch.setattr(opening, "resolve", str)  # the hub is out of reach
    open_model(None, str(make_run(tmp_path, "adapted", when=9)), 4)
    open_model(None, str(make_run(tmp_path, "rounded", when=9, method="qlora")))
    adapter, rounded = tmp_path / "adapted" / "adapter", tmp_path / "rounded" / "adapter"
    assert opened == [
        (str(whole / "model"), None, 16),
        ("some-model", adapter, 4, 0),
        ("some-model", rounded, 16, 4),
    ]


@pytest.mark.parametrize("thinking", [False, True])
def test_a_model_thinks_if_its_run_was_trained_on_thoughts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thinking: bool
) -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template += (
        "{% if add_generation_prompt and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
    )
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "message['content']", "message.content.split('</think>')[-1]"
    )
    prompts: list[str] = []
    monkeypatch.setattr(opening, "resolve", str)  # the hub is out of reach

    def complete(requests: Any, *_: object) -> list[Completion]:
        prompts.extend("".join(segment.text for segment in request.segments) for request in requests)
        return [Completion("Hi", "end", 1, 1)]

    engine = SimpleNamespace(tokenizer=tokenizer, name="tiny", complete=complete)
    monkeypatch.setattr("agentft.models.hf.HfEngine.open", lambda *_, **__: engine)
    place = make_run(tmp_path, "a")
    stored: dict[str, Any] = dict(open_rendering("hermes", tokenizer).describe())
    (place / "format.json").write_text(json.dumps(stored | {"thinking": thinking}))
    asked = Conversation("c", (Turn("user", (Text("Hi", Span(0, 2)),), "Hi"),), (), "hermes")
    open_model(None, str(place)).reply([Request("k", asked)], Sampling())
    assert prompts[0].endswith("<|im_start|>assistant\n" + ("" if thinking else "<think>\n\n</think>\n\n"))


def test_other_bits_than_in_training_give_a_warning(tmp_path: Path) -> None:
    lora, qlora = (str(make_run(tmp_path, method, method=method)) for method in ("lora", "qlora"))
    assert doubt_bits(None, 4) is None
    assert [doubt_bits(run, bits) for run in (lora, qlora) for bits in (16, 32)] == [None] * 4
    assert doubt_bits(qlora, 4) is None
    assert "was trained on unrounded weights and is now loaded on 4-bit weights" in (doubt_bits(lora, 4) or "")
    assert "was trained on 4-bit weights and is now loaded on 8-bit weights" in (doubt_bits(qlora, 8) or "")


def test_a_run_is_only_opened_with_the_rendering_of_its_training(tmp_path: Path) -> None:
    place = make_run(tmp_path, "a")
    stored = describe_rendering(call_format("hermes"), FRAME)
    (place / "format.json").write_text(json.dumps(stored))
    check_rendering(find_finished(str(place)), describe_rendering(call_format("hermes"), FRAME), "some-model")
    other: Any = SimpleNamespace(fingerprint="g", stop="</s>", stable=True)
    with pytest.raises(InputError, match=r"frame_sha256 differs from other-model's.*or use some-model"):
        check_rendering(find_finished(str(place)), describe_rendering(call_format("hermes"), other), "other-model")
    for key in ("frame_sha256", "system_sha256", "stop"):
        (place / "format.json").write_text(json.dumps(stored | {key: "older"}))
        with pytest.raises(InputError, match=rf"format\.json: {key} differs from some-model's.*train again"):
            check_rendering(find_finished(str(place)), describe_rendering(call_format("hermes"), FRAME), "some-model")


@pytest.mark.parametrize("kind", ["adapter", "model"])
def test_an_identity_changes_with_the_weights_and_the_bits(tmp_path: Path, kind: str) -> None:
    one = make_run(tmp_path, "a", kind=kind)
    name, identity = identify(None, str(one), 16)
    assert name == "some-model+a"
    assert identify(None, str(one), 16)[1] == identity
    assert identify(None, str(one), 4)[1] != identity
    (one / kind / "weights.safetensors").write_text("vw")
    assert identify(None, str(one), 16)[1] != identity
    if kind == "adapter":
        rounded = make_run(tmp_path, "r", weights="vw", method="qlora")
        assert identify(None, str(rounded), 16)[1] != identify(None, str(one), 16)[1]
    assert identify(None, None, 16)[0] == "smollm2-135m"


def test_scripted_answers_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"key": "*", "text": "Hi."}\n')
    assert open_model(f"scripted:{path}").name == f"scripted:{path}"
    first = identify(f"scripted:{path}", None, 16)[1]
    path.write_text('{"key": "*", "text": "Hello."}\n')
    assert identify(f"scripted:{path}", None, 16)[1] != first
    with pytest.raises(InputError, match="have no adapter"):
        open_model(f"scripted:{path}", "a-run")
    with pytest.raises(InputError, match="--model scripted:FILE"):
        open_model("scripted")
