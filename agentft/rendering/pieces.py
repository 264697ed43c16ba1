"""Texts -> tokens, by way of a cache: the pieces that the tokenizer itself separates are tokenised once.

A byte-level BPE tokenizer splits a text into words before it looks for tokens, and it always splits before a single
space between two words. So the tokens of a text are those of its pieces `What`, ` is`, ` the`, joined. Where this does
not hold for a tokenizer (SentencePiece, for example), a text is one piece.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate, chain, product
from operator import itemgetter
from typing import Any, NamedTuple

__all__ = ["Chunk", "Piece", "PieceCache", "make_piece", "separates_quotes", "separates_words"]

_KEPT_PIECES = 2**16
_KEPT_TEXTS = 512
_LONG = 200  # characters of a text that is kept whole
_SHORT = 64  # characters of a piece that is kept
# Characters that are white space nowhere, in no library's definition.
_EDGE = r"[!-~\w]"
_SEAM = re.compile(rf"(?<={_EDGE})(?= {_EDGE})")
_QUOTE = re.compile('(?<=[A-Za-z])(?=")')  # another seam, for JSON without spaces
_STARTS = re.compile(rf" {_EDGE}|[^ ]")
_ENDS = re.compile(rf"{_EDGE}\Z")
_PROBES = ("'s", "n't", "<|", *"aB7_.,'\"{}(-/éЖ漢한²")


class Piece(NamedTuple):
    """Tokens of a text of `length` characters, and where each token begins and ends, in characters."""

    ids: Sequence[int]
    starts: Sequence[int]
    stops: Sequence[int]
    length: int


@dataclass(slots=True)
class Chunk:
    """The tokens of a text, joined from pieces."""

    pieces: list[Piece]
    ids: list[int]
    _bounds: list[int] = field(default_factory=list)  # where each piece begins, in characters
    _counts: list[int] = field(default_factory=list)  # the number of tokens before each piece

    @classmethod
    def of(cls, pieces: list[Piece]) -> Chunk:
        """Join pieces."""
        return cls(pieces, list(chain.from_iterable(map(itemgetter(0), pieces))))

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where each token begins and ends, in characters."""
        pieces = zip(self._index(), self.pieces, strict=True)
        return [(at + a, at + b) for at, piece in pieces for a, b in zip(piece.starts, piece.stops, strict=True)]

    def begun(self, place: int) -> int:
        """The number of tokens that begin before the character `place`."""
        if self.pieces and place <= self.pieces[0].length:  # as most are, and without an index
            return bisect_left(self.pieces[0].starts, place)
        index = bisect_left(self._index(), place) - 1
        if index < 0:
            return 0
        return self._counts[index] + bisect_left(self.pieces[index].starts, place - self._bounds[index])

    def ended(self, place: int) -> int:
        """The number of tokens that end at the character `place` or before it."""
        index = bisect_right(self._index(), place) - 1
        if index < 0:
            return 0
        return self._counts[index] + bisect_right(self.pieces[index].stops, place - self._bounds[index])

    def _index(self) -> list[int]:
        if not self._bounds and self.pieces:
            lengths, counts = map(itemgetter(3), self.pieces[:-1]), (len(piece.ids) for piece in self.pieces[:-1])
            self._bounds, self._counts = list(accumulate(lengths, initial=0)), list(accumulate(counts, initial=0))
        return self._bounds


class PieceCache:
    """A tokenizer of the tokenizers library that remembers short pieces and the last long texts."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.words = separates_words(backend)
        self.quotes = self.words and separates_quotes(backend)
        self._texts: OrderedDict[str, Chunk] = OrderedDict()
        self._pieces: dict[str, Piece] = {}
        self._ends: dict[str, Piece] = {}  # pieces that can only end a text

    def encode(self, text: str) -> Chunk:
        """The tokens of a text. Equal long texts (system text and tools) share a chunk."""
        if len(text) < _LONG:
            return self._encode(text)
        chunk = self._texts.get(text)
        if chunk is None:
            chunk = self._texts[text] = self._encode(text)
            if len(self._texts) > _KEPT_TEXTS:
                self._texts.popitem(last=False)
        else:
            self._texts.move_to_end(text)
        return chunk

    def _encode(self, text: str) -> Chunk:
        if not self.words or "\0" in text:
            return Chunk.of(self._tokenise([text] if text else []))
        *body, last = text.replace(" ", "\0 ").split("\0")
        try:
            pieces = list(map(self._pieces.__getitem__, body))
            pieces.append(self._pieces.get(last) or self._ends[last])
        except KeyError:
            pieces = self._look_up(_SEAM.split(text) if text else [])
        return Chunk.of(pieces)

    def _look_up(self, texts: list[str]) -> list[Piece]:
        """The pieces, from the cache or from the tokenizer."""
        pieces: list[Piece] = []
        for text in texts:
            piece = self._pieces.get(text) or self._ends.get(text)
            if piece is None and self.quotes and len(text) > _SHORT and len(parts := _QUOTE.split(text)) > 1:
                pieces += self._look_up(parts)
                continue
            if piece is None:
                (piece,) = self._tokenise([text])
                if len(text) <= _SHORT and _STARTS.match(text):
                    (self._pieces if _ENDS.search(text) else self._ends)[text] = piece
            pieces.append(piece)
        if len(self._pieces) + len(self._ends) > _KEPT_PIECES:
            self._pieces.clear()
            self._ends.clear()
        return pieces

    def _tokenise(self, texts: list[str]) -> list[Piece]:
        encodings = [self.backend.encode(text, add_special_tokens=False) for text in texts]
        return [make_piece(one.ids, one.offsets, len(text)) for one, text in zip(encodings, texts, strict=True)]


def make_piece(ids: Sequence[int], offsets: Sequence[tuple[int, int]], length: int) -> Piece:
    """The piece of a text of `length` characters."""
    spans = [span for _, span in zip(ids, offsets, strict=True)]
    starts, stops = zip(*spans, strict=True) if spans else ((), ())
    return Piece(tuple(ids), starts, stops, length)


def separates_words(backend: Any) -> bool:
    """Whether the tokenizer always splits a text before a single space between two words.

    Its regular expressions are probed with every pair of some characters of every class around the space.
    """
    steps = backend.pre_tokenizer
    plain = backend.normalizer is None or json.loads(backend.normalizer.__getstate__())["type"] == "NFC"
    model = backend.model
    if not plain or steps is None or type(model).__name__ != "BPE" or model.dropout:
        return False
    if b'"ByteLevel"' not in steps.__getstate__():
        return False
    for token in backend.get_added_tokens_decoder().values():
        if not token.special and (token.lstrip or token.rstrip or " " in token.content):
            return False

    return _splits_between(backend, ((f"a {left}", f" {right}b") for left, right in product(_PROBES, _PROBES)))


def separates_quotes(backend: Any) -> bool:
    """Whether a tokenizer that separates words always splits a text between an ASCII letter and a quotation mark too.

    It is probed in the same way.
    """
    if any('"' in token.content for token in backend.get_added_tokens_decoder().values() if not token.special):
        return False
    ends = [f"{left}{letter}" for left, letter in product(("", " ", *_PROBES), "azAZ")]
    return _splits_between(backend, product(ends, ('"', *(f'"{right}b' for right in (" ", "\n", *_PROBES)))))


def _splits_between(backend: Any, pairs: Iterable[tuple[str, str]]) -> bool:
    def split(text: str) -> list[str]:
        return [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(text)]

    return all(split(left + right) == split(left) + split(right) for left, right in pairs)
