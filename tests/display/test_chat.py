"""The exact output of the terminal agent, at a fixed width."""

from __future__ import annotations

import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console

from agentft.calls.hermes import HERMES
from agentft.calls.msagent import MSAGENT
from agentft.display.chat import LINES_SHOWN, ChatView, Stream, call_panel, status_line
from agentft.models import CallDone, CallStarted, Delta, TextDelta
from agentft.types import Exchange, Json, ParseFailure, Span, Step, Text, ToolCall

CALL = '<|startofthink|>```JSON\n{"api_name": "f", "parameters": {"x": 1}}\n```<|endofthink|>'


def make_console(width: int = 60) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None, highlight=False, legacy_windows=False)


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


def stream(text: str, width: int, sizes: list[int]) -> str:
    """The output for a text that grows by pieces of these sizes."""
    console, at = make_console(width), 0
    writer = Stream(console)
    for size in sizes:
        at += size
        writer.show(text[:at])
    writer.show(text)
    writer.end()
    return output(console)


def test_a_stream_breaks_lines_between_words() -> None:
    assert stream("one two three four five six", 24, []) == "  one two three four\n  five six\n"
    assert stream("a\n\n  b", 40, []) == "  a\n\n    b\n"


def test_a_stream_breaks_chinese_anywhere_and_long_words_at_the_margin() -> None:
    assert stream("北京今天天气很好适合出去散步", 24, []) == "  北京今天天气很好适合\n  出去散步\n"
    assert stream("x" * 45, 24, []) == f"  {'x' * 20}\n  {'x' * 20}\n  {'x' * 5}\n"


@given(st.text(max_size=200), st.lists(st.integers(1, 9), max_size=30), st.integers(24, 60))
def test_a_stream_shows_every_character_whatever_the_pieces(text: str, sizes: list[int], width: int) -> None:
    shown = stream(text, width, sizes)
    assert shown == stream(text, width, [])
    assert shown.count("\x1b") == 0
    assert all(cell_len(line) <= width for line in shown.split("\n"))


def step(text: str, *exchanges: Exchange) -> Step:
    return Step(0, MSAGENT.parse(text), text, "stop", exchanges, tokens=10)


def listen(view: ChatView, *deltas: Delta) -> None:
    with view.listening() as on_delta:
        assert on_delta is not None
        for delta in deltas:
            on_delta(0, delta)


def test_streamed_text_is_not_shown_again_by_the_step() -> None:
    console = make_console()
    view = ChatView(console, make_console())
    made = exchange()
    listen(view, TextDelta("Let me "), TextDelta("look. "), CallStarted("weather"), CallDone(made.call))
    view.step(step(f"Let me look. {CALL}", made))
    assert output(console).startswith("  Let me look.\n╭─ ⚙ weather")
    assert output(console).count("Let me look.") == 1


def test_without_streaming_the_step_shows_the_text() -> None:
    console = make_console()
    view = ChatView(console, make_console(), streaming=False)
    with view.listening() as on_delta:
        assert on_delta is None
    view.step(step("\n\nThe answer is 4.\n"))
    assert output(console) == "  The answer is 4.\n"


@pytest.mark.parametrize("streaming", [True, False])
def test_text_after_a_call_follows_its_panel(streaming: bool) -> None:
    console = make_console()
    view = ChatView(console, make_console(), streaming=streaming)
    text = 'First. <tool_call>\n{"name": "weather", "arguments": {}}\n</tool_call> and so on'
    made = exchange()
    if streaming:
        listen(view, TextDelta("First. "), CallStarted(), CallDone(made.call), TextDelta(" and so on"))
    view.step(Step(0, HERMES.parse(text), text, "end", (made,)))
    assert output(console).startswith("  First.\n╭")
    assert output(console).endswith("╯\n  and so on\n")
    assert output(console).count("and so on") == 1


@pytest.mark.parametrize("streaming", [True, False])
def test_thoughts_are_dimmed(streaming: bool) -> None:
    console = Console(file=io.StringIO(), width=60, color_system="standard", force_terminal=True, legacy_windows=False)
    view = ChatView(console, make_console(), streaming=streaming)
    if streaming:
        listen(view, TextDelta("Is it \n", thought=True), TextDelta("8?\n", thought=True), TextDelta("\nIt is 8."))
    else:
        parts = (Text("Is it \n8?\n", Span(0, 0), thought=True), Text("\nIt is 8.", Span(0, 0)))
        view.step(Step(0, parts, None, "end", ()))
    shown = output(console)
    for word in ("Is", " it", "8?"):
        assert re.search(rf"\x1b\[2m[^\x1b]*{re.escape(word)}", shown), f"{word!r} is not dimmed"
    assert "It is 8." in re.sub(r"\x1b\[2m[^\x1b]*\x1b\[0m", "", shown).replace("\n", "")


def test_a_result_that_the_model_made_up_is_shown() -> None:
    text = "x <|startofexec|>{}<|endofexec|> y"
    console = make_console()
    ChatView(console, make_console(), streaming=False).step(step(text))
    assert output(console) == f"  {text}\n"


def test_an_unreadable_call_without_text_shows_what_was_wrong() -> None:
    console = make_console()
    made = exchange(parse_error="arguments are not JSON", status=None, error=True)
    ChatView(console, make_console()).step(Step(0, (made.call,), None, "stop", (made,)))
    assert "│ arguments are not JSON " in output(console)


def test_status_line() -> None:
    assert status_line([step("x")], 0.01) == "10 tokens · 0.0 s"
    assert status_line([step("x", exchange()), step("y")], 4.0) == "1 call · 20 tokens · 4.0 s · 5.0 tokens/s"
    assert status_line([step("x", exchange(), exchange())], 2.0).startswith("2 calls")


def test_notes_go_to_the_other_console() -> None:
    console, notes = make_console(), make_console()
    view = ChatView(console, notes)
    view.welcome("[red]m", "msagent", ["weather", "search"])
    view.note("careful")
    assert output(console) == ""
    assert output(notes) == (
        "agentft chat · [red]m · msagent\nweather, search  ·  /help for commands, Ctrl-D to leave\ncareful\n"
    )
