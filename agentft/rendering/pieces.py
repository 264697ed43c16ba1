"""Texts -> tokens, by way of a cache: the pieces that the tokenizer itself separates are tokenised once.

A byte-level BPE tokenizer splits a text into words before it looks for tokens, and it always splits before a single
space between two words. So the tokens of a text are those of its pieces `What`, ` is`, ` the`, joined. Where this does
not hold for a tokenizer (SentencePiece, for example), a text is one piece. Many also split between letters, digits,
marks and line breaks. So the tokens of a new piece, ` "Rome"}}`, are those of its parts ` "`, `Rome` and `"}}`.
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import permutations, product
from typing import Any, NamedTuple

from agentft.errors import FrameError, is_panic

__all__ = ["Piece", "PieceCache", "join_pieces", "make_piece", "separates_runs", "separates_words"]

_KEPT_PIECES = 2**16
_KEPT_TEXTS = 512
_LONG = 200  # characters of a text that is kept whole
_SHORT = 64  # characters of a piece that is kept
_LARGE, _SLICE, _MOST = 20_000, 10_000, 1.1  # characters of a text that may have so many tokens for each of its bytes
# Characters that are white space nowhere, in no library's definition.
_EDGE = r"[!-~\w]"
_SEAM = re.compile(rf"(?<={_EDGE})(?= {_EDGE})")
_PROBES = ("'s", "n't", "<|", *"aB7_.,'\"{}(-/éЖ漢한²")
# Runs of letters, digits, marks and line breaks. Apostrophes and all that is not ASCII belong to none.
_RUN = re.compile(r" ?[A-Za-z]+| ?[0-9]+| ?[!-&(-/:-@[-`{-~]+|\n(?!\s)")
_RUNS = ("a The", "7 2024", '_ . " < | > { } ( ) [ ] - / \\ : # @ $ & * + = % ~ ^ ` ! ? ; , <| "}}')
_CLASSES = [*map(str.split, _RUNS), ["\n"]]


class Piece(NamedTuple):
    """Tokens of a text of `length` characters, and where each token begins and ends, in characters."""

    ids: array[int]
    starts: Sequence[int]
    stops: Sequence[int]
    length: int


class PieceCache(dict[str, Piece]):
    """A tokenizer of the tokenizers library that remembers short pieces (as its items) and the last long texts."""

    def __init__(self, backend: Any) -> None:
        super().__init__()
        self.backend = backend
        self.words = separates_words(backend)
        self.runs = _RUN if self.words and separates_runs(backend) else None
        if self.runs and len(backend.pre_tokenizer.pre_tokenize_str("77")) == 2:
            self.runs = re.compile(_RUN.pattern.replace("[0-9]+", "[0-9]"))
        self._texts: dict[str, list[Piece]] = {}
        self._bytes = getattr(backend.model, "byte_fallback", False)

    def encode(self, text: str) -> list[Piece]:
        """The pieces of a text. Equal long texts (system text and tools) share a list of one piece.

        Raises:
            FrameError: the tokenizer fails, or makes so many tokens of a long text that they can fill the memory.
        """
        if len(text) < _LONG:
            return self._encode(text)
        pieces = self._texts.pop(text, None)
        if pieces is None:
            pieces = self._encode(text)
        elif len(pieces) > 1:  # found again, and perhaps in many rows
            pieces = [join_pieces(pieces)]
        if len(pieces) > 1 or len(pieces[0].ids) <= 4 * len(text):
            self._texts[text] = pieces  # as the last one
        if len(self._texts) > _KEPT_TEXTS:
            del self._texts[next(iter(self._texts))]
        return pieces

    def _encode(self, text: str) -> list[Piece]:
        if not self.words:
            return [self._tokenise(text)] if text else []
        return list(map(self.__getitem__, _SEAM.split(text) if text else []))

    def __missing__(self, text: str) -> Piece:
        runs = self.runs.findall(text) if self.runs else []
        known = len(runs) > 1 and "".join(runs) == text
        piece = join_pieces(list(map(self.__getitem__, runs))) if known else self._tokenise(text)
        if len(self) >= _KEPT_PIECES:
            self.clear()
        if len(text) <= _SHORT:
            self[text] = piece
        return piece

    def _tokenise(self, text: str) -> Piece:
        try:
            if len(text) > _LARGE and (made := self._most_tokens(text)) > _MOST * len(text.encode()):
                raise FrameError(f"the tokenizer makes up to {made:,} tokens of a text of {len(text):,} characters")
            encoding = self.backend.encode(text, add_special_tokens=False)
        except BaseException as error:
            if isinstance(error, FrameError) or not (isinstance(error, Exception) or is_panic(error)):
                raise
            raise FrameError(f"the tokenizer fails on the text {text[:40]!r} ({error!s:.200})") from None
        if self.words and len(ids := encoding.ids) == 1:
            return Piece(array("i", ids), (0,), (len(text),), len(text))
        return make_piece(encoding.ids, encoding.offsets, len(text))

    def _most_tokens(self, text: str) -> int:
        """The number of tokens if each has one character or, where these stand for bytes, one byte."""
        normalizer, steps = self.backend.normalizer, self.backend.pre_tokenizer
        made = 0
        for start in range(0, len(text), _SLICE):
            part = text[start : start + _SLICE]
            part = normalizer.normalize_str(part) if normalizer else part
            part = "".join(piece for piece, _ in steps.pre_tokenize_str(part)) if steps else part
            made += len(part.replace("▁", " ").encode() if self._bytes else part)
        return made


def make_piece(ids: Sequence[int], offsets: Sequence[tuple[int, int]], length: int) -> Piece:
    """The piece of a text of `length` characters."""
    starts, stops = zip(*offsets, strict=True) if offsets else ((), ())
    return Piece(array("i", ids), starts, stops, length)


def join_pieces(pieces: Sequence[Piece]) -> Piece:
    """The piece of the pieces' texts, one after the other."""
    ids = array("i")
    starts: list[int] = []
    stops: list[int] = []
    begin = 0
    for its, first, last, length in pieces:
        ids += its
        if len(its) == 1:  # as in most pieces
            starts.append(begin + first[0])
            stops.append(begin + last[0])
        else:
            starts += [begin + place for place in first]
            stops += [begin + place for place in last]
        begin += length
    return Piece(ids, array("i", starts), array("i", stops), begin)


def separates_words(backend: Any) -> bool:
    """Whether the tokenizer always splits a text before a single space between two words.

    Its regular expressions are probed with every pair of some characters of every class around the space.
    """
    steps, model = backend.pre_tokenizer, backend.model
    plain = backend.normalizer is None or json.loads(backend.normalizer.__getstate__())["type"] == "NFC"
    if not plain or steps is None or b'"ByteLevel"' not in steps.__getstate__():
        return False
    if type(model).__name__ != "BPE" or model.dropout:
        return False
    added = [token for token in backend.get_added_tokens_decoder().values() if not token.special]
    if any(token.lstrip or token.rstrip or " " in token.content for token in added):
        return False

    pairs = ((f"a {left}", f" {right}b") for left, right in product(_PROBES, _PROBES))
    return _splits_between(pairs, steps)


def separates_runs(backend: Any) -> bool:
    """Whether a tokenizer that separates words also separates runs of letters, digits, marks and line breaks."""
    added = backend.get_added_tokens_decoder().values()
    if any(token.single_word or not (token.special or _RUN.fullmatch(token.content)) for token in added):
        return False
    pairs = (pair for one, two in permutations(_CLASSES, 2) for pair in product(one, two))
    spaced = ((one, space + two) for one, two in pairs for space in ("", " ") if "\n" not in (one, two) or not space)
    return _splits_between(spaced, backend.pre_tokenizer)


def _splits_between(pairs: Iterable[tuple[str, str]], steps: Any) -> bool:
    @cache
    def split(text: str) -> list[str]:
        return [piece for piece, _ in steps.pre_tokenize_str(text)]

    return all(split(left + right) == split(left) + split(right) for left, right in pairs)
