"""The lines above the input line that change while the model works, and the writer of the lines above them."""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from threading import Lock

from rich.console import RenderableType

from agentft.display.terminal import SafeConsole, write_drawn

__all__ = ["MARGIN", "LiveArea"]

MARGIN = "  "
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
Post = Callable[[Callable[[], None]], None]


class LiveArea:
    """A file that writes above the input line, and the text that is drawn between the two.

    `post` runs a function when the input line is out of the way; without it, functions run at once.
    """

    def __init__(self) -> None:
        self.post: Post = lambda work: work()
        self.out: Callable[[str], None] = write_drawn
        self.changed: Callable[[], None] = lambda: None
        self._lock = Lock()
        self._buffer = ""
        self._growing: RenderableType | None = None
        self._doing = self._way_out = ""
        self._since = 0.0
        self._replaces = False

    def write(self, text: str) -> int:
        """Add to what the next `flush` writes."""
        self._buffer += text
        return len(text)

    def flush(self) -> None:
        """Write the whole lines above the input line."""
        lines, mark, self._buffer = self._buffer.rpartition("\n")
        if not mark:
            return
        replaced, self._replaces = self._growing if self._replaces else None, False

        def show() -> None:
            with self._lock:
                if self._growing is replaced:  # and not what has begun to grow since
                    self._growing = None
            self.out(lines + mark)

        self.post(show)

    def isatty(self) -> bool:
        """It is one."""
        return True

    def replace_growing(self) -> None:
        """What is written next takes the place of the growing text."""
        self._replaces = True

    def grow(self, renderable: RenderableType | None) -> None:
        """Draw this above the input line until it is replaced."""
        with self._lock:
            self._growing = renderable
        self.changed()

    def do(self, doing: str, way_out: str = "Esc stops") -> None:
        """Show a spinner with what is happening, and how to stop it; "" removes it."""
        if doing and not self._doing:
            self._since = time.monotonic()
        self._doing, self._way_out = doing, way_out
        self.changed()

    def draw(self, width: int, height: int) -> str:
        """The growing text and the spinner as ANSI text: the last `height` lines, each with its newline."""
        file = io.StringIO()
        shown = SafeConsole(file=file, width=width, force_terminal=True, markup=False, highlight=False)
        with self._lock:
            if self._growing is not None:
                shown.print(self._growing)
        if self._doing:
            seconds = time.monotonic() - self._since
            frame = SPINNER[int(seconds * 8) % len(SPINNER)]
            rest = f"{f' · {seconds:.0f} s' if seconds >= 1 else ''} · {self._way_out}"
            shown.print(f"{frame} {self._doing}{rest}", style="dim", no_wrap=True, overflow="ellipsis")
        return "".join(file.getvalue().splitlines(keepends=True)[-height:])
