"""Held-out rows, and the loss on them while training."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import Path
from typing import Any

from agentft.engine.packing import Pack, Sample, epoch_packs
from agentft.errors import InputError
from agentft.rows.preparation import Encoder, Prepared, prepare
from agentft.training.combinations import share_of
from agentft.training.events import Note
from agentft.training.recipe import Recipe
from agentft.types import Json

__all__ = ["HeldOut", "HeldOutLoss", "prepare_apart"]


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Samples that are not trained on. `document`: where they are from and what was counted, for data.json.

    `doubtful`: held-out rows that ask what a training row asks.
    """

    samples: list[Sample]
    document: dict[str, Json]
    doubtful: int = 0

    def notes(self, recipe: Recipe) -> Iterator[Note]:
        """What the user should know about the rows."""
        rows = self.document["rows"]
        when = f"every {recipe.eval_steps} steps" if recipe.eval_steps else "after each epoch"
        yield Note(f"held-out rows: {rows} ({self.document['source']}); their loss is measured {when}")
        if self.doubtful:
            yield Note(f"{self.doubtful} of the {rows} held-out rows ask what a training row asks", warning=True)

    def packs(self, recipe: Recipe) -> list[Pack]:
        """The samples in packs like those of the training."""
        return epoch_packs(self.samples, recipe.pack_tokens, 0, 0, share=recipe.sharing == "on")


class HeldOutLoss:
    """Measures the loss on held-out samples: every `eval_steps` steps, or after each epoch, and after the last step.

    Args:
        recipe: resolved.
        held: the held-out samples and their packs.
        samples: the number of training samples, each of which is in the packs once for each epoch.
        packs: all packs of the run.
    """

    def __init__(
        self, recipe: Recipe, held: tuple[Sequence[Sample], Sequence[Pack]], samples: int, packs: Sequence[Pack]
    ) -> None:
        self._held, self._every = held, recipe.eval_steps
        seen = accumulate(len(pack.members) for pack in packs)
        self._ends = {number // recipe.batch + 1 for number, count in enumerate(seen) if count % samples == 0}

    def due(self, step: int, steps: int) -> bool:
        """See `Measure`."""
        return step == steps or (step % self._every == 0 if self._every else step in self._ends)

    def __call__(self, loop: Any, step: int) -> Mapping[str, float]:
        """See `Measure`."""
        del step
        return {"eval_loss": loop.mean_loss(*self._held)}


def prepare_apart(recipe: Recipe, encoder: Encoder, quarantine: Path | None = None) -> tuple[Prepared, HeldOut | None]:
    """The training rows, and the held-out rows of another file or a share of the same ones.

    Raises:
        InputError: no row is kept, or no row can be held out.
    """
    prepared = prepare([Path(path) for path in recipe.data], encoder, quarantine)
    if not recipe.eval_data:
        return prepared, None
    if share := share_of(recipe.eval_data):
        return prepared, _take_share(prepared, recipe, share)
    other = prepare([Path(recipe.eval_data)], encoder)
    known = {_question(rows) for rows in _rows(prepared.samples)}
    rows = sorted(_rows(other.samples), key=lambda rows: _draw(recipe.seed, rows[0].id.encode(), str(rows[0].row)))
    chosen = sorted(rows[: recipe.eval_rows], key=lambda rows: rows[0].row)
    ledger = other.report.ledger
    counts: dict[str, Json] = {"rejected": ledger.rejected, "reasons": dict(ledger.reasons.most_common())}
    return prepared, _held(recipe.eval_data, chosen, counts, sum(_question(rows) in known for rows in chosen))


def _take_share(prepared: Prepared, recipe: Recipe, share: float) -> HeldOut:
    """Rows with the same first question stay together, because they are often one conversation in several rows."""
    groups: dict[bytes, list[list[Sample]]] = {}
    every = _rows(prepared.samples)
    for rows in every:
        groups.setdefault(_question(rows), []).append(rows)
    if len(groups) < 2:
        raise InputError(f"eval_data = {recipe.eval_data}: all rows ask the same question; give a file")
    wanted = min(max(round(share * len(every)), 1), recipe.eval_rows)
    order = sorted(groups, key=lambda question: _draw(recipe.seed, question))
    taken: set[bytes] = set()
    count = 0
    for question in order:
        if count + len(groups[question]) <= wanted:
            taken.add(question)
            count += len(groups[question])
    taken = taken or {min(order, key=lambda question: len(groups[question]))}
    held = [rows for rows in every if _question(rows) in taken]
    prepared.samples = [sample for rows in every if _question(rows) not in taken for sample in rows]
    prepared.report.held_out = len(held)
    prepared.complete()
    return _held(f"{share:.0%} of the rows", held, {}, 0)


def _held(source: str, chosen: Sequence[list[Sample]], counts: dict[str, Json], doubtful: int) -> HeldOut:
    samples = [sample for rows in chosen for sample in rows]
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.tokens.tobytes() + sample.places.tobytes() + sample.weights.tobytes())
    document: dict[str, Json] = {"source": source, "rows": len(chosen), "samples": len(samples), **counts}
    document["tokens"] = sum(len(sample.tokens) for sample in samples)
    document["supervised"] = sum(len(sample.places) for sample in samples)
    return HeldOut(samples, {**document, "fingerprint": digest.hexdigest()}, doubtful)


def _rows(samples: Sequence[Sample]) -> list[list[Sample]]:
    """The samples of each row, which are neighbours."""
    return [list(rows) for _, rows in groupby(samples, key=lambda sample: (sample.row, sample.id))]


def _question(rows: Sequence[Sample]) -> bytes:
    """What a row asks first: the tokens between system text and tools, and what is supervised first."""
    first = min(rows, key=lambda sample: sample.places[0])
    return first.tokens[first.stem : first.places[0]].tobytes()


def _draw(seed: int, *parts: bytes | str) -> bytes:
    texts = [part if isinstance(part, bytes) else part.encode() for part in parts]
    return hashlib.sha256(b"/".join([str(seed).encode(), *texts])).digest()
