"""No import takes quadratic time. `python -m tests.bench.bench_growth --imports` has the exact figures."""

from __future__ import annotations

import gc
import time
from contextlib import suppress
from math import log

import pytest

from agentft.errors import AgentftError
from tests.imports.growth import DESCRIPTIONS, TRAFFIC, read_description, read_traffic

LIMIT = 10.0  # seconds of CPU for a megabyte: quadratic time would be minutes


def seconds(name: str, size: int) -> float:
    made = DESCRIPTIONS[name](size) if name in DESCRIPTIONS else TRAFFIC[name](size)
    gc.disable()  # its searches visit all objects of the tests before
    start = time.process_time()
    try:
        with suppress(AgentftError):
            if isinstance(made, dict):
                read_description(made)
            else:
                read_traffic(made)
    finally:
        gc.enable()
    return time.process_time() - start


@pytest.mark.slow
@pytest.mark.parametrize("name", [*DESCRIPTIONS, *TRAFFIC])
def test_imports_take_linear_time(name: str) -> None:
    before = seconds(name, 100_000)
    assert before < LIMIT / 4
    spent = seconds(name, 1_000_000)
    assert spent < LIMIT
    assert spent < LIMIT / 10 or log(spent / before, 10) < 1.5
