"""The planner's figures are those that were measured, and its choice fits."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen3MoeConfig

from agentft.errors import InputError
from agentft.training.planner import GIB, SLACK, Card, Dimensions, Levers, Workload, choose, dimensions, estimate

SEVEN = Dimensions(3_584, 18_944, 3_584, 512, 28, 152_064, False)
H100 = 775e12

# One H100, torch 2.11: tokens of a pack (filled up), what is recomputed, unpacked, host, Liger; GiB, seconds.
MEASURED = [
    ((2_688, 1, False, False, True), 6.99, 0.381),
    ((7_040, 1, False, False, True), 8.51, 0.677),
    ((13_440, 1, False, False, True), 10.88, 1.282),
    ((4_736, 1, False, True, True), 6.85, 0.553),
    ((6_144, 1, False, True, True), 7.16, 0.598),
    ((7_040, 1, False, True, True), 7.71, 0.697),
    ((13_440, 1, False, True, True), 9.87, 1.257),
    ((5_504, 3, False, True, True), 17.50, 0.441),
    ((7_040, 2, False, True, True), 17.46, 0.578),
    ((6_144, 4, False, True, True), 20.52, 0.476),
    ((4_096, 0, False, True, True), 18.56, 0.340),
    ((7_040, 0, False, True, True), 27.97, 0.483),
    ((16_384, 0, False, True, True), 58.01, 1.075),
    ((2_688, 1, False, False, False), 7.04, 0.512),
    ((7_040, 1, False, False, False), 9.02, 0.808),
    ((7_040, 1, True, False, True), 17.51, 0.650),
    # Of tests/bench/bench_train.py, with a trainer around the step.
    ((6_144, 4, False, False, True), 21.45, 0.495),
    ((16_384, 0, True, False, True), 67.78, 1.061),
]


@pytest.mark.parametrize(("levers", "gib", "seconds"), MEASURED)
def test_memory_is_what_was_measured_within_a_tenth(
    levers: tuple[int, int, bool, bool, bool], gib: float, seconds: float
) -> None:
    found = estimate(SEVEN, Levers(*levers), rate=H100)

    assert found.memory / GIB == pytest.approx(gib, rel=0.1)
    if levers[-1]:
        assert found.seconds == pytest.approx(seconds, rel=0.15)


def test_dimensions_count_the_weights_of_a_known_model() -> None:
    config = Qwen2Config(
        vocab_size=152_064, hidden_size=3_584, intermediate_size=18_944, num_hidden_layers=28, num_attention_heads=28,
        num_key_value_heads=4, tie_word_embeddings=False,
    )  # fmt: skip
    assert dimensions(config) == SEVEN
    assert SEVEN.body == 6_525_288_448
    assert SEVEN.adapters(16) == 40_370_176


def test_fp32_takes_more_and_a_mixture_of_experts_is_not_foreseen() -> None:
    levers = Levers(4_096, 0)
    half, whole = estimate(SEVEN, levers, "lora"), estimate(SEVEN, levers, "lora", width=4)
    assert 1.8 < whole.memory / half.memory < 2.1
    with pytest.raises(InputError, match="mixture of experts"):
        dimensions(Qwen3MoeConfig())


def agent930(samples: int = 100_000) -> Workload:
    return Workload(samples, 1, 700, lambda pack: samples * (100 + 600 // max((pack - 600) // 100, 1)))


@settings(deadline=None, max_examples=60)
@given(st.floats(5, 90), st.sampled_from([1e13, 1e14, 8e14]), st.sampled_from(["qlora", "lora", "full"]))
def test_what_is_chosen_fits_and_nothing_that_fits_is_refused(gib: float, rate: float, method: str) -> None:
    card = Card(gib * GIB, rate)

    found = choose(SEVEN, card, agent930(), method)  # type: ignore[arg-type]

    leanest = Levers(700, 1, False, method != "full")
    fits = estimate(SEVEN, leanest, method, rate=rate).memory <= card.free - SLACK  # type: ignore[arg-type]
    if found is None:
        assert not fits
    else:
        assert found.estimate.memory <= card.free - SLACK


def test_more_memory_is_never_slower() -> None:
    speeds = []
    for gib in (6, 8, 12, 16, 24, 48, 80):
        found = choose(SEVEN, Card(gib * GIB, H100), agent930())
        speeds.append(found.samples_per_second if found else 0.0)
    assert speeds == sorted(speeds)
    assert speeds[1] > 50


def test_what_the_user_sets_stays() -> None:
    found = choose(SEVEN, Card(80 * GIB, H100), agent930(), fixed={"pack": 3_000, "every": 2, "unpack": False})
    assert found is not None
    assert replace(found.levers, host=False) == Levers(3_000, 2)


def test_few_samples_get_short_packs_so_that_there_are_steps() -> None:
    found = choose(SEVEN, Card(80 * GIB, H100), agent930(2_000))
    assert found is not None
    assert agent930(2_000).computed(found.levers.pack) / found.levers.pack >= 100
    many = choose(SEVEN, Card(80 * GIB, H100), agent930())
    assert many is not None
    assert many.levers.pack > found.levers.pack


def test_a_7b_fits_into_8_gib_at_a_length_of_2048() -> None:
    work = Workload(10_000, 1, 2_048, lambda pack: 10_000 * 2_048)
    found = choose(SEVEN, Card(8 * GIB, H100), work)
    assert found is not None
    assert found.estimate.memory <= 7.5 * GIB
