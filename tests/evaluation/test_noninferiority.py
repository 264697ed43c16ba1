"""The gate on a difference lets a worse arm pass as rarely as it says."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import special, stats

from agentft.evaluation.noninferiority import CONFIDENCE, EXACT_CASES, no_worse_p, no_worse_ratio_p


def pairs(wins: int, losses: int, n: int) -> tuple[list[float], list[float]]:
    """Zeros and ones of two arms with these numbers of discordant pairs."""
    ties = [1.0] * (n - wins - losses)
    return [1.0] * wins + [0.0] * losses + ties, [0.0] * wins + [1.0] * losses + ties


def test_the_score_statistic_is_the_published_one(monkeypatch: pytest.MonkeyPatch) -> None:
    # Tango 1998, Statistics in Medicine 17, 891-908: 43 of 44 against 44 of 44 with a margin of 0.1 gives Z = 1.709.
    monkeypatch.setattr("agentft.evaluation.noninferiority.EXACT_CASES", 0)
    monkeypatch.setattr("agentft.evaluation.noninferiority.CORRECTION", 0.0)
    assert no_worse_p(*pairs(0, 1, 44), 0.1) == pytest.approx(stats.norm.sf(1.709), abs=1e-4)


@pytest.mark.parametrize("margin", [0.01, 0.02, 0.05, 0.1, 0.2])
@pytest.mark.parametrize("n", [5, 12, 25])
@pytest.mark.slow
def test_an_arm_that_is_worse_by_the_margin_passes_in_at_most_5_percent(n: int, margin: float) -> None:
    """Exactly: the probabilities of all tables that pass, for many shares of discordant pairs."""
    tables = [(wins, losses) for wins in range(n + 1) for losses in range(n + 1 - wins)]
    passing = np.array([table for table in tables if no_worse_p(*pairs(*table, n), margin) < 1 - CONFIDENCE])
    if not len(passing):
        return
    wins, losses = passing.T
    ties = n - wins - losses
    ways = special.gammaln(n + 1) - sum(special.gammaln(part + 1) for part in (wins, losses, ties))
    for share in np.linspace(margin, 1, 97):
        up, down = (share - margin) / 2, (share + margin) / 2
        logs = special.xlogy(wins, up) + special.xlogy(losses, down) + special.xlogy(ties, 1 - share)
        assert np.exp(ways + logs).sum() <= 0.0501


def test_the_test_with_many_cases_continues_the_exact_one() -> None:
    for wins, losses in [(0, 0), (5, 5), (10, 16)]:
        exact, normal = (no_worse_p(*pairs(wins, losses, n), 0.05) for n in (EXACT_CASES, EXACT_CASES + 1))
        assert exact == pytest.approx(normal, rel=0.5)
        assert exact <= normal  # the correction makes it careful


def test_the_confidence_is_95_percent_and_250_cases_are_exact() -> None:
    assert (CONFIDENCE, EXACT_CASES) == (0.95, 250)


def test_one_case_shows_nothing() -> None:
    assert no_worse_p([1.0], [0.0], 0.5) > 0.05
    assert no_worse_p([1.0], [1.0], 0.5) > 0.05


def test_equal_arms_pass_only_with_enough_cases() -> None:
    assert no_worse_p(*pairs(0, 0, 148), 0.02) > 0.05 > no_worse_p(*pairs(0, 0, 149), 0.02)


def test_with_a_margin_of_0_the_first_arm_must_be_better() -> None:
    assert no_worse_p(*pairs(0, 0, 100), 0) == 1.0
    assert no_worse_p(*pairs(10, 0, 100), 0) < 0.01
    assert no_worse_p(*pairs(0, 10, 100), 0) > 0.99


def test_graded_values_get_students_test() -> None:
    first, second = [0.5, 0.8, 0.9, 0.4], [0.6, 0.7, 0.9, 0.5]
    expected = stats.ttest_1samp(np.subtract(first, second), -0.2, alternative="greater").pvalue
    assert no_worse_p(first, second, 0.2) == pytest.approx(expected)
    assert no_worse_p([0.5], [0.25], 0.2) == 1.0
    assert no_worse_p([0.5] * 10, [0.25] * 10, 0.2) == 0.0
    assert no_worse_p([0.25] * 10, [0.5] * 10, 0.2) == 1.0
    assert no_worse_p([0.25] * 10, [0.5] * 10, 0.25) == 1.0
    assert no_worse_p([0.5] * 10, [0.5] * 10, 0.02) == no_worse_p(*pairs(0, 0, 10), 0.02)


def test_without_cases_nothing_is_shown() -> None:
    assert no_worse_p([], [], 0.5) == 1.0
    assert no_worse_ratio_p([], [], 0.5) == 1.0
    assert no_worse_ratio_p([(1, 1)], [(0, 0)], 0.5) == no_worse_ratio_p([(0, 0)], [(1, 1)], 0.5) == 1.0


def test_ratios_are_resampled_by_case() -> None:
    equal = [(1, 1), (0, 1), (2, 3)] * 20
    assert no_worse_ratio_p(equal, equal, 0.05) == pytest.approx(1 / 2001)
    assert no_worse_ratio_p([(0, 1)] * 20, [(1, 1)] * 20, 0.05) == 1.0
    assert no_worse_ratio_p([(1, 2)] * 20, [(3, 4)] * 20, 0.25) == 1.0  # worse by exactly the margin
    half, more = [(1, 1), (0, 1)] * 50, [(1, 1), (0, 1)] * 45 + [(1, 1)] * 10
    assert 0.05 < no_worse_ratio_p(half, more, 0.05) < 0.95
