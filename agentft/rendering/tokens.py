"""Segments -> tokens. Control tokens come from the frame only, and a seam inside a text adds no space.

Contents (what users, tools and the model itself say) are tokenised by a copy of the tokenizer without control tokens.
Nor does it put a space before a text, as many SentencePiece tokenizers do, except at the start of a row.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import groupby
from typing import Any, Protocol, TypedDict

from agentft.rendering.controls import control_tokens
from agentft.types import Segment

__all__ = ["Run", "Tokenizer", "Tokens", "controls_in", "tokenise"]

Run = tuple[list[int], list[int], list[tuple[int, int]]]
"""Indices of neighbouring segments that are all sampled or all injected, their tokens, and the tokens' offsets."""

_Pieces = tuple[list[int], list[tuple[int, int]]]
"""Tokens and their offsets."""

_LONG = 200  # characters of a text whose tokens are kept
_KEPT = 512  # texts
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
        ...


@dataclass(frozen=True)
class _Control:
    """A control token. `lstrip`, `rstrip`: it swallows the whitespace before or after it."""

    id: int
    lstrip: bool
    rstrip: bool


@dataclass(frozen=True)
class _Parts:
    """Variants of a tokenizer. `plain` and `first` do not know control tokens; `first` is for the start of a row.

    `known`: the tokens of the last long texts, for rows that share a system text or tools.
    """

    controls: dict[str, _Control]
    pattern: re.Pattern[str]
    plain: Any
    first: Any
    known: OrderedDict[str, _Pieces] = field(default_factory=OrderedDict)


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
        yield from zip(runs, tokens["input_ids"], tokens["offset_mapping"], strict=True)
        return
    cuts: list[list[tuple[int, int, int]]] = []
    swallowed = 0  # leading whitespace that the last token of the run before swallowed
    for run, text in zip(runs, texts, strict=True):
        found = list(_find_controls(segments, run, text, parts))
        cuts.append([(-1, 0, swallowed), *found])
        ends_run = bool(found) and found[-1][2] == len(text) and segments[run[0]].sampled
        after = texts[len(cuts)] if len(cuts) < len(texts) else ""
        strips = ends_run and any(c.id == found[-1][0] and c.rstrip for c in parts.controls.values())
        swallowed = len(after) - len(after.lstrip()) if strips else 0
    yield from _join(runs, texts, cuts, parts)


def controls_in(text: str, tokenizer: Any) -> set[str]:
    """The control tokens whose text occurs in `text`."""
    parts = _split_tokenizer(tokenizer)
    return set(parts.pattern.findall(text)) if parts else set()


def _find_controls(
    segments: Sequence[Segment], run: list[int], text: str, parts: _Parts
) -> Iterator[tuple[int, int, int]]:
    """(id, start, end) of the frame's control tokens in the run, with the whitespace that they swallow."""
    start = 0
    for index in run:
        segment = segments[index]
        if segment.kind in _FRAMED or (segment.kind == "unreadable" and segment.text.strip() in parts.controls):
            for match in parts.pattern.finditer(segment.text):
                control = parts.controls[match[0]]
                left, right = text[: start + match.start()], text[start + match.end() :]
                before = len(left) - len(left.rstrip()) if control.lstrip else 0
                after = len(right) - len(right.lstrip()) if control.rstrip else 0
                yield control.id, len(left) - before, len(text) - len(right) + after
        start += len(segment.text)


def _join(
    runs: list[list[int]], texts: list[str], cuts: list[list[tuple[int, int, int]]], parts: _Parts
) -> Iterator[Run]:
    """Tokenise the texts between the control tokens in one batch, and put everything together."""
    chunks: list[str] = []
    for text, found in zip(texts, cuts, strict=True):
        stops = [start for _, start, _ in found[1:]] + [len(text)]
        chunks += [text[end:stop] for (_, _, end), stop in zip(found, stops, strict=True)]
    encodings = iter(_encode(chunks, parts))
    for number, (run, found) in enumerate(zip(runs, cuts, strict=True)):
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        for place, (control, start, end) in enumerate(found):
            if place:
                ids.append(control)
                offsets.append((start, end))
            pieces, places = next(encodings)
            if number == place == 0 and parts.first is not parts.plain and chunks[0]:
                encoding = parts.first.encode(chunks[0], add_special_tokens=False)
                pieces, places = encoding.ids, encoding.offsets
            ids += pieces
            offsets += [(first + end, last + end) for first, last in places] if end else places
        yield run, ids, offsets


def _encode(chunks: list[str], parts: _Parts) -> list[_Pieces]:
    """The tokens of each text. Equal long texts (system and tools) are tokenised once."""
    unknown = dict.fromkeys(chunk for chunk in chunks if chunk not in parts.known)
    encodings = parts.plain.encode_batch(list(unknown), add_special_tokens=False)
    found = {chunk: (one.ids, one.offsets) for chunk, one in zip(unknown, encodings, strict=True)}
    pieces = [found.get(chunk) or parts.known[chunk] for chunk in chunks]
    for chunk, one in zip(chunks, pieces, strict=True):
        if len(chunk) >= _LONG:
            parts.known[chunk] = one
            parts.known.move_to_end(chunk)
    while len(parts.known) > _KEPT:
        parts.known.popitem(last=False)
    return pieces


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
    return _Parts(controls, pattern, first if same else _without_controls(backend, controls, steps), first)


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
    if any(copy.token_to_id(token.content) != identity for identity, token in added):
        whole = {**json.loads(backend.to_str()), **steps, **dict.fromkeys(_AFTER)}
        for token in whole["added_tokens"]:
            token["special"] = token["content"] in controls
        copy = Backend.from_str(json.dumps(whole))
    copy.encode_special_tokens = True
    return copy
