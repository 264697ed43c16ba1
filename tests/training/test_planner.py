"""The planner's predictions match measurements, and its choice fits into memory."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen3MoeConfig

from agentft.errors import InputError
from agentft.training.planner import (
    GIB,
    SLACK,
    Card,
    Dimensions,
    FixedLevers,
    Levers,
    Workload,
    choose,
    dimensions,
    step_cost,
)
from agentft.training.resolve import SEVEN_B

SEVEN = Dimensions(3_584, 18_944, 3_584, 512, 28, 152_064, False)
H100 = 775e12

# On one H100 with torch 2.11: fields of `Levers`, GiB, seconds.
MEASURED = [
    ((2_600, 1, False, False, True), 7.04, 0.388),
    ((7_000, 1, False, False, True), 8.57, 0.676),
    ((13_400, 1, False, False, True), 10.95, 1.259),
    ((1_400, 1, False, True, True), 5.55, 0.340),
    ((4_600, 1, False, True, True), 6.66, 0.451),
    ((6_100, 1, False, True, True), 7.23, 0.601),
    ((13_400, 1, False, True, True), 9.94, 1.261),
    ((5_500, 3, False, True, True), 17.52, 0.445),
    ((7_000, 2, False, True, True), 17.40, 0.582),
    ((6_100, 4, False, True, True), 20.45, 0.477),
    ((2_000, 0, False, True, True), 11.98, 0.244),
    ((4_000, 0, False, True, True), 18.47, 0.318),
    ((7_000, 0, False, True, True), 27.82, 0.482),
    ((16_300, 0, False, False, True), 58.91, 1.064),
    ((7_000, 1, True, False, True), 17.45, 0.648),
    ((6_100, 4, False, False, True), 21.47, 0.469),
    ((16_300, 0, True, False, True), 67.78, 1.043),
    ((2_000, 0, True, False, True), 21.99, 0.168),
    # Without Liger; measured with an older engine, so without a time.
    ((2_688, 1, False, False, False), 7.04, None),
    ((7_040, 1, False, False, False), 9.02, None),
]


@pytest.mark.parametrize(("levers", "gib", "seconds"), MEASURED)
def test_predictions_are_within_a_tenth_of_measurements(
    levers: tuple[int, int, bool, bool, bool], gib: float, seconds: float | None
) -> None:
    found = step_cost(SEVEN, Levers(*levers), rate=H100)

    assert found.memory / GIB == pytest.approx(gib, rel=0.1)
    if seconds:
        assert found.seconds == pytest.approx(seconds, rel=0.1)


def test_dimensions_give_the_number_of_weights_of_a_known_model() -> None:
    assert dimensions(Qwen2Config(**SEVEN_B)) == SEVEN
    assert SEVEN.body == 6_525_288_448
    assert SEVEN.adapters(16) == 40_370_176


def test_fp32_needs_twice_the_memory_and_a_mixture_of_experts_is_refused() -> None:
    levers = Levers(4_096, 0)
    half, whole = step_cost(SEVEN, levers, "lora"), step_cost(SEVEN, levers, "lora", width=4)
    assert 1.8 < whole.memory / half.memory < 2.1
    with pytest.raises(InputError, match="mixture of experts"):
        dimensions(Qwen3MoeConfig())


def agent930(samples: int = 100_000) -> Workload:
    return Workload(samples, 1, 700, lambda pack: samples * (100 + 600 // max((pack - 600) // 100, 1)))


@settings(deadline=None, max_examples=60)
@given(st.floats(5, 90), st.sampled_from([1e13, 1e14, 8e14]), st.sampled_from(["qlora", "lora", "full"]))
def test_a_choice_fits_and_is_made_whenever_something_fits(gib: float, rate: float, method: str) -> None:
    card = Card(gib * GIB, rate)

    found = choose(SEVEN, card, agent930(), method)  # type: ignore[arg-type]

    leanest = Levers(700, 1, False, method != "full")
    fits = step_cost(SEVEN, leanest, method, rate=rate).memory <= card.free - SLACK  # type: ignore[arg-type]
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


def test_the_planner_keeps_the_users_settings() -> None:
    found = choose(SEVEN, Card(80 * GIB, H100), agent930(), fixed=FixedLevers(pack=3_000, every=2, unpack=False))
    assert found is not None
    assert replace(found.levers, host=False) == Levers(3_000, 2)


def test_few_samples_get_short_packs_for_enough_steps() -> None:
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
