"""Packs as tensors: two small packs, number by number, and padding."""

from __future__ import annotations

import pytest
import torch

from agentft.engine.collation import Batch, collate, subtree_ends
from agentft.engine.packing import pack_in_order
from tests.engine.samples import make

SAMPLES = [
    make([10, 11, 12, 13, 14], {1: 0.25, 4: 1.0}),
    make([10, 11, 12, 15, 16], {3: 0.5, 4: 1.0}),
    make([10, 11, 17], {2: 2.0}),
    make([20, 21, 22], {2: 1.0}),
    make([20, 23, 24, 25], {1: 1.0, 3: 3.0}),
]
PACKS = [*pack_in_order(SAMPLES, [0, 1, 2]), *pack_in_order(SAMPLES, [3, 4])]
# The columns: token, position, end of its node's subtree.
ROW = [(10, 0, 5), (11, 1, 5), (12, 2, 5), (13, 3, 4), (15, 3, 5), (20, 0, 9), (21, 1, 7), (23, 1, 9), (24, 2, 9)]
NODES = [(2, -1), (1, 0), (1, 1), (1, 1), (1, -1), (1, 4), (2, 4)]
# The columns: position that predicts the target, target, weight, owner.
TARGETS = [
    (0, 11, 0.25, 0), (3, 14, 1, 0), (2, 15, 0.5, 1), (4, 16, 1, 1), (1, 17, 2, 2), (6, 22, 1, 3), (5, 23, 1, 4),
    (8, 25, 3, 4),
]  # fmt: skip


def row_of(batch: Batch) -> list[tuple[int, ...]]:
    columns = (batch["input_ids"][0].tolist(), batch["position_ids"][0].tolist(), batch["ends"].tolist())
    return list(zip(*columns, strict=True))


def targets_of(batch: Batch) -> list[tuple[float, ...]]:
    columns = (batch[name].tolist() for name in ("logits_to_keep", "targets", "weights", "owners"))
    return list(zip(*columns, strict=True))


def test_packs_are_joined_and_keep_the_positions_in_each_sample() -> None:
    batch = collate(PACKS, SAMPLES)
    assert row_of(batch) == ROW
    assert batch["nodes"] == NODES
    assert targets_of(batch) == TARGETS
    assert batch["tokens"] == 9
    assert {batch[name].dtype for name in ("input_ids", "targets", "logits_to_keep")} == {torch.int64}
    assert batch["weights"].dtype == torch.float32


@pytest.mark.parametrize("multiple", [1, 2, 3, 4, 5, 8, 16])
def test_padding_is_tokens_that_nothing_attends_to_and_targets_of_weight_0(multiple: int) -> None:
    batch = collate(PACKS, SAMPLES, multiple)
    tokens, targets = -len(ROW) % multiple, -len(TARGETS) % multiple
    assert row_of(batch) == ROW + [(0, place, 9 + tokens) for place in range(tokens)]
    assert batch["nodes"] == NODES + [(tokens, -1)] * (tokens > 0)
    assert batch["tokens"] == 9
    found = targets_of(batch)
    assert found[:8] == TARGETS
    assert len(found) == 8 + targets
    assert all(weight == 0 and place < 9 for place, _, weight, _ in found[8:])


def test_a_single_token_with_one_target_is_padded() -> None:
    samples = [make([30, 31], {1: 1.0})]
    batch = collate(pack_in_order(samples, [0]), samples, 3)
    assert row_of(batch) == [(30, 0, 1), (0, 0, 3), (0, 1, 3)]
    assert targets_of(batch) == [(0, 31, 1, 0), (0, 31, 0, 0), (0, 31, 0, 0)]


@pytest.mark.parametrize(
    ("parents", "starts", "ends"),
    [
        ([], [0], []),
        ([-1], [3, 5], [5]),
        ([-1, 0, 1, 0, -1], [0, 2, 3, 5, 6, 9], [6, 5, 5, 6, 9]),
        ([-1, -1, 1, 2], [0, 1, 2, 3, 7], [1, 7, 7, 7]),
    ],
)
def test_a_subtree_ends_with_the_last_of_its_nodes(parents: list[int], starts: list[int], ends: list[int]) -> None:
    assert subtree_ends(parents, starts) == ends
