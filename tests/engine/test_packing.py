"""Packing keeps every sample, respects the budget, shares prefixes, and isolates samples."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.engine.collation import Batch, collate
from agentft.engine.packing import Sample, epoch_packs, make_sample, pack_in_order, report_packing
from agentft.types import Encoded
from tests.engine.samples import make


@pytest.fixture(autouse=True, scope="module")
def short_stems() -> Iterator[None]:
    """Samples here are short, so share shorter prefixes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agentft.engine.packing.MIN_SHARED", 4)
        yield


def mask_of(batch: Batch) -> torch.Tensor:
    """`[L, L]`: the mask that `Batch.ends` defines."""
    order = torch.arange(len(batch["ends"]))
    return (order[:, None] >= order) & (order[:, None] < batch["ends"])


@st.composite
def forests(draw: st.DrawFn) -> list[Sample]:
    """Samples, some of which branch off an earlier sample at any token."""
    tokens = st.integers(3, 60)
    samples: list[Sample] = []
    for row in range(draw(st.integers(1, 12))):
        stem: list[int] = []
        if draw(st.booleans()) and samples:
            before = samples[draw(st.integers(0, len(samples) - 1))].tokens
            stem = list(before[: draw(st.integers(0, len(before)))])
        rest = draw(st.lists(tokens, min_size=0 if len(stem) > 1 else 2, max_size=30))
        ids = [*stem, *rest]
        spots = st.integers(1, len(ids) - 1)
        weights = draw(st.dictionaries(spots, st.sampled_from([0.25, 1.0, 2.0]), max_size=6))
        samples.append(make(ids, weights | {len(ids) - 1: 1.0}, row))
    return samples


@settings(deadline=None)
@given(forests(), st.integers(8, 80), st.integers(0, 3), st.integers(0, 3))
def test_each_sample_is_in_exactly_one_pack(samples: list[Sample], budget: int, seed: int, epoch: int) -> None:
    packs = epoch_packs(samples, budget, seed, epoch)

    assert Counter(member for pack in packs for member, _ in pack.members) == Counter(range(len(samples)))
    for pack in packs:
        assert pack.tokens <= budget or len(pack.members) == 1
    report = report_packing(packs, budget)
    assert report.samples == len(samples)
    assert report.unshared == sum(sample.inputs for sample in samples)
    assert report.tokens <= report.unshared
    assert 0 < report.fill <= 1


@settings(deadline=None)
@given(forests(), st.integers(8, 80))
def test_the_row_has_the_reported_tokens_and_every_target(samples: list[Sample], budget: int) -> None:
    packs = epoch_packs(samples, budget, 0, 0)
    batches = [collate([pack], samples) for pack in packs]

    assert [batch["input_ids"].shape[1] for batch in batches] == [pack.tokens for pack in packs]
    targets = Counter(
        (int(owner), int(target), float(weight))
        for batch in batches
        for owner, target, weight in zip(batch["owners"], batch["targets"], batch["weights"], strict=True)
    )
    assert targets == Counter(
        (index, sample.tokens[place], weight)
        for index, sample in enumerate(samples)
        for place, weight in zip(sample.places, sample.weights, strict=True)
    )


@settings(deadline=None)
@given(forests(), st.integers(8, 80))
def test_a_target_attends_to_its_own_sample_in_order_and_nothing_else(samples: list[Sample], budget: int) -> None:
    for pack in epoch_packs(samples, budget, 0, 0):
        batch = collate([pack], samples)
        rows = zip(batch["owners"].tolist(), batch["logits_to_keep"].tolist(), batch["targets"].tolist(), strict=True)
        for owner, row, target in rows:
            seen = mask_of(batch)[row]
            tokens = samples[owner].tokens
            length = int(seen.sum())
            assert batch["input_ids"][0, seen].tolist() == list(tokens[:length])
            assert batch["position_ids"][0, seen].tolist() == list(range(length))
            assert tokens[length] == target


def test_samples_with_one_system_text_share_it() -> None:
    samples = [make([*range(3, 43), 50 + row, 60, 61], {42: 1.0}, row) for row in range(10)]

    (pack,) = epoch_packs(samples, 1000, 0, 0)
    report = report_packing([pack], 1000)

    assert [(node.start, node.end, node.parent) for node in pack.nodes] == [(0, 40, -1)] + [(40, 42, 0)] * 10
    assert (report.tokens, report.unshared) == (40 + 10 * 2, 420)
    assert report.sharing == 7.0


def test_shared_prefixes_nest() -> None:
    system, first, second = [*range(3, 43)], [*range(50, 70)], [*range(70, 90)]
    turns = [[*system, *first, 1], [*system, *first, *second, 2], [*system, *first, *second, 3, 4]]
    others = [[*system, 100 + other, 101] for other in range(3)]
    samples = [make(ids, {len(ids) - 1: 1.0}, row) for row, ids in enumerate([*turns, *others])]

    (pack,) = epoch_packs(samples, 1000, 0, 0)

    assert sum(node.end - node.start for node in pack.nodes) == pack.tokens == 40 + 20 + 20 + 1 + 3
    depths: list[int] = []
    for node in pack.nodes:
        depths.append(depths[node.parent] + 1 if node.parent >= 0 else 0)
    assert sorted(depths) == [0, 1, 1, 1, 1, 2, 3]


def test_a_few_more_shared_tokens_do_not_get_a_node() -> None:
    shared = [*range(3, 43)]
    samples = [make([*shared, 50, 51, 60 + row, 1], {43: 1.0}, row) for row in range(2)]
    samples += [make([*shared, 70 + row, 1], {41: 1.0}, row + 2) for row in range(2)]

    (pack,) = epoch_packs(samples, 1000, 0, 0)

    assert len(pack.nodes) == 5


def test_equal_samples_share_all_inputs_and_keep_their_targets() -> None:
    samples = [make([5, 6, 7], {2: 1.0}), make([5, 6, 7], {2: 1.0}, 1)]

    (pack,) = pack_in_order(samples, range(2))
    batch = collate([pack], samples)

    assert batch["input_ids"].tolist() == [[5, 6]]
    assert batch["logits_to_keep"].tolist() == [1, 1]
    assert batch["targets"].tolist() == [7, 7]


def test_order_depends_on_seed_and_epoch_only() -> None:
    samples = [make([4, 5, 6 + row, 7], {3: 1.0}, row) for row in range(30)]

    orders = {(seed, epoch): epoch_packs(samples, 16, seed, epoch) for seed in (0, 1) for epoch in (0, 1)}

    assert len({tuple(packs) for packs in orders.values()}) == 4
    assert orders[0, 1] == epoch_packs(samples, 16, 0, 1)


def test_small_trees_are_combined_in_one_pack() -> None:
    samples = [make([10 + row, 20 + row, 30, 31], {3: 1.0}, row) for row in range(4)]

    (pack,) = epoch_packs(samples, 12, 0, 0)

    assert sorted(member for member, _ in pack.members) == [0, 1, 2, 3]
    assert [node.parent for node in pack.nodes] == [-1] * 4


def test_a_sample_above_the_budget_is_not_cut() -> None:
    long = make(list(range(3, 53)), {49: 1.0})
    short = make([3, 4, 5], {2: 1.0}, 1)

    packs = epoch_packs([long, short], 10, 0, 0)

    assert sorted(pack.tokens for pack in packs) == [2, 49]


def test_make_sample_cuts_after_the_last_supervised_token() -> None:
    encoded = Encoded(array("i", (5, 6, 7, 8, 9)), (0.0, 0.0, 1.0, 0.5, 0.0), (0, 0, 1, 1, 2))

    sample = make_sample(3, "x", encoded)

    assert sample == Sample(3, "x", array("i", [5, 6, 7, 8]), array("i", [2, 3]), array("d", [1.0, 0.5]))
    assert sample.inputs == 3


def test_make_sample_keeps_every_supervised_token() -> None:
    sample = make_sample(0, "x", Encoded(array("i", (5, 6, 7, 8, 9)), (0.0, 1.0, 1.0, 0.0, 1.0), (0, 1, 1, 1, 2)))
    assert sample is not None
    assert (sample.tokens.tolist(), sample.places.tolist()) == ([5, 6, 7, 8, 9], [1, 2, 4])


def test_without_supervised_tokens_there_is_no_sample() -> None:
    assert make_sample(0, "x", Encoded(array("i", (5, 6)), (0.0, 0.0), (0, 0))) is None
    assert make_sample(0, "x", Encoded(array("i", (5, 6)), (1.0, 0.0), (0, 0))) is None, (
        "the first token has no predecessor"
    )


def test_the_mask_of_two_trees() -> None:
    samples = [make([1, 2, 3, 9], {3: 1.0}), make([1, 2, 4, 9], {3: 1.0}, 1), make([7, 8, 9], {2: 1.0}, 2)]
    (pack,) = pack_in_order(samples, range(3))

    batch = collate([pack], samples)

    assert batch["input_ids"].tolist() == [[1, 2, 3, 4, 7, 8]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 2, 0, 1]]
    assert batch["nodes"] == [(2, -1), (1, 0), (1, 0), (2, -1)]
    expected = [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 0, 1, 0, 0],
        [0, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 1, 1],
    ]
    assert torch.equal(mask_of(batch), torch.tensor(expected, dtype=torch.bool))


@settings(deadline=None, max_examples=30)
@given(forests(), st.integers(16, 120), st.integers(1, 9))
def test_several_packs_are_collated_to_one_row(samples: list[Sample], budget: int, multiple: int) -> None:
    packs = epoch_packs(samples, budget, 0, 0)
    apart = [collate([pack], samples) for pack in packs]

    together = collate(packs, samples, multiple)

    blocks = torch.block_diag(*(mask_of(batch).int() for batch in apart))
    real = len(blocks)
    assert torch.equal(mask_of(together)[:real, :real], blocks.bool())
    assert together["tokens"] == real
    assert together["input_ids"].shape[1] % multiple == 0
    assert len(together["targets"]) % multiple == 0
    kept = together["weights"] > 0
    assert together["targets"][kept].tolist() == [t for batch in apart for t in batch["targets"].tolist()]
