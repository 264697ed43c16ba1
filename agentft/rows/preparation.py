"""Rows of data files -> samples to train on, with an account of every row: rows = trained + rejected, always."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

from agentft.calls import CallFormat
from agentft.engine.packing import Sample, make_sample
from agentft.errors import FrameError, InputError, RowError
from agentft.records import parse_row
from agentft.rendering.encoding import LearnRule, Tokenizer, encode
from agentft.rendering.frame import Frame
from agentft.rendering.render import render_samples
from agentft.rows.quarantine import Keep, Rejection, open_quarantine
from agentft.rows.reading import Row, read_rows
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


@dataclass(slots=True)
class DataReport:
    """What became of the rows, and what is learnt from them.

    `tokens`: of all samples, each cut after its last supervised token. `quiet`: turns that answer a user without a
    call; `quiet_learnt`: whether the rule learns from them. `trimmed`: samples whose last turns, or all, were left out
    to fit `max_length`, with `left_out` supervised tokens. `longest`: (row, id, tokens) of the longest samples.
    `first`: place and detail of the first rejection of each reason. `tools`: names of all tools that the rows declare;
    none if they are more than 64, which is no set that a user would be offered at once.
    """

    rows: int = 0
    trained: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    first: dict[str, str] = field(default_factory=dict)
    samples: int = 0
    tokens: int = 0
    supervised: int = 0
    weight: float = 0.0
    quiet: int = 0
    quiet_learnt: bool = False
    trimmed: int = 0
    left_out: int = 0
    longest: tuple[tuple[int, str, int], ...] = ()
    fingerprint: str = ""
    tools: tuple[str, ...] = ()

    @property
    def rejected(self) -> int:
        """Rows that are not trained on."""
        return sum(self.reasons.values())


@dataclass(slots=True)
class Prepared:
    """The samples, and the report about them. `tools`: the names of all tools, in the order in which they came."""

    samples: list[Sample] = field(default_factory=list)
    report: DataReport = field(default_factory=DataReport)
    tools: dict[str, None] = field(default_factory=dict)


def prepare(paths: Sequence[Path], encoder: Encoder, quarantine: Path | None = None) -> Prepared:
    """Read, render and encode all rows of the files `paths`, in order.

    `quarantine`: a folder for the rejected rows, one file for each data file that has some.

    Raises:
        InputError: a file that cannot be read, or no row that can be trained on.
    """
    made = Prepared(report=DataReport(quiet_learnt=encoder.learn.weights.get("answer", 0) > 0))
    for number, path in enumerate(paths):
        kept = quarantine / f"{number}-{path.name.split('.')[0]}.jsonl" if quarantine else None
        before = made.report.rejected
        with open_quarantine(path, kept) as keep:
            for item in read_rows(path):
                _take(item, path, encoder, made, keep)
        if kept and made.report.rejected == before:
            kept.unlink()
    if not made.samples:
        reason, where = next(iter(made.report.first.items()))
        raise InputError(f"none of the {made.report.rows} rows can be trained on; the first: {where} ({reason})")
    _sum_up(made)
    return made


def _take(item: Row | Rejection, path: Path, encoder: Encoder, made: Prepared, keep: Keep) -> None:
    """Make one row's samples, or reject it."""
    report = made.report
    report.rows += 1
    if isinstance(item, Row):
        try:
            made.samples += _samples(item, path, encoder, made)
        except RowError as error:
            item = item.rejected(error)
        else:
            report.trained += 1
            return
    report.reasons[item.reason] = report.reasons.get(item.reason, 0) + 1
    report.first.setdefault(item.reason, f"{item.place(path)}: {item.detail}")
    keep(item)


def _samples(row: Row, path: Path, encoder: Encoder, made: Prepared) -> list[Sample]:
    """Raises RowError if nothing of the row can be learnt."""
    conversation = parse_row(row.value, f"{path.name}:{row.line}")
    try:
        rendered = render_samples(conversation, encoder.format, encoder.frame)
    except FrameError as error:
        raise RowError("template", str(error)) from None
    made.tools |= dict.fromkeys(tool.name for tool in conversation.tools)
    made.report.quiet += sum(_quiet_turns(segments) for segments in rendered)
    samples: list[Sample] = []
    lost: list[int] = []  # supervised tokens of each sample that do not fit
    for segments in rendered:
        encoded = encode(segments, encoder.tokenizer, encoder.learn)
        fitting = _fit(encoded, segments, encoder.max_length)
        sample = make_sample(row.line, conversation.id, fitting, _stem(encoded, segments))
        samples += [sample] if sample else []
        lost.append(_supervised(encoded) - (_supervised(fitting) if sample else 0))
    if not samples and any(lost):
        detail = f"the first supervised turn ends after max_length = {encoder.max_length} tokens; raise it"
        raise RowError("too-long", f"{conversation.id}: {detail}")
    if not samples:
        detail = f"learn = {encoder.learn.name!r} gives no token of this row a weight"
        raise RowError("nothing-learnt", f"{conversation.id}: {detail}")
    made.report.trimmed += sum(map(bool, lost))
    made.report.left_out += sum(lost)
    return samples


def _supervised(encoded: Encoded) -> int:
    return sum(weight > 0 for weight in encoded.loss_weights)


def _fit(encoded: Encoded, segments: Sequence[Segment], limit: int) -> Encoded:
    """Cut after the last run of the model's that fits whole; a run is never cut, so no supervised call is."""
    end = 0
    for _, run in groupby(range(len(encoded.segments)), lambda place: segments[encoded.segments[place]].sampled):
        last = max((place + 1 for place in run if encoded.loss_weights[place] > 0), default=0)
        if last > limit:
            break
        end = max(end, last)
    return Encoded(encoded.input_ids[:end], encoded.loss_weights[:end], encoded.segments[:end])


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


def _sum_up(made: Prepared) -> None:
    """The part of the report that needs all samples."""
    report, samples = made.report, made.samples
    digest = hashlib.sha256()
    for sample in samples:
        for values in (sample.tokens, sample.places, sample.weights):
            digest.update(len(values).to_bytes(8, "little") + values.tobytes())
    report.reasons = dict(Counter(report.reasons).most_common())
    report.samples = len(samples)
    report.tokens = sum(len(sample.tokens) for sample in samples)
    report.supervised = sum(len(sample.places) for sample in samples)
    report.weight = sum(sum(sample.weights) for sample in samples)
    longest = sorted(samples, key=lambda sample: -len(sample.tokens))[:_LONGEST]
    report.longest = tuple((sample.row, sample.id, len(sample.tokens)) for sample in longest)
    report.fingerprint = digest.hexdigest()
    report.tools = tuple(made.tools) if len(made.tools) <= _MOST_TOOLS else ()
