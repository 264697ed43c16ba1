"""Checks that tests of several packages share."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, fields
from typing import Any

import pytest


def assert_immutable(value: Any) -> None:
    """The dataclass instance can neither be changed nor given further attributes."""
    with pytest.raises(FrozenInstanceError):
        setattr(value, fields(value)[0].name, None)
    assert not hasattr(value, "__dict__")
