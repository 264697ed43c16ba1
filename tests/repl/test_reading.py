"""The readers of questions: piped lines and the line editor."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import create_pipe_input
from prompt_toolkit.output import DummyOutput

from agentft.repl.loop import line_reader, terminal_reader


def test_piped_lines_are_read_until_the_end() -> None:
    read = line_reader(io.TextIOWrapper(io.BytesIO("\ufeffone\r\n\ntwo 北京".encode())))
    assert [read(), read(), read()] == ["one", "", "two 北京"]
    with pytest.raises(EOFError):
        read()


def test_invalid_utf8_does_not_end_the_chat() -> None:
    assert line_reader(io.TextIOWrapper(io.BytesIO(b"a\xff\n")))() == "a\ufffd"


def test_a_stream_that_is_not_a_file() -> None:
    assert line_reader(io.StringIO("x\n"))() == "x"


def test_the_editor_keeps_pasted_lines_together_and_a_history(tmp_path: Path) -> None:
    history = tmp_path / "cache" / "history"
    with create_pipe_input() as keys, create_app_session(input=keys, output=DummyOutput()):
        read = terminal_reader(history, ["/help", "/quit"])
        keys.send_text("\x1b[200~first\nsecond\x1b[201~\r")
        assert read() == "first\nsecond"
        keys.send_text("/quit\r")
        assert read() == "/quit"
        keys.send_text("\x04")
        with pytest.raises(EOFError):
            read()
        keys.send_text("\x03")
        with pytest.raises(KeyboardInterrupt):
            read()
    assert "+second" in history.read_text()
    assert history.stat().st_mode & 0o077 == 0
