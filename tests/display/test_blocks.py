"""Growing Markdown: blocks are finished at blank lines, and nothing that a model writes is lost or has an effect."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from agentft.display.blocks import Blocks, markdown

PIECES = ["a", " b", "\n", "\n\n", "```", "```py\n", "~~~", "  c", "- d", "1. e", "# f", "| g |", "    h"]


def split(text: str) -> list[str]:
    blocks = Blocks()
    return [*blocks.feed(text), blocks.close()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("one\ntwo\n\nthree", ["one\ntwo", "three"]),
        ("\n\n one\n\n\n\ntwo\n", [" one", "two"]),
        ("- a\n\n  more of a\n- b\n\nend", ["- a\n\n  more of a\n- b", "end"]),
        ("```py\nx = 1\n\ny = 2\n```\n\nend", ["```py\nx = 1\n\ny = 2\n```", "end"]),
        ("````\n```\n\nin\n````\n\nend", ["````\n```\n\nin\n````", "end"]),
        ("~~~\n```\n\nin\n~~~\n\nend", ["~~~\n```\n\nin\n~~~", "end"]),
        ("```\nnever\n\nclosed", ["```\nnever\n\nclosed"]),
        ("", [""]),
    ],
)
def test_blocks(text: str, expected: list[str]) -> None:
    assert split(text) == expected


@given(st.lists(st.sampled_from(PIECES), max_size=20), st.integers(1, 5))
def test_blocks_do_not_depend_on_the_pieces_and_lose_nothing(pieces: list[str], size: int) -> None:
    text = "".join(pieces)
    blocks, found = Blocks(), []
    for start in range(0, len(text), size):
        found += blocks.feed(text[start : start + size])
    found.append(blocks.close())
    assert found == split(text)
    assert re.sub(r"\s", "", "".join(found)) == re.sub(r"\s", "", text)


def test_the_growing_block_is_what_is_not_finished() -> None:
    blocks = Blocks()
    assert blocks.feed("one\n\n") == []
    assert blocks.growing == "one"
    assert blocks.feed("two") == ["one"]
    assert blocks.growing == "two"
    assert (blocks.close(), blocks.growing) == ("two", "")


def drawn(text: str, *, terminal: bool = False) -> str:
    console = Console(
        file=io.StringIO(), width=60, force_terminal=terminal, color_system="standard" if terminal else None
    )
    console.print(markdown(text))
    assert isinstance(console.file, io.StringIO)
    return "\n".join(line.rstrip() for line in console.file.getvalue().rstrip().split("\n"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\nb", "a\nb"),
        ("<b>x</b> &amp; <!-- y -->", "<b>x</b> &amp; <!-- y -->"),
        ("<script>\nz\n</script>", "<script>\nz\n</script>"),
        ("see [here](http://evil.test/x)", "see here (http://evil.test/x)"),
        ("![cat](http://evil.test/c.png)", "!cat (http://evil.test/c.png)"),
        ("[bold]x[/bold] \x1b]8;;http://evil.test\x07y", "[bold]x[/bold] ␛]8;;http://evil.test␇y"),
        ("`[red]x`", "[red]x"),
    ],
)
def test_text_is_shown_as_it_is(text: str, shown: str) -> None:
    assert drawn(text) == shown


def test_links_are_not_links_of_the_terminal() -> None:
    assert "\x1b]8" not in drawn("[here](http://evil.test/x) <http://evil.test>", terminal=True)
