"""A folder that several tests of commands start in."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.evaluation.world import write_suite, write_world


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the world `shop` and its suite `shopping`."""
    write_suite(tmp_path)
    write_world(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path
