"""`agentft bench` runs the shipped script, passes all arguments on, and exits with its code."""

from __future__ import annotations

import pytest

from agentft.commands import run


@pytest.mark.slow
def test_it_measures_a_tiny_step_and_shows_the_share_of_the_limit(capfd: pytest.CaptureFixture[str]) -> None:
    arguments = ["--shape", "agent930", "--steps", "1", "pack_tokens=700", "lora_layers=1"]

    assert run(["bench", "train", *arguments]) == 0

    line = capfd.readouterr().out.splitlines()[-1]
    assert line.startswith("agent930 ")
    assert "of the limit  1 per step" in line
    assert float(line.split()[1]) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("argument", "message"),
    [("--shape=agent", "invalid choice: 'agent'"), ("pack_token=3", "did you mean 'pack_tokens'")],
)
def test_a_wrong_argument_is_named(argument: str, message: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["bench", "train", argument]) == 2
    assert message in capfd.readouterr().err
