"""What several test folders share: the real small model, fetched once into the user's own cache."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from agentft.models.embedded import pull

settings.register_profile("agentft", deadline=None)  # speed is held by benches: under load a deadline fails by itself
settings.load_profile("agentft")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests that run the real small model as slow; `make test` leaves them out."""
    for item in items:
        if "smollm2_folder" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def smollm2_folder() -> Path:
    """The folder of SmolLM2-135M (converted on the first run ever, then found in the cache)."""
    return pull("smollm2-135m")
