"""Segments -> tokens. Control tokens come from the frame only, and a seam inside a text adds no space.

Contents (what users, tools and the model itself say) are tokenised by a copy of the tokenizer without control tokens.
Nor does it put a space before a text, as many SentencePiece tokenizers do, except at the start of a row.
"""

from __future__ import annotations

import json
import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, groupby
from operator import itemgetter
from typing import Any, Protocol, TypedDict

from agentft.errors import FrameError
from agentft.rendering.controls import control_tokens
from agentft.rendering.pieces import Piece, PieceCache, join_pieces, make_piece
from agentft.types import Segment

__all__ = ["Run", "Tokenizer", "Tokens", "controls_in", "tokenise"]

_AFTER = ("truncation", "padding", "post_processor")
_FRAMED = frozenset({"frame", "terminator", "end"})


class Tokens(TypedDict):
    """What a fast tokenizer returns for a list of texts."""

    input_ids: list[list[int]]
    offset_mapping: list[list[tuple[int, int]]]


class Tokenizer(Protocol):
    """The part of a fast transformers tokenizer that encoding needs."""

    def __call__(self, text: list[str], *, add_special_tokens: bool, return_offsets_mapping: bool) -> Tokens:
        """Tokenise each text on its own."""


class Run:
    """The tokens of neighbouring segments that are all sampled or all injected.

    `segments`: their indices. `pieces`: their text's pieces, one after the other.
    """

    def __init__(self, segments: list[int], pieces: Sequence[Piece]) -> None:
        self.segments = segments
        self.ids = array("i", b"".join(map(itemgetter(0), pieces)))
        self._pieces = pieces or [Piece(self.ids, (), (), 0)]

    @property
    def offsets(self) -> list[tuple[int, int]]:
        """Where each token begins and ends, in characters."""
        whole = join_pieces(self._pieces)
        return list(zip(whole.starts, whole.stops, strict=True))

    def cuts(self, places: Iterable[int]) -> Iterator[tuple[int, int]]:
        """For each of these characters, how many tokens end at it or before it, and how many begin before it."""
        pieces = self._pieces
        begins = list(accumulate(map(itemgetter(3), pieces[:-1]), initial=0))
        counts = list(accumulate(map(len, map(itemgetter(0), pieces)), initial=0))
        for place in places:
            after = bisect_right(begins, place) - 1
            before = max(bisect_left(begins, place) - 1, 0)
            ended = counts[after] + bisect_right(pieces[after].stops, place - begins[after])
            yield ended, counts[before] + bisect_left(pieces[before].starts, place - begins[before])


@dataclass(frozen=True)
class _Control:
    """A control token. `lstrip`, `rstrip`: it swallows the whitespace before or after it."""

    id: int
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class _Parts:
    """Variants of a tokenizer. `plain` and `first` do not know control tokens; `first` is for the start of a row."""

    controls: dict[str, _Control]
    pattern: re.Pattern[str]
    plain: PieceCache
    first: PieceCache


def tokenise(segments: Sequence[Segment], tokenizer: Tokenizer) -> Iterator[Run]:
    """Tokenise each run of segments that are all sampled or all injected on its own, since serving does so."""
    groups = groupby(range(len(segments)), key=lambda index: segments[index].sampled)
    runs = [list(group) for _, group in groups]
    texts = ["".join(segments[index].text for index in run) for run in runs]
    if not texts:
        return
    parts = _split_tokenizer(tokenizer)
    if parts is None:
        tokens = tokenizer(texts, add_special_tokens=False, return_offsets_mapping=True)
        columns = zip(runs, texts, tokens["input_ids"], tokens["offset_mapping"], strict=True)
        for indices, text, ids, offsets in columns:
            spans = [span for _, span in zip(ids, offsets, strict=True)]
            yield Run(indices, [make_piece(ids, spans, len(text))])
        return
    swallowed = 0  # leading whitespace that the last token of the run before swallowed
    for number, (indices, text) in enumerate(zip(runs, texts, strict=True)):
        pieces, end = [Piece(array("i"), (), (), swallowed)] if swallowed else [], swallowed
        controls = list(_find_controls(segments, indices, text, parts))
        for control, start, stop in controls:
            if end < start:
                pieces += (parts.plain if number or end else parts.first).encode(text[end:start])
            pieces.append(Piece(array("i", (control.id,)), (0,), (stop - start,), stop - start))
            end = stop
        pieces += (parts.plain if number or end else parts.first).encode(text[end:])
        yield Run(indices, pieces)
        after = texts[number + 1] if number + 1 < len(texts) else ""
        strips = bool(controls) and end == len(text) and segments[indices[0]].sampled and controls[-1][0].rstrip
        swallowed = len(after) - len(after.lstrip()) if strips else 0


def controls_in(text: str, tokenizer: Any) -> set[str]:
    """The control tokens whose text occurs in `text`."""
    parts = _split_tokenizer(tokenizer)
    return set(parts.pattern.findall(text)) if parts else set()


def _find_controls(
    segments: Sequence[Segment], run: list[int], text: str, parts: _Parts
) -> Iterator[tuple[_Control, int, int]]:
    """(token, start, end) of the frame's control tokens in the run, with the whitespace that they swallow."""
    start = 0
    for index in run:
        segment = segments[index]
        alone = segment.kind == "unreadable" and segment.text.strip() in parts.controls
        if alone or segment.markup or segment.kind in _FRAMED:
            for match in parts.pattern.finditer(segment.text):
                control = parts.controls[match[0]]
                first, last = start + match.start(), start + match.end()
                before = first - len(text[:first].rstrip()) if control.lstrip else 0
                after = len(text) - last - len(text[last:].lstrip()) if control.rstrip else 0
                yield control, first - before, last + after
        start += len(segment.text)


def _split_tokenizer(tokenizer: Any) -> _Parts | None:
    """None for a tokenizer without a backend of the tokenizers library, which then tokenises each run itself."""
    return _parts(tokenizer, len(tokenizer)) if hasattr(tokenizer, "backend_tokenizer") else None


@lru_cache(maxsize=4)
def _parts(tokenizer: Any, size: int) -> _Parts:
    del size  # tokens that are added later make another entry
    backend = tokenizer.backend_tokenizer
    known = set(control_tokens(tokenizer))
    controls = {
        token.content: _Control(identity, token.lstrip, token.rstrip)
        for identity, token in backend.get_added_tokens_decoder().items()
        if token.content in known
    }
    longest_first = sorted(controls, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
    first = _without_controls(backend, controls, _read_steps(backend))
    steps = _without_prefixes(_read_steps(backend))
    same = steps == _read_steps(backend)
    opening = PieceCache(first)
    return _Parts(
        controls, pattern, opening if same else PieceCache(_without_controls(backend, controls, steps)), opening
    )


def _read_steps(backend: Any) -> dict[str, Any]:
    """The steps before the model, as JSON."""
    steps = {"normalizer": backend.normalizer, "pre_tokenizer": backend.pre_tokenizer}
    return {name: None if step is None else json.loads(step.__getstate__()) for name, step in steps.items()}


def _without_prefixes(step: Any) -> Any:
    """The steps without those that put a space before a text."""
    if isinstance(step, list):
        return [_without_prefixes(item) for item in step if not (isinstance(item, dict) and item["type"] == "Prepend")]
    if not isinstance(step, dict) or step.get("type") == "Prepend":
        return None if isinstance(step, dict) else step
    changed = {key: _without_prefixes(value) for key, value in step.items()}
    if step.get("type") == "Metaspace":
        changed |= {"prepend_scheme": "never"}
    if step.get("type") == "ByteLevel":
        changed |= {"add_prefix_space": False}
    return changed


def _without_controls(backend: Any, controls: dict[str, _Control], steps: dict[str, Any]) -> Any:
    """A tokenizer of the same model that reads the text of a control token as text."""
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    empty = {"type": "BPE", "vocab": {}, "merges": []}
    rest: dict[str, Any] = {"version": "1.0", "added_tokens": [], **dict.fromkeys(_AFTER)}
    copy = Backend.from_str(json.dumps({**rest, **steps, "decoder": None, "model": empty}))
    copy.model = backend.model  # shared, so that a large vocabulary is not copied
    added = sorted(backend.get_added_tokens_decoder().items())
    for special, group in groupby(added, key=lambda item: item[1].content in controls):
        tokens = [
            AddedToken(
                token.content,
                single_word=token.single_word,
                lstrip=token.lstrip,
                rstrip=token.rstrip,
                normalized=token.normalized,
            )
            for _, token in group
        ]
        (copy.add_special_tokens if special else copy.add_tokens)(tokens)
    for identity, token in added:
        if copy.token_to_id(token.content) != identity:
            raise FrameError(
                f"the token {token.content!r} has the id {identity}, but the tokenizers library gives it another "
                "when the tokenizer is built; save it again with save_pretrained"
            )
    copy.encode_special_tokens = True
    return copy
