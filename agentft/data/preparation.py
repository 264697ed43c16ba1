"""Rows of data files -> samples to train on, with an account of every row: rows = trained + rejected, always."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from agentft.data.packing import Sample, make_sample
from agentft.data.quarantine import Quarantine, Rejection, open_quarantine
from agentft.data.rows import Row, read_rows
from agentft.encoding import LearnRule, Tokenizer, encode
from agentft.errors import FrameError, InputError, RowError
from agentft.formats import CallFormat
from agentft.formats.frame import Frame
from agentft.formats.render import render_samples
from agentft.parsers import parse_row
from agentft.types import Encoded, Segment

__all__ = ["DataReport", "Encoder", "Prepared", "prepare"]

_LONGEST = 5
_MOST_TOOLS = 64


@dataclass(frozen=True, slots=True)
class Encoder:
    """How a conversation becomes tokens with weights. `max_length`: tokens of the longest sample."""

    tokenizer: Tokenizer
    format: CallFormat
    frame: Frame
    learn: LearnRule
    max_length: int


@dataclass(frozen=True, slots=True)
class DataReport:
    """What became of the rows, and what is learnt from them.

    `tokens`: of all samples, each cut after its last supervised token. `quiet`: turns that answer a user without a
    call; `quiet_learnt`: whether the rule learns from them. `trimmed`: samples whose last turns, or all, were left out
    to fit `max_length`, with `left_out` supervised tokens. `longest`: (row, id, tokens) of the longest samples.
    `first`: place and detail of the first rejection of each reason. `tools`: names of all tools that the rows declare;
    none if they are more than 64, which is no set that a user would be offered at once.
    """

    rows: int
    trained: int
    reasons: dict[str, int]
    first: dict[str, str]
    samples: int
    tokens: int
    supervised: int
    weight: float
    quiet: int
    quiet_learnt: bool
    trimmed: int
    left_out: int
    longest: tuple[tuple[int, str, int], ...]
    fingerprint: str
    tools: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """Rows that are not trained on."""
        return sum(self.reasons.values())


@dataclass(frozen=True, slots=True)
class Prepared:
    """The samples, and the report about them."""

    samples: list[Sample]
    report: DataReport


@dataclass(slots=True)
class _Count:
    rows: int = 0
    trained: int = 0
    quiet: int = 0
    trimmed: int = 0
    left_out: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    samples: list[Sample] = field(default_factory=list)
    tools: dict[str, None] = field(default_factory=dict)


def prepare(paths: Sequence[Path], encoder: Encoder, quarantine: Path | None = None) -> Prepared:
    """Read, render and encode all rows of `paths`.

    Args:
        paths: data files, read in order.
        encoder: see `Encoder`.
        quarantine: a folder for the rejected rows, one file for each data file that has some.

    Raises:
        InputError: a file that cannot be read, or no row that can be trained on.
    """
    count = _Count()
    for number, path in enumerate(paths):
        kept = quarantine / f"{number}-{path.name.split('.')[0]}.jsonl" if quarantine else None
        before = count.reasons.total()
        with open_quarantine(path, kept) as stream:
            for item in read_rows(path):
                _take(item, path, encoder, count, stream)
        if kept and count.reasons.total() == before:
            kept.unlink()
    report = _report(count, encoder)
    if not count.samples:
        reason, where = next(iter(report.first.items()))
        raise InputError(f"none of the {report.rows} rows can be trained on; the first: {where} ({reason})")
    return Prepared(count.samples, report)


def _take(item: Row | Rejection, path: Path, encoder: Encoder, count: _Count, quarantine: Quarantine | None) -> None:
    """Make one row's samples, or reject it."""
    count.rows += 1
    if isinstance(item, Row):
        try:
            made = list(_samples(item, path, encoder, count))
        except RowError as error:
            item = Rejection(item.line, error.reason, error.detail, error.turn, error.offset, item.raw)
        else:
            count.samples += made
            count.trained += 1
            return
    count.reasons[item.reason] += 1
    count.first.setdefault(item.reason, f"{item.place(path)}: {item.detail}")
    if quarantine:
        quarantine.write(item)


def _samples(row: Row, path: Path, encoder: Encoder, count: _Count) -> Iterator[Sample]:
    """Raises RowError if nothing of the row can be learnt."""
    conversation = parse_row(row.value, f"{path.name}:{row.line}")
    try:
        rendered = render_samples(conversation, encoder.format, encoder.frame)
    except FrameError as error:
        raise RowError("template", str(error)) from None
    count.tools |= dict.fromkeys(tool.name for tool in conversation.tools)
    count.quiet += sum(_quiet_turns(segments) for segments in rendered)
    long, empty, lost = 0, 0, 0
    for segments in rendered:
        encoded = encode(segments, encoder.tokenizer, encoder.learn)
        fitting = _fit(encoded, segments, encoder.max_length)
        sample = make_sample(row.line, conversation.id, fitting, _stem(encoded, segments))
        if sample:
            left_out = _supervised(encoded) - _supervised(fitting)
            count.trimmed += left_out > 0
            count.left_out += left_out
            yield sample
        elif _supervised(encoded):
            long += 1
            lost += _supervised(encoded)
        else:
            empty += 1
    if long + empty == len(rendered):
        raise _nothing_left(conversation.id, long > 0, encoder)
    count.trimmed += long
    count.left_out += lost


def _nothing_left(name: str, long: bool, encoder: Encoder) -> RowError:
    if long:
        detail = f"{name}: the first supervised turn ends after max_length = {encoder.max_length} tokens; raise it"
        return RowError("too-long", detail)
    return RowError("nothing-learnt", f"{name}: learn = {encoder.learn.name!r} gives no token of this row a weight")


def _supervised(encoded: Encoded) -> int:
    return sum(weight > 0 for weight in encoded.loss_weights)


def _fit(encoded: Encoded, segments: Sequence[Segment], limit: int) -> Encoded:
    """Cut after the last run of the model's that fits whole; a run is never cut, so no supervised call is."""
    end = 0
    for start, stop in _sampled_runs(encoded, segments):
        last = max((place + 1 for place in range(start, stop) if encoded.loss_weights[place] > 0), default=0)
        if last > limit:
            break
        end = max(end, last)
    return Encoded(encoded.input_ids[:end], encoded.loss_weights[:end], encoded.segments[:end])


def _sampled_runs(encoded: Encoded, segments: Sequence[Segment]) -> Iterator[tuple[int, int]]:
    """Ranges of tokens that the model says without anything given in between."""
    start = None
    for place, segment in enumerate(encoded.segments):
        if segments[segment].sampled and start is None:
            start = place
        elif not segments[segment].sampled and start is not None:
            yield start, place
            start = None
    if start is not None:
        yield start, len(encoded.segments)


def _stem(encoded: Encoded, segments: Sequence[Segment]) -> int:
    """How many leading tokens are system text and tools (what the frame puts before them included)."""
    first = next((place for place, segment in enumerate(segments) if segment.kind == "system"), None)
    if first is None:
        return 0
    return next((place for place, segment in enumerate(encoded.segments) if segment > first), len(encoded.segments))


def _quiet_turns(segments: Sequence[Segment]) -> int:
    """Runs that answer a user, not a result, without a call."""
    quiet = 0
    given = ""
    for segment in segments:
        if segment.kind in ("user", "result"):
            given = segment.kind
        elif segment.sampled and segment.kind == "answer" and given == "user":
            quiet += 1
            given = ""
    return quiet


def _report(count: _Count, encoder: Encoder) -> DataReport:
    digest = hashlib.sha256()
    for sample in count.samples:
        for values in (sample.tokens, sample.places, sample.weights):
            digest.update(len(values).to_bytes(8, "little") + values.tobytes())
    longest = sorted(count.samples, key=lambda sample: -len(sample.tokens))[:_LONGEST]
    return DataReport(
        rows=count.rows,
        trained=count.trained,
        reasons=dict(count.reasons.most_common()),
        first=count.first,
        samples=len(count.samples),
        tokens=sum(len(sample.tokens) for sample in count.samples),
        supervised=sum(len(sample.places) for sample in count.samples),
        weight=sum(sum(sample.weights) for sample in count.samples),
        quiet=count.quiet,
        quiet_learnt=encoder.learn.weights.get("answer", 0) > 0,
        trimmed=count.trimmed,
        left_out=count.left_out,
        longest=tuple((sample.row, sample.id, len(sample.tokens)) for sample in longest),
        fingerprint=digest.hexdigest(),
        tools=tuple(count.tools) if len(count.tools) <= _MOST_TOOLS else (),
    )
