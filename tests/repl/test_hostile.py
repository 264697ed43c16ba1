"""Nothing that a model, a tool or a name contains reaches the terminal but as text."""

from __future__ import annotations

import io
import json
import random
import re
import unicodedata
from typing import cast

import pytest

from agentft.display.chat import ChatView
from agentft.display.live import LiveArea
from agentft.display.terminal import SafeConsole
from agentft.models import CallDone, CallStarted, CallText, TextDelta
from agentft.types import Exchange, Json, Span, ToolCall

PIECES = [
    *(
        "\x1b[2J",
        "\x1b[31m",
        "\x1b]0;title\x07",
        "\x1b]8;;http://evil.test\x1b\\link\x1b]8;;\x1b\\",
        "\x1b[?1049h",
        "\x1bc",
    ),
    *(
        "\x9b2J",
        "\x9d0;x\x9c",
        "\x90q\x9c",
        "\x08" * 9,
        "\r",
        "\x00",
        "\x7f",
        "\x0e",
        "\x85",
        "\u2028",
        "\u202e",
        "\u2066",
    ),
    *(
        "[red]",
        "[/red]",
        "[link=http://evil.test]x[/link]",
        ":smile:",
        "[x](http://evil.test)",
        "![x](file:///etc/passwd)",
    ),
    *(
        "<script>",
        "&lt;",
        "&#27;[2J",
        "\\x1b",
        "\\u001b[2J",
        "`",
        "```",
        "# ",
        "* ",
        "| a | b |\n|---|---|\n",
        "\n",
        "\t",
        " ",
    ),
    *("\ud800", "\udfff", "e\u0301" * 9, "\u200b", "\ufeff", "北京", "👩\u200d🔬", "word", "x" * 200, "\U000e0041"),
]
COLOURS = re.compile(r"\x1b\[[\d;]*m")
RESETS = {"\n"}


def check(written: str) -> None:
    """Only colours control the terminal."""
    left = COLOURS.sub("", written)
    bad = {c for c in left if unicodedata.category(c) in {"Cc", "Cs"} or c in "\u2028\u2029\u202e\u2066\u200b\ufeff"}
    assert bad <= RESETS, f"{bad} in {left!r}"


def show(view: ChatView, live: LiveArea, text: str) -> None:
    """Everything that shows a text of others."""
    arguments: dict[str, Json] = {text: text, "nested": {text: [text]}}
    call = ToolCall("c", text, arguments, Span(0, 0), endpoint=f"http://{text}")
    with view.listening() as on_delta:
        for delta in (TextDelta(text, thought=True), TextDelta(text), CallStarted(text), CallText(text, text)):
            on_delta(0, delta)
            check(live.draw(60, 20))
        on_delta(0, CallDone(call))
    received = json.dumps({"error": text}) if len(text) % 2 else text
    view.doing(f"running {text}")
    check(live.draw(60, 20))
    view.ask_for(call, "write")
    view.exchange(Exchange(call, "POST", call.endpoint, None, 200, received, is_error=bool(len(text) % 2)), 0.1)
    view.show_item(len(view.items), whole=True)
    view.echo(text)
    view.note(text)
    view.welcome(text, [text])


def run(count: int) -> None:
    draw, out, live = random.Random(0), io.StringIO(), LiveArea()
    live.out = lambda text: cast(None, out.write(text))
    console = SafeConsole(
        file=cast(io.StringIO, live), width=60, force_terminal=True, color_system="truecolor", markup=False, emoji=False
    )
    view = ChatView(console, console, live=live)
    for _ in range(count):
        show(view, live, "".join(draw.choices(PIECES, k=draw.randint(1, 6))))
        check(out.getvalue())
        out.seek(0)
        out.truncate()


def test_hostile_strings_are_text() -> None:
    run(40)


@pytest.mark.slow
def test_ten_thousand_hostile_strings_are_text() -> None:
    run(10_000)
