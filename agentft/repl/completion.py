"""What Tab completes in a chat: commands, and after them tools with their arguments, settings, and files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter
from prompt_toolkit.document import Document

from agentft.repl.commands import COMMANDS, WORDS
from agentft.types import ToolDefinition

if TYPE_CHECKING:
    from agentft.repl.loop import Repl

__all__ = ["ChatCompleter", "example"]


class ChatCompleter(Completer):
    """Completes the line of a chat; only a line that begins with `/`."""

    def __init__(self, repl: Repl) -> None:
        self._repl = repl
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        """See prompt_toolkit."""
        text = document.text_before_cursor
        name, space, rest = text.partition(" ")
        if not text.startswith("/"):
            return
        if not space:
            yield from _matching(name, COMMANDS)
            return
        usage = COMMANDS[name].usage if name in COMMANDS else ""
        tools = [tool for toolset in self._repl.toolsets for tool in toolset.definitions]
        if "FILE" in usage:
            yield from self._paths.get_completions(Document(rest), complete_event)
        elif "NAME" in usage:
            *before, word = rest.split(" ")
            if "{" not in rest and (not before or before[-1] in {"on", "off"}):
                yield from _matching(word, [tool.name for tool in tools])
            elif found := next((tool for tool in tools if before and tool.name == before[0]), None):
                yield from _matching(word, [example(found)])
        elif name in WORDS:
            yield from _matching(rest, WORDS[name](self._repl))


def _matching(word: str, options: Iterable[str]) -> Iterator[Completion]:
    return (Completion(option, -len(word)) for option in options if option.startswith(word))


def example(tool: ToolDefinition) -> str:
    """A call's required arguments, to be filled in."""
    return json.dumps(dict.fromkeys(cast(list[str], tool.parameters.get("required", [])), ""))
