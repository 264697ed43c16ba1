"""The growing text above the input line, when the terminal is slower than the model."""

from __future__ import annotations

from collections.abc import Callable

from agentft.display.live import LiveArea


def test_a_finished_text_takes_away_only_itself() -> None:
    live = LiveArea()
    posted: list[Callable[[], None]] = []
    written: list[str] = []
    live.post, live.out = posted.append, written.append
    live.grow("It is")
    live.replace_growing()
    live.write("It is 100.\n")
    live.flush()
    assert live.draw(80, 5) == "It is\n"
    live.grow("That was")
    posted.pop()()
    assert (written, live.draw(80, 5)) == (["It is 100.\n"], "That was\n")
    live.replace_growing()
    live.write("That was all.\n")
    live.flush()
    posted.pop()()
    assert (written[1:], live.draw(80, 5)) == (["That was all.\n"], "")
