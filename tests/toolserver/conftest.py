"""A running server, and a raw HTTP client that can send what ToolClient never would."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import httpx
import pytest

from agentft.toolserver import ToolClient, ToolServer
from agentft.toolset import Toolset, load_toolset, load_toolsets

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
GATED_WORLD = '''
from agentft.toolset import write
BASE_URL = "http://gated.test"
GATED = []

@write
def wait(state):
    """Wait until the gate is open, and count the calls of the session."""
    GATED[0].inside.append(1)
    GATED[0].gate.wait(300)
    state["calls"] = state.get("calls", 0) + 1
    return state["calls"]
'''


class Gated(NamedTuple):
    """A world whose tool `wait` returns once the gate is open, and a list with an entry for each call that began."""

    world: Toolset
    gate: Event
    inside: list[Any]


@pytest.fixture(scope="module")
def broken_world(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("worlds") / "broken"
    folder.mkdir()
    (folder / "tools.py").write_text(BROKEN_WORLD, encoding="utf-8")
    (folder / "state.json").write_text("{}", encoding="utf-8")
    return str(folder)


@pytest.fixture
def gated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gated]:
    folder = tmp_path_factory.mktemp("gated")
    (folder / "tools.py").write_text(GATED_WORLD, encoding="utf-8")
    (folder / "state.json").write_text("{}", encoding="utf-8")
    world = load_toolset(str(folder))
    made = Gated(world, Event(), [])
    vars(sys.modules[world.tools["wait"].handler.__module__])["GATED"].append(made)
    yield made
    made.gate.set()


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
    with httpx.Client(base_url=server.address, headers=headers, trust_env=False, timeout=60) as raw:
        yield raw
