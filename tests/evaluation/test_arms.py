from __future__ import annotations

from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.evaluation import arms as arms_module
from agentft.evaluation.arms import ModelChoice, make_arm, make_arms
from agentft.models import Model
from agentft.models.scripted import ScriptedModel
from tests.evaluation.world import small_plan
from tests.models.test_opening import make_run


def test_base_is_the_same_model_and_format_without_the_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str | None, str | None, int, str | None]] = []
    prepared: list[str] = []

    def fake(model: str | None, adapter: str | None, bits: int, fmt: str | None) -> Model:
        opened.append((model, adapter, bits, fmt))
        return ScriptedModel({})

    monkeypatch.setattr(arms_module, "open_model", fake)
    run = str(make_run(tmp_path / "runs", "mine"))
    tuned, base = make_arms(small_plan(tmp_path), ModelChoice(adapter=run, bits=4), "base", prepared.append)[0]
    assert (tuned.label, tuned.name) == ("tuned", "some-model+mine")
    assert (base.label, base.name) == ("base", "some-model")
    assert opened == []
    tuned.open()
    base.open()
    assert opened == [(None, run, 4, None), ("some-model", None, 4, "hermes")]
    assert prepared == ["some-model", "some-model"]


def test_another_run_is_a_baseline_with_its_own_model_and_format(tmp_path: Path) -> None:
    one, two = (str(make_run(tmp_path / "runs", name, weights=name)) for name in ("one", "two"))
    (Path(two) / "format.json").write_text('{"call_format": "msagent"}')
    arms, stored = make_arms(small_plan(tmp_path), ModelChoice(adapter=one), two)
    assert [(arm.label, arm.name) for arm in arms] == [
        ("tuned", "some-model+one"),
        ("baseline", "some-model+two"),
    ]
    assert arms[0].identity != arms[1].identity
    assert stored == {}


def test_the_call_format_option_overrides_that_of_the_adapter(tmp_path: Path) -> None:
    run = str(make_run(tmp_path / "runs", "one"))
    plan = small_plan(tmp_path)
    trained, same, other = (
        make_arm("tuned", plan, ModelChoice(adapter=run, call_format=name)) for name in (None, "hermes", "msagent")
    )
    assert trained.identity == same.identity
    assert trained.identity != other.identity
    oracles = [make_arm("tuned", plan, ModelChoice("scripted", call_format=name)) for name in (None, "hermes")]
    assert [arm.open().source for arm in oracles] == ["msagent", "hermes"]
    assert oracles[0].identity != oracles[1].identity
    with pytest.raises(InputError, match="unknown call format 'xml'"):
        make_arm("tuned", plan, ModelChoice(call_format="xml"))


def test_base_needs_an_adapter(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="pass --adapter"):
        make_arms(small_plan(tmp_path), ModelChoice("some-model"), "base")
