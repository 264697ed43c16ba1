"""The exact output of the terminal agent, at a fixed width."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from typing import TextIO, cast

import pytest
from rich.console import Console

from agentft.calls.hermes import HERMES
from agentft.calls.msagent import MSAGENT
from agentft.display.chat import LINES_SHOWN, ChatView, call_line, call_panel, status_line
from agentft.display.live import LiveArea
from agentft.models import CallDone, CallStarted, Delta, TextDelta
from agentft.types import Exchange, Json, ParseFailure, Span, Step, ToolCall

CALL = '<|startofthink|>```JSON\n{"api_name": "f", "parameters": {"x": 1}}\n```<|endofthink|>'


def make_console(width: int = 60, *, terminal: bool = True) -> Console:
    return Console(
        file=io.StringIO(),
        width=width,
        color_system=None,
        highlight=False,
        legacy_windows=False,
        force_terminal=terminal,
        force_interactive=False,
    )


def output(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def exchange(
    received: str = '{"y": 2}', status: int | None = 200, error: bool = False, parse_error: str | None = None
) -> Exchange:
    arguments: dict[str, Json] = {} if parse_error else {"city": "北京"}
    call = ToolCall(
        "c", "weather", arguments, Span(0, 4), ParseFailure("content", parse_error) if parse_error else None
    )
    return Exchange(call, "POST", "http://weather.test/weather", None, status, received, error)


def test_a_panel_can_be_whole() -> None:
    console = make_console()
    console.print(call_panel(exchange(json.dumps({f"key{n}": n for n in range(50)})), whole=True))
    assert '"key49"' in output(console)
    assert "more lines" not in output(console)


def panel_text(made: Exchange, written: str = "") -> str:
    console = make_console()
    console.print(call_panel(made, written))
    return output(console)


def test_a_call_is_a_panel_with_arguments_result_and_status() -> None:
    assert panel_text(exchange()) == (
        "╭─ ⚙ weather ──────────────────────────────────────────────╮\n"
        '│ {"city": "北京"}                                         │\n'
        "│ ──────────────────────────────────────────────────────── │\n"
        '│ {"y": 2}                                                 │\n'
        "╰───────────────── POST http://weather.test/weather · 200 ─╯\n"
    )


def test_long_json_is_indented_and_cut_with_a_count() -> None:
    shown = panel_text(exchange(json.dumps({f"key{n}": n for n in range(50)})))
    assert '│   "key0": 0,' in shown
    assert f"… {52 - LINES_SHOWN} more lines" in shown
    assert '"key49"' not in shown


@pytest.mark.parametrize(
    ("made", "mark"),
    [
        (exchange(status=None, error=True), "not sent"),
        (exchange(status=404, error=True), "· 404"),
        (exchange("plain words", 200), "plain words"),
        (exchange("[" * 5000), "[[["),
        (exchange("[1e999]"), "[1e999]"),
        (exchange('{"a": 1, "a": 2}'), '{"a": 1, "a": 2}'),
    ],
)
def test_outcomes(made: Exchange, mark: str) -> None:
    assert mark in panel_text(made)


def test_an_unreadable_call_is_shown_as_it_was_written() -> None:
    shown = panel_text(exchange(parse_error="not JSON"), written='{"api_name" [red]oops[/red]')
    assert '{"api_name" [red]oops[/red]' in shown


def test_markup_and_control_sequences_are_shown_as_text() -> None:
    shown = panel_text(exchange("[bold]x[/bold] \x1b[31mred\x07"))
    assert "[bold]x[/bold] ␛[31mred␇" in shown
    assert "\x1b" not in shown


def test_a_call_is_one_line() -> None:
    assert call_line(exchange(), 3, 0.012, 60).plain == '⚙ 3 weather 北京 · 200 · 12 ms · {"y": 2}'
    assert call_line(exchange(), 3, 1.25, 60).plain == '⚙ 3 weather 北京 · 200 · 1.2 s · {"y": 2}'
    long = call_line(exchange(json.dumps({"key": "x" * 99})), 3, 0.012, 60)
    assert (long.cell_len, long.plain[-1]) == (60, "…")
    assert call_line(exchange(), 3, 0.012, 50).plain == "⚙ 3 weather 北京 · 200 · 12 ms"
    failed = exchange(json.dumps({"error": "no such city [red]\x1b"}), 404, True)
    assert call_line(failed, 1, 0.5, 40).plain == "⚙ 1 weather 北京 · 404 · 500 ms · no such city [red]␛"
    unread = exchange('{"error": "cut"}', None, True, "not JSON")
    assert call_line(unread, 1, 0.5, 40).plain == "⚙ 1 weather · not sent · cut"


def step(text: str, *exchanges: Exchange) -> Step:
    return Step(0, MSAGENT.parse(text), text, "stop", exchanges, tokens=10)


def listen(view: ChatView, *deltas: Delta) -> None:
    with view.listening() as on_delta:
        assert on_delta is not None
        for delta in deltas:
            on_delta(0, delta)


def plain(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.split("\n"))


@pytest.mark.parametrize("streaming", [True, False])
def test_text_comes_before_its_call_and_once(streaming: bool) -> None:
    console = make_console()
    view = ChatView(console, make_console(), streaming=streaming)
    made = exchange()
    listen(view, TextDelta("Let me "), TextDelta("look. "), CallStarted("weather"), CallDone(made.call))
    view.exchange(made, 0.012)
    view.step(step(f"Let me look. {CALL}", made))
    assert plain(output(console)) == '  Let me look.\n⚙ 1 weather 北京 · 200 · 12 ms · {"y": 2}\n'


def test_text_after_a_call_follows_its_line() -> None:
    console = make_console()
    view = ChatView(console, make_console())
    text = 'First. <tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call> and so on'
    made = exchange()
    listen(view, TextDelta("First. "), CallStarted(), CallDone(made.call), TextDelta(" and so on"))
    view.exchange(made, 0.012)
    view.step(Step(0, HERMES.parse(text), text, "end", (made,)))
    lines = plain(output(console)).splitlines()
    assert (lines[0], lines[1][:11], lines[2:]) == ("  First.", "⚙ 1 weather", ["  and so on"])


def test_a_thought_is_one_dimmed_line_and_an_item() -> None:
    console = Console(
        file=io.StringIO(), width=40, color_system="standard", force_terminal=True, force_interactive=False
    )
    view = ChatView(console, make_console())
    listen(view, TextDelta("Is it \n", thought=True), TextDelta("8? " * 9, thought=True), TextDelta("\nIt is 8."))
    shown = output(console)
    assert "\x1b[2m  ∴ 1 Is it 8? 8? 8? 8? 8? 8? 8? 8? 8?\x1b[0m" in shown
    assert "It is 8." in re.sub(r"\x1b\[2m[^\x1b]*\x1b\[0m", "", shown)
    assert view.show_item(1)
    assert "8? 8? 8?" in output(console).partition("It is 8.")[2]
    assert not view.show_item(2)
    assert not view.show_item(0)


def test_a_pipe_gets_the_text_as_it_is() -> None:
    console, notes = make_console(20, terminal=False), make_console()
    view = ChatView(console, notes)
    listen(
        view,
        TextDelta("Hm.", thought=True),
        TextDelta("\n\n# A"),
        TextDelta(" \n"),
        TextDelta("\n* b" * 9),
        TextDelta(" \n"),
    )
    assert output(console) == "# A \n\n* b" + "\n* b" * 8 + "\n"
    view.echo("not shown")
    view.exchange(exchange(), 0.012)
    view.answered([step("x")], 1.0)
    assert output(console).count("\n") == 11
    assert output(notes) == '⚙ 1 weather 北京 · 200 · 12 ms · {"y": 2}\n'


def test_an_unreadable_call_without_text_shows_what_was_wrong() -> None:
    console = make_console()
    console.print(call_panel(exchange(parse_error="arguments are not JSON", status=None, error=True)))
    assert "│ arguments are not JSON " in output(console)


def test_a_question_of_several_lines_is_echoed_as_text() -> None:
    console = make_console()
    ChatView(console, make_console()).echo("[bold]hi[/bold] \x1b[31m\nthere")
    assert output(console) == "› [bold]hi[/bold] ␛[31m\n  there\n"


def test_status_line() -> None:
    assert status_line([step("x")], 0.01) == "10 tokens · 0.0 s"
    assert status_line([step("x", exchange()), step("y")], 4.0) == "1 call · 20 tokens · 4.0 s · 5.0 tokens/s"
    assert status_line([step("x", exchange(), exchange())], 2.0).startswith("2 calls")
    assert status_line([replace(step("x"), tokens=0)], 2.0) == "2.0 s", "an endpoint that does not count"


def test_a_paragraph_that_grows_stands_where_it_will_be() -> None:
    live, out = LiveArea(), io.StringIO()
    live.out = lambda text: print(text, end="", file=out)
    console = Console(file=cast(TextIO, live), force_terminal=True, color_system=None, width=40)
    view = ChatView(console, console, live=live)
    with view.listening() as add:
        add(0, TextDelta("One.\n\nTwo"))
        view.doing("")
        grown = out.getvalue() + live.draw(40, 10)
    assert grown == "  One.\n\n  Two\n"
    assert out.getvalue() == grown


def test_notes_go_to_the_other_console() -> None:
    console, notes = make_console(), make_console()
    view = ChatView(console, notes)
    view.welcome("[red]m", ["weather", "search"])
    view.note("careful")
    assert output(console) == ""
    assert output(notes) == ("agentft chat · [red]m\nweather, search · /help for commands, Ctrl-D to leave\ncareful\n")
