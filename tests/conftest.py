"""Shared by several test folders: the small real model, fetched once into the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from agentft.models.embedded import pull

settings.register_profile(
    "agentft", deadline=None
)  # benches measure speed; under load a deadline would fail for no reason
settings.load_profile("agentft")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that use the small real model as slow; `make test` leaves them out."""
    for item in items:
        if "smollm2_folder" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M, which the first run ever downloads and converts into the cache."""
    return pull("smollm2-135m")
