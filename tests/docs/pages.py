"""The pages of the documentation, and their content: links, anchors, code blocks and commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["PAGES", "ROOT", "Block", "anchors", "blocks", "commands", "links"]

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(path for folder in ("docs", "datasets", "tools", "evals") for path in (ROOT / folder).rglob("*.md")),
    ]
)
_FENCE = re.compile(r"^(?:<!-- ([a-z]+: \S+) -->\n)?(`{3,})(\w*)\n(.*?)^\2$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block. `mark` is the comment on the line before it, such as `file: library/tools.py`."""

    mark: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    found = _FENCE.finditer(page.read_text(encoding="utf-8"))
    return [Block(match[1] or "", match[3], match[4]) for match in found]


def links(page: Path) -> list[str]:
    """Targets of links and pictures outside code."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", prose))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as on GitHub."""
    headings = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands(page: Path, mark: str = "") -> Iterator[list[str]]:
    """The arguments of each `agentft` command in the console and sh blocks; with a mark, of those blocks only."""
    for block in blocks(page):
        if block.language not in {"console", "sh"} or (mark and block.mark != mark):
            continue
        for line in block.text.splitlines():
            text = line.removeprefix("$ ")
            if block.language == "console" and text == line:
                continue  # output
            for part in re.split(r" \| ", text):
                words = shlex.split(part, comments=True)
                while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                    del words[0]
                if words and words[0].rpartition("/")[2] == "agentft":
                    yield words[1 : words.index(">") if ">" in words else None]
