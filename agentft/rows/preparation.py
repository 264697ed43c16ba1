"""Rows of data files -> training samples. Every row is counted as kept or rejected."""

from __future__ import annotations

import gc
import hashlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

from agentft.calls import NATIVE
from agentft.engine.packing import Sample, make_sample
from agentft.errors import FrameError, InputError, RowError
from agentft.rendering import Rendering
from agentft.rendering.encoding import LearnRule, encode
from agentft.rendering.render import count_thoughts
from agentft.rendering.tokens import Tokenizer, controls_in
from agentft.rows.ledger import UNASKED, UNSUPERVISED, Ledger, Rejection
from agentft.rows.parallel import available_processes, map_in_order
from agentft.rows.quarantine import open_quarantine
from agentft.rows.reading import Row, Undecoded, iter_undecoded, keep_rows
from agentft.rows.sources import Raw
from agentft.types import Conversation, Encoded, Json, Segment

__all__ = ["DataReport", "EncodedSample", "Encoder", "OnRow", "Prepared", "encode_row", "prepare"]

OnRow: TypeAlias = Callable[[int, Conversation], None]
"""Called with the line and the conversation of a kept row."""


def _ignore(_line: int, _conversation: Conversation) -> None:
    pass


_BATCH_ROWS, _BATCH_BYTES = 16, 2**20
_ALONE, _ALONE_IF_LARGE, _LARGE = 8, 0, 2**20
"""Batches that are prepared before other processes help: for a small file, starting them takes longer. A large one is
known by its bytes (compressed ones, too)."""
_SUMS = ("quiet", "answered", "thoughts", "trimmed", "left_out")
_LONGEST_SHOWN = 5
_MAX_TOOLS = 64


@dataclass(frozen=True, slots=True)
class Encoder:
    """How conversations are rendered, tokenised and weighted. `max_length`: maximum tokens per sample."""

    tokenizer: Tokenizer
    rendering: Rendering
    learn: LearnRule
    max_length: int


@dataclass(slots=True)
class DataReport:
    """Counts over the rows and their samples.

    Attributes:
        tokens: tokens of all samples, each cut after its last supervised token.
        supervised: tokens with a weight above 0.
        weight: sum of the loss weights.
        quiet: turns that answer the user without a call.
        answered: turns that answer after a tool's result.
        quiet_learnt: whether these two kinds of turns are supervised.
        thoughts: thoughts of the assistant.
        thoughts_learnt: whether they are supervised; if not, they are left out of the samples.
        trimmed: samples that lost their last turns (or all) to fit `max_length`.
        left_out: supervised tokens lost by trimming.
        longest: (line, id, tokens) of the longest samples.
        held_out: rows that are kept for the held-out loss and not trained on; the other figures leave them out.
        fingerprint: SHA-256 of the samples' tokens, supervised positions and weights.
        control_texts: control tokens whose text occurs in turns (it is tokenised as plain text): the number of rows.
        tools: names of all declared tools; empty if there are more than 64, too many to offer to a model at once.
    """

    ledger: Ledger = field(default_factory=Ledger)
    samples: int = 0
    tokens: int = 0
    supervised: int = 0
    weight: float = 0.0
    quiet: int = 0
    quiet_learnt: bool = False
    answered: int = 0
    thoughts: int = 0
    thoughts_learnt: bool = False
    trimmed: int = 0
    left_out: int = 0
    held_out: int = 0
    longest: tuple[tuple[int, str, int], ...] = ()
    fingerprint: str = ""
    tools: tuple[str, ...] = ()
    control_texts: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Json]:
        """The content of data.json."""
        rows = self.ledger
        trained = rows.kept - rows.remarks[UNSUPERVISED] - self.held_out
        counts: dict[str, Json] = {"rows": rows.rows, "trained": trained, "rejected": rows.rejected}
        counts["reasons"] = dict(rows.reasons.most_common())
        counts["first"] = dict(rows.first_places())
        counts |= rows.document()
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "ledger"}
        return {**counts, **own}


@dataclass(frozen=True, slots=True)
class EncodedSample:
    """A sample before and after it is cut. `sample`: None if none of it is left. `lost`: supervised tokens cut off."""

    segments: tuple[Segment, ...]
    encoded: Encoded
    sample: Sample | None
    lost: int


@dataclass(slots=True)
class Prepared:
    """The samples and a report about them. `tools`: names of all declared tools, in order of appearance."""

    encoder: Encoder
    samples: list[Sample] = field(default_factory=list)
    report: DataReport = field(default_factory=DataReport)
    tools: dict[str, None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.report.quiet_learnt = self.encoder.learn.weights.get("answer", 0) > 0
        self.report.thoughts_learnt = self.encoder.learn.thinking

    def add(self, path: Path, quarantine: Path | None = None, on_row: OnRow = _ignore) -> None:
        """Read, render and encode the rows of a file.

        Args:
            path: a data file.
            quarantine: where to write rejected rows.
            on_row: called with the line and the conversation of each kept row.

        Raises:
            InputError: the file cannot be read.
        """
        batches = _batches(iter_undecoded(path))
        work = partial(_prepare_batch, self.encoder, path, on_row is not _ignore)
        alone = _ALONE_IF_LARGE if path.is_file() and path.stat().st_size >= _LARGE else _ALONE
        made = map_in_order(work, batches, available_processes(), alone)
        with open_quarantine(path, quarantine) as on_reject, _rare_collections(), closing(made):
            for batch in made:
                for rejection in batch.rejections:
                    on_reject(rejection)
                for line, conversation in batch.conversations:
                    on_row(line, conversation)
                self._merge(batch)

    def _merge(self, batch: _Batch) -> None:
        report = self.report
        self.samples += batch.samples
        self.tools |= batch.tools
        report.ledger.merge(batch.report.ledger)
        report.control_texts.update(batch.report.control_texts)
        for name in _SUMS:
            setattr(report, name, getattr(report, name) + getattr(batch.report, name))

    def complete(self) -> None:
        """Fill in the part of the report that needs all samples."""
        report, samples = self.report, self.samples
        digest = hashlib.sha256()
        for sample in samples:
            for values in (sample.tokens, sample.places, sample.weights):
                digest.update(len(values).to_bytes(8, "little") + values.tobytes())
        report.samples = len(samples)
        report.tokens = sum(len(sample.tokens) for sample in samples)
        report.supervised = sum(len(sample.places) for sample in samples)
        report.weight = sum(sum(sample.weights) for sample in samples)
        longest = sorted(samples, key=lambda sample: -len(sample.tokens))[:_LONGEST_SHOWN]
        report.longest = tuple((sample.row, sample.id, len(sample.tokens)) for sample in longest)
        report.fingerprint = digest.hexdigest()
        report.tools = tuple(self.tools) if len(self.tools) <= _MAX_TOOLS else ()


@dataclass(slots=True)
class _Batch:
    """What some of a file's rows add to `Prepared`. Processes send it to each other."""

    samples: list[Sample] = field(default_factory=list)
    report: DataReport = field(default_factory=DataReport)
    tools: dict[str, None] = field(default_factory=dict)
    rejections: list[Rejection] = field(default_factory=list)
    conversations: list[tuple[int, Conversation]] = field(default_factory=list)

    def convert(self, encoder: Encoder, path: Path, row: Row, conversation: Conversation) -> Conversation:
        """Encode a row and count what is in it."""
        report = self.report
        found = encode_row(row.line, conversation, encoder)
        report.quiet += sum(_answers_to("user", one.segments) for one in found)
        report.answered += sum(_answers_to("result", one.segments) for one in found)
        place = f"{path}:{row.line}"
        if encoder.rendering.name == NATIVE and conversation.turns[0].role == "assistant":
            report.ledger.remark(UNASKED, place)
        if not any(one.sample for one in found):
            report.ledger.remark(UNSUPERVISED, place)
            return conversation
        texts = "\n".join(turn.raw for turn in conversation.turns)
        report.control_texts.update(controls_in(texts, encoder.tokenizer))
        report.thoughts += count_thoughts(conversation)
        self.tools |= dict.fromkeys(tool.name for tool in conversation.tools)
        report.trimmed += sum(one.lost > 0 for one in found)
        report.left_out += sum(one.lost for one in found)
        self.samples += [one.sample for one in found if one.sample]
        return conversation


def _prepare_batch(encoder: Encoder, path: Path, with_conversations: bool, items: list[Undecoded]) -> _Batch:
    batch = _Batch()
    convert = partial(batch.convert, encoder, path)
    for kept in keep_rows(path, convert, batch.report.ledger, batch.rejections.append, items=items):
        if with_conversations:
            batch.conversations.append(kept)
    return batch


def _batches(items: Iterable[Undecoded]) -> Iterator[list[Undecoded]]:
    batch: list[Undecoded] = []
    size = 0
    for item in items:
        batch.append(item)
        size += len((item.data if isinstance(item, Raw) else item.raw) or b"")
        if len(batch) == _BATCH_ROWS or size > _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def prepare(paths: Sequence[Path], encoder: Encoder, quarantine: Path | None = None) -> Prepared:
    """Read, render and encode all rows of the files `paths`, in order.

    `quarantine`: a folder for rejected rows; each data file with rejected rows gets a file there.

    Raises:
        InputError: a file cannot be read, or no row is kept.
    """
    made = Prepared(encoder)
    ledger = made.report.ledger
    for number, path in enumerate(paths):
        rejected_rows = quarantine / f"{number}-{path.name.split('.')[0]}.jsonl" if quarantine else None
        before = ledger.rejected
        made.add(path, rejected_rows)
        if rejected_rows and ledger.rejected == before:
            rejected_rows.unlink()
    if not made.samples:
        first = [f"{place} ({reason})" for reason, place in ledger.first_places().items()]
        if place := ledger.first_remarks.get(UNSUPERVISED):
            first.append(f"{place}: learn = {encoder.learn.name!r} supervises no token of this row")
        if ledger.rejected:
            first.append("`agentft data inspect` says what to do")
        raise InputError(f"no row can be used for training (of {ledger.rows}); the first: {'; '.join(first)}")
    made.complete()
    return made


def encode_row(line: int, conversation: Conversation, encoder: Encoder) -> list[EncodedSample]:
    """A row's conversation as tokens, cut to `max_length`. Without a supervised token, its samples are None.

    Raises:
        RowError: `template`: the chat template or the tokenizer fails on it; `too-long`: no supervised turn fits.
    """
    try:
        rendered = encoder.rendering.samples(conversation)
        samples = [(segments, encode(segments, encoder.tokenizer, encoder.learn)) for segments in rendered]
    except FrameError as error:
        raise RowError("template", str(error)) from None
    found = []
    for segments, encoded in samples:
        fitting = _fit(encoded, segments, encoder.max_length)
        sample = make_sample(line, conversation.id, fitting, _stem(encoded, segments))
        whole = sample is not None and fitting is encoded
        lost = 0 if whole else _supervised(encoded) - (_supervised(fitting) if sample else 0)
        found.append(EncodedSample(segments, encoded, sample, lost))
    if any(one.lost for one in found) and not any(one.sample for one in found):
        raise RowError("too-long", f"the first supervised turn is over {encoder.max_length} tokens; raise max_length")
    return found


@contextmanager
def _rare_collections() -> Iterator[None]:
    """While the block runs, cycles are looked for a hundred times less often.

    Each search visits all objects of the model libraries, and rows make many objects but no cycles.
    """
    usual = gc.get_threshold()
    gc.set_threshold(usual[0] * 100, *usual[1:])
    try:
        yield
    finally:
        gc.set_threshold(*usual)


def _supervised(encoded: Encoded) -> int:
    return len(encoded.loss_weights) - encoded.loss_weights.count(0.0)


def _fit(encoded: Encoded, segments: Sequence[Segment], limit: int) -> Encoded:
    """Cut after the last sampled run whose supervised tokens all fit into `limit`, so no supervised call is cut."""
    if len(encoded.input_ids) <= limit:
        return encoded
    end = start = 0
    for sampled, run in groupby(range(len(segments)), lambda index: segments[index].sampled):
        stop = bisect_right(encoded.segments, max(run))
        if sampled:
            last = next((place + 1 for place in range(stop - 1, start - 1, -1) if encoded.loss_weights[place] > 0), 0)
            if last > limit:
                break
            end = max(end, last)
        start = stop
    return Encoded(encoded.input_ids[:end], encoded.loss_weights[:end], encoded.segments[:end])


def _stem(encoded: Encoded, segments: Sequence[Segment]) -> int:
    """The number of leading tokens that are system text, tools and the frame before them."""
    first = next((place for place, segment in enumerate(segments) if segment.kind == "system"), None)
    return 0 if first is None else bisect_right(encoded.segments, first)


def _answers_to(kind: str, segments: Sequence[Segment]) -> int:
    """The number of sampled runs that answer a `user` or a `result` without a call."""
    count = 0
    asked = ""
    for segment in segments:
        if segment.kind in ("user", "result"):
            asked = segment.kind
        elif segment.sampled and segment.kind == "answer" and asked == kind:
            count += not segment.excluded
            asked = ""
    return count
