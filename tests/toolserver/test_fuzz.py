"""A small version of `tests/bench/fuzz_server.py`, which sends 100,000."""

from __future__ import annotations

import pytest

from tests.bench.fuzz_server import fuzz


@pytest.mark.slow
def test_mutated_requests_break_nothing() -> None:
    statuses, wrong = fuzz(1500, seed=1)
    assert wrong == []
    assert {"200", "400", "401", "403", "404", "422"} <= set(statuses)
    assert "cut" not in statuses
