"""The requests of data files, and how alike two texts are: the Jaccard index of words, word pairs and trigrams."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agentft.rows.ledger import Ledger
from agentft.rows.reading import read_conversations
from agentft.types import Conversation, Text, ToolCall

__all__ = ["LikeTexts", "TrainedRequest", "likeness", "plain_words", "read_requests"]

_WORD = re.compile(r"[\u3400-\u9fff\u3040-\u30ff]|[^\W_\u3400-\u9fff\u3040-\u30ff]+")
_COMMON = 0.02  # a gram that a larger share of the texts holds (and more than _FEW texts) finds no candidates
_FEW = 200
_CANDIDATES = 50


@dataclass(frozen=True, slots=True)
class TrainedRequest:
    """A user turn of a training row: `place` is `file:line`, `said` all user turns up to it, `calls` those made next.

    `tools`: the names of the tools that the row declares.
    """

    place: str
    said: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    tools: frozenset[str]


def read_requests(paths: Sequence[Path]) -> list[TrainedRequest]:
    """Every user turn of the kept rows of data files, with the readable calls that follow it.

    Raises:
        InputError: a file cannot be read.
    """
    found: list[TrainedRequest] = []
    for path in paths:
        for line, conversation in read_conversations(path, Ledger()):
            found += _requests(f"{path}:{line}", conversation)
    return found


def _requests(place: str, conversation: Conversation) -> Iterator[TrainedRequest]:
    tools = frozenset(tool.name for tool in conversation.tools)
    said: list[str] = []
    calls: list[ToolCall] = []
    for turn in conversation.turns:
        if turn.role == "user":
            if said:
                yield TrainedRequest(place, tuple(said), tuple(calls), tools)
            calls = []
            said.append("".join(part.text for part in turn.parts if isinstance(part, Text)))
        calls += [part for part in turn.parts if isinstance(part, ToolCall) and part.parse_error is None]
    if said:
        yield TrainedRequest(place, tuple(said), tuple(calls), tools)


def plain_words(text: str) -> tuple[str, ...]:
    """The words of a text in lower case, without punctuation; each Chinese or Japanese character is a word."""
    return tuple(_WORD.findall(text.casefold()))


def likeness(first: str, second: str) -> float:
    """How alike two texts are, from 0 to 1; 1: they have the same words in the same order."""
    return _jaccard(_grams(first), _grams(second))


class LikeTexts:
    """Finds the texts that are most like another one."""

    def __init__(self, texts: Sequence[str]) -> None:
        self._grams = [_grams(text) for text in texts]
        self._holding: dict[str, list[int]] = {}
        for index, grams in enumerate(self._grams):
            for gram in grams:
                self._holding.setdefault(gram, []).append(index)
        self._most = max(_FEW, _COMMON * len(texts))

    def nearest(self, text: str, count: int = 1) -> list[tuple[float, int]]:
        """The likeness and index of the `count` texts that are most like `text`, the nearest first."""
        mine = _grams(text)
        lists = [held for gram in mine if (held := self._holding.get(gram))]
        rare = [held for held in lists if len(held) <= self._most] or lists
        shared = Counter(itertools.chain.from_iterable(rare))
        scored = ((_jaccard(mine, self._grams[index]), -index) for index, _ in shared.most_common(_CANDIDATES))
        return [(score, -index) for score, index in sorted(scored, reverse=True)[:count]]


def _grams(text: str) -> frozenset[str]:
    words = plain_words(text)
    pairs = (" ".join(pair) for pair in itertools.pairwise(("^", *words, "$")))
    line = " ".join(words)
    return frozenset([*words, *pairs, *(f"{line[at : at + 3]}*" for at in range(len(line) - 2))])


def _jaccard(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)  # a text without words has the pair `^ $`
