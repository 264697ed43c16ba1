"""The input line, without a terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from agentft.display.live import LiveArea
from agentft.repl import terminal
from tests.repl.bank import BankStage


@pytest.mark.parametrize("pasted", ["x" * 40_000, "one line\n" * 2_000, "\ttabs\n" * 500])
def test_what_is_above_the_input_line_is_drawn_once_for_each_picture(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pasted: str
) -> None:
    live, drawn = LiveArea(), iter(range(1_000_000))
    monkeypatch.setattr(live, "draw", lambda *_: "" * next(drawn))
    with create_pipe_input() as keyboard, create_app_session(output=DummyOutput()):
        monkeypatch.setattr(terminal, "_RawInput", lambda _: keyboard)
        chat = terminal.Terminal(BankStage([]).repl, live, tmp_path / "history", "loading", [])
        editor = chat._editor

        def leave(_: Any) -> None:
            if editor.default_buffer.text == pasted:
                keyboard.send_text("\x03\x04")

        editor.app.after_render += leave
        keyboard.send_text(f"\x1b[200~{pasted}\x1b[201~")
        chat.run()
    assert 0 < next(drawn) <= editor.app.render_counter
