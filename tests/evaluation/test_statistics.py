from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.evaluation.statistics import estimate, paired_delta, paired_ratio_delta, ratio, smallest_difference

BITS = st.lists(st.tuples(st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0])), min_size=1, max_size=40)


def test_wilsons_interval_is_the_textbook_one() -> None:
    # Newcombe 1998 (two-sided single proportion): 81 of 263, Wilson 0.2553 to 0.3662.
    found = ratio([(80, 200), (1, 63)])
    assert found["low"] == pytest.approx(0.2553, abs=1e-4)
    assert found["high"] == pytest.approx(0.3662, abs=1e-4)
    assert estimate([1.0] * 81 + [0.0] * 182) == found


def test_no_case_gives_no_figure() -> None:
    assert estimate([]) == {"value": None, "low": None, "high": None, "n": 0}
    assert paired_delta([], []) == {"value": None, "low": None, "high": None, "n": 0, "p": None}
    assert ratio([])["value"] is None


def test_graded_values_get_students_interval() -> None:
    found = estimate([0.2, 0.4, 0.6, 0.8])
    assert found["value"] == pytest.approx(0.5)
    assert found["low"] == pytest.approx(0.5 - 3.182446 * 0.2581989 / 2, abs=1e-4)
    assert estimate([0.5])["low"] == 0.0


def test_mcnemar_counts_only_pairs_that_differ() -> None:
    found = paired_delta([1.0] * 9 + [0.0] + [1.0] * 30, [0.0] * 9 + [1.0] + [1.0] * 30)
    assert found["value"] == pytest.approx(0.2)
    assert found["p"] == pytest.approx(0.021484375)  # 2 * P(X >= 9), X ~ Bin(10, 1/2)


def test_newcombes_paired_interval_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17, 2635-2650, table II (method 10): 36, 12, 2, 0 gives 0.0569 to 0.3404.
    tuned = [1.0] * 36 + [1.0] * 12 + [0.0] * 2
    base = [1.0] * 36 + [0.0] * 12 + [1.0] * 2
    found = paired_delta(tuned, base)
    assert found["value"] == pytest.approx(0.2)
    assert found["low"] == pytest.approx(0.0569, abs=2e-3)
    assert found["high"] == pytest.approx(0.3404, abs=2e-3)


@given(BITS)
def test_paired_intervals_hold_the_value_and_mirror(pairs: list[tuple[float, float]]) -> None:
    tuned, base = [left for left, _ in pairs], [right for _, right in pairs]
    found, mirrored = paired_delta(tuned, base), paired_delta(base, tuned)
    assert found["low"] is not None
    assert found["high"] is not None
    assert found["value"] is not None
    assert -1 <= found["low"] <= found["value"] <= found["high"] <= 1
    assert mirrored["low"] == pytest.approx(-found["high"])
    assert mirrored["p"] == pytest.approx(found["p"])


def test_the_paired_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(1)
    covered = 0
    for _ in range(200):
        base = generator.random(60) < 0.5
        tuned = base | (generator.random(60) < 0.4)
        found = paired_delta([float(x) for x in tuned], [float(x) for x in base])
        assert found["low"] is not None
        assert found["high"] is not None
        covered += found["low"] <= 0.2 <= found["high"]
    assert covered >= 180


def test_graded_differences_are_reproducible_and_directed() -> None:
    generator = np.random.default_rng(2)
    base = generator.random(50)
    tuned = np.clip(base + 0.2, 0, 1)
    found = paired_delta(list(tuned), list(base))
    assert found == paired_delta(list(tuned), list(base))
    assert found["low"] is not None
    assert found["low"] > 0
    assert found["p"] is not None
    assert found["p"] < 0.01
    same = paired_delta(list(base), list(base))
    assert (same["value"], same["p"]) == (0.0, 1.0)


def test_ratios_are_taken_over_sums_not_over_cases() -> None:
    found = paired_ratio_delta([(1, 1), (2, 3)], [(0, 1), (1, 3)])
    assert found["value"] == pytest.approx(0.75 - 0.25)
    assert paired_ratio_delta([(1, 1)], [(0, 0)])["value"] is None
    assert paired_ratio_delta([], [])["n"] == 0


@pytest.mark.parametrize(
    ("cases", "discordant", "points"),
    [
        (50, 0.1, None),
        (50, 0.2, 18),
        (50, 0.3, 22),
        (100, 0.1, 9),
        (100, 0.2, 13),
        (100, 0.3, 16),
        (200, 0.1, 6.5),
        (200, 0.2, 9.5),
        (200, 0.3, 11.5),
        (400, 0.2, 7),
        (800, 0.1, 3.5),
    ],
)
def test_the_smallest_difference_that_can_be_shown(cases: int, discordant: float, points: float | None) -> None:
    found = smallest_difference(cases, discordant)
    if points is None:
        assert found is None
    else:
        assert found is not None
        assert found * 100 == pytest.approx(points, abs=0.51)
