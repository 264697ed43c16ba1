"""The readers of questions: piped lines and the line editor."""

from __future__ import annotations

import io

import pytest

from agentft.repl.reading import line_reader


def test_piped_lines_are_read_until_the_end() -> None:
    read = line_reader(io.TextIOWrapper(io.BytesIO("\ufeffone\r\n\ntwo 北京".encode())))
    assert [read(""), read(""), read("")] == ["one", "", "two 北京"]
    with pytest.raises(EOFError):
        read("")


def test_invalid_utf8_does_not_end_the_chat() -> None:
    assert line_reader(io.TextIOWrapper(io.BytesIO(b"a\xff\n")))("") == "a\ufffd"


def test_a_stream_that_is_not_a_file() -> None:
    assert line_reader(io.StringIO("x\n"))("") == "x"
