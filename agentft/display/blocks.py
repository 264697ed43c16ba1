"""Markdown that grows: finished blocks are rendered once, and only the growing one is drawn again."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.segment import Segment

from agentft.display.safe import safe_str

if TYPE_CHECKING:
    from rich.markdown import Markdown

__all__ = ["Blocks", "Trimmed", "markdown"]

_FENCE = re.compile(r"\s{0,3}(`{3,}|~{3,})")


class Blocks:
    """Splits a growing text into blocks at blank lines; a fence of code and what is indented stay in one block."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._partial = ""
        self._gap = False  # a blank line follows the lines
        self._fence = ""

    def feed(self, text: str) -> list[str]:
        """Add text; returns the blocks that it finishes."""
        *lines, self._partial = (self._partial + text).split("\n")
        done = [block for line in lines if (block := self._take(line))]
        if self._gap and self._partial[:1].strip():
            done.append(self._cut())
        return done

    @property
    def growing(self) -> str:
        """The block that is not finished."""
        return "\n".join([*self._lines, *([""] if self._gap else []), self._partial]).strip("\n")

    def close(self) -> str:
        """The last block; empty if there is none."""
        rest = self.growing.rstrip()
        self._lines, self._partial, self._gap, self._fence = [], "", False, ""
        return rest

    def _take(self, line: str) -> str:
        if not self._fence and not line.strip():
            self._gap = bool(self._lines)
            return ""
        done = self._cut() if self._gap and not line[:1].isspace() and not self._fence else ""
        self._lines += [""] if self._gap else []
        self._gap = False
        self._lines.append(line)
        found = _FENCE.match(line)
        if not self._fence:
            self._fence = found[1] if found else ""
        elif line.strip().startswith(self._fence) and not line.strip().strip(self._fence[0]):
            self._fence = ""
        return done

    def _cut(self) -> str:
        block, self._lines, self._gap = "\n".join(self._lines), [], False
        return block


@dataclass(frozen=True, slots=True)
class Trimmed:
    """What is drawn without empty lines at its ends and without spaces at the ends of its lines, and with a margin."""

    drawn: RenderableType
    margin: str
    width: int

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        width = max(1, min(self.width, options.max_width) - 2 * len(self.margin))
        lines = console.render_lines(self.drawn, options.update(width=width), pad=False)
        while lines and not _text(lines[-1]).strip():
            lines.pop()
        start = next((index for index, line in enumerate(lines) if _text(line).strip()), 0)
        for line in lines[start:]:
            while line and not line[-1].text.strip():
                line.pop()
            if line:
                *kept, last = line
                yield Segment(self.margin)
                yield from kept
                yield Segment(last.text.rstrip(), last.style, last.control)
            yield Segment.line()


def _text(line: list[Segment]) -> str:
    return "".join(segment.text for segment in line)


def markdown(text: str) -> Markdown:
    """Text from a model as Markdown in which nothing is lost: HTML is text, links show their address, lines stay."""
    from markdown_it import MarkdownIt  # 0.1 s of imports, while the person types
    from markdown_it.token import Token
    from rich.markdown import Markdown

    parser = MarkdownIt("commonmark", {"html": False}).enable(["strikethrough", "table"]).disable(["image", "entity"])
    rendered = Markdown(safe_str(text), code_theme="ansi_dark", hyperlinks=False)
    rendered.parsed = parser.parse(safe_str(text))
    for index, token in enumerate(rendered.parsed):
        for child in token.children or ():
            if child.type == "softbreak":
                child.type = "hardbreak"
        if token.tag in {"h1", "h2", "h3", "h4", "h5", "h6"}:  # rich centres them
            token.type, token.tag = token.type.replace("heading", "paragraph"), "p"
            inline = rendered.parsed[index + 1] if token.nesting == 1 else None
            if inline is not None:
                strong = Token("strong_open", "strong", 1), Token("strong_close", "strong", -1)
                inline.children = [strong[0], *(inline.children or ()), strong[1]]
    return rendered
