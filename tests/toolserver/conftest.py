"""A running server, and a raw HTTP client that can send what ToolClient never would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from agentft.toolserver import ToolClient, ToolServer
from agentft.toolset import load_toolsets

BROKEN_WORLD = '''
from time import sleep
from agentft.toolset import read
BASE_URL = "http://broken.test/v1"

@read
def crash(state):
    """Crash."""
    raise KeyError("a secret")

@read
def slow(state, seconds: float):
    """Sleep."""
    sleep(seconds)
    return {}
'''


@pytest.fixture(scope="module")
def broken_world(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("worlds") / "broken"
    folder.mkdir()
    (folder / "tools.py").write_text(BROKEN_WORLD, encoding="utf-8")
    (folder / "state.json").write_text("{}", encoding="utf-8")
    return str(folder)


@pytest.fixture(scope="module")
def guest_world() -> str:
    return str(Path(__file__).parent.parent / "toolset" / "fixture_world")


@pytest.fixture(scope="module")
def server(broken_world: str, guest_world: str) -> Iterator[ToolServer]:
    worlds = ["weather", "search", "calculator", broken_world, guest_world]
    with ToolServer(load_toolsets(worlds, seed=5)) as running:
        yield running


@pytest.fixture
def client(server: ToolServer) -> Iterator[ToolClient]:
    with server.client() as made:
        yield made


@pytest.fixture
def http(server: ToolServer) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {server.token}"}
    with httpx.Client(base_url=server.address, headers=headers, trust_env=False) as raw:
        yield raw
