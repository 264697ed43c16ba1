"""Samples and packs as one file of arrays, which the first process writes and the others map."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from safetensors.numpy import save_file
from safetensors.torch import load_file

from agentft.engine.packing import Node, Pack, Sample

__all__ = ["load_samples", "save_samples"]

Item = TypeVar("Item")


class _Stored(Sequence[Item]):
    """A sequence whose items are made when they are asked for."""

    def __init__(self, length: int, make: Callable[[int], Item]) -> None:
        self._items, self._make = range(length), make

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, place: int) -> Item: ...
    @overload
    def __getitem__(self, place: slice) -> list[Item]: ...
    def __getitem__(self, place: int | slice) -> Item | list[Item]:
        found = self._items[place]
        return self._make(found) if isinstance(found, int) else [self._make(number) for number in found]


def save_samples(samples: Sequence[Sample], packs: Sequence[Pack], target: Path) -> None:
    """Write `target`.

    Raises:
        OSError: the disk is full.
    """
    nodes = [(node.sample, node.start, node.end, node.parent) for pack in packs for node in pack.nodes]
    arrays: dict[str, Any] = {
        "tokens": _joined([sample.tokens for sample in samples], np.intc),
        "places": _joined([sample.places for sample in samples], np.intc),
        "weights": _joined([sample.weights for sample in samples], np.float64),
        "token_ends": _ends([sample.tokens for sample in samples]),
        "place_ends": _ends([sample.places for sample in samples]),
        "rows": np.array([(sample.row, sample.stem) for sample in samples], np.int64),
        "nodes": np.array(nodes, np.int64),
        "members": np.array([member for pack in packs for member in pack.members], np.int64),
        "node_ends": _ends([pack.nodes for pack in packs]),
        "member_ends": _ends([pack.members for pack in packs]),
        "sizes": np.array([(pack.tokens, pack.unshared) for pack in packs], np.int64),
    }
    save_file(arrays, target)


def load_samples(source: Path) -> tuple[Sequence[Sample], Sequence[Pack]]:
    """What `save_samples` wrote, mapped: the file may be removed. The samples have no id, which only messages need."""
    found = {name: tensor.numpy() for name, tensor in load_file(source).items()}

    def sample(number: int) -> Sample:
        tokens = _part(found["tokens"], found["token_ends"], number)
        places = _part(found["places"], found["place_ends"], number)
        weights = _part(found["weights"], found["place_ends"], number)
        row, stem = found["rows"][number].tolist()
        made = array("i", tokens.tobytes()), array("i", places.tobytes()), array("d", weights.tobytes())
        return Sample(row, "", *made, stem)

    def pack(number: int) -> Pack:
        nodes = _part(found["nodes"], found["node_ends"], number).tolist()
        members = _part(found["members"], found["member_ends"], number).tolist()
        tokens, unshared = found["sizes"][number].tolist()
        return Pack(tuple(Node(*node) for node in nodes), tuple((a, b) for a, b in members), tokens, unshared)

    return _Stored(len(found["rows"]), sample), _Stored(len(found["sizes"]), pack)


def _joined(parts: Sequence[array[Any]], kind: Any) -> Any:
    return np.concatenate([np.frombuffer(part, kind) for part in parts])


def _ends(parts: Sequence[Sequence[Any]]) -> Any:
    return np.array([0, *accumulate(map(len, parts))], np.int64)


def _part(values: Any, ends: Any, number: int) -> Any:
    return values[ends[number] : ends[number + 1]]
