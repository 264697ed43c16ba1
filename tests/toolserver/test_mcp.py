"""The official MCP client lists and calls every tool of every shipped world, over HTTP and over stdio."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from agentft.commands import run
from agentft.content import content_root
from agentft.toolserver import ToolServer, read_faults, wire
from agentft.toolset import Tool, load_toolsets

WORLDS = sorted(path.parent.name for path in (content_root() / "tools").glob("*/tools.*"))
TOOLSETS = load_toolsets(WORLDS)
TOOLS: dict[str, Tool] = {name: tool for toolset in TOOLSETS for name, tool in toolset.tools.items()}
Use = Callable[[Client], Awaitable[Any]]
Answers = Callable[[str], dict[str, tuple[Any, Any]]]


@pytest.fixture(scope="module")
def server() -> Iterator[ToolServer]:
    with ToolServer(TOOLSETS) as running:
        yield running


def over_http(server: ToolServer, use: Use, token: str | None = None, **headers: str) -> Any:
    async def connect() -> Any:
        bearer = {"Authorization": f"Bearer {token or server.token}"}
        async with (
            httpx2.AsyncClient(headers={**bearer, **headers}, trust_env=False, timeout=60) as http,
            Client(streamable_http_client(f"{server.address}/mcp", http_client=http)) as client,
        ):
            return await use(client)

    return asyncio.run(connect())


def over_stdio(use: Use, worlds: list[str] = WORLDS) -> Any:
    arguments = ["-m", "agentft", "tools", "serve", ",".join(worlds), "--stdio"]

    async def connect() -> Any:
        parameters = StdioServerParameters(command=sys.executable, args=arguments, cwd=Path(__file__).parents[2])
        async with Client(parameters) as client:
            return await use(client)

    return asyncio.run(connect())


async def everything(client: Client) -> dict[str, tuple[Any, Any]]:
    listed = (await client.list_tools()).tools
    return {tool.name: (tool, await client.call_tool(tool.name, dict(TOOLS[tool.name].example))) for tool in listed}


async def readers(client: Client) -> dict[str, tuple[Any, Any]]:
    listed = [tool for tool in (await client.list_tools()).tools if TOOLS[tool.name].access == "read"]
    return {tool.name: (tool, await client.call_tool(tool.name, dict(TOOLS[tool.name].example))) for tool in listed}


def alone(name: str) -> Use:
    async def use(client: Client) -> tuple[Any, Any]:
        listed = {tool.name: tool for tool in (await client.list_tools()).tools}
        return listed[name], await client.call_tool(name, dict(TOOLS[name].example))

    return use


@pytest.fixture(scope="module")
def answers(server: ToolServer) -> Answers:
    @cache
    def over(transport: str) -> dict[str, tuple[Any, Any]]:
        if transport == "stdio":
            found: dict[str, tuple[Any, Any]] = over_stdio(everything)
            return found
        found = over_http(server, readers)
        changing = [name for name, tool in TOOLS.items() if tool.access != "read"]
        return found | {name: over_http(server, alone(name)) for name in changing}

    return over


@pytest.mark.parametrize("transport", ["http", pytest.param("stdio", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", TOOLS)
def test_every_tool_is_listed_and_runs_its_example(answers: Answers, transport: str, name: str) -> None:
    listed, result = answers(transport)[name]
    tool = TOOLS[name]
    assert listed.description == tool.definition.description
    assert listed.input_schema == tool.definition.parameters
    assert listed.annotations.read_only_hint == (tool.access == "read")
    assert listed.annotations.destructive_hint == (tool.access == "destructive")
    # Over stdio all are called in one session, where a tool may have deleted what another one needs.
    assert not result.is_error or (transport == "stdio" and "error" in result.structured_content), result
    assert json.loads(result.content[0].text) == result.structured_content


def test_a_refusal_is_an_error_result(server: ToolServer) -> None:
    async def use(client: Client) -> Any:
        return await client.call_tool("current_weather", {"city": "Nowhere"})

    result = over_http(server, use)
    assert result.is_error
    assert json.loads(result.content[0].text)["error"].startswith("unknown city 'Nowhere'")


def test_each_session_has_its_own_state_unless_it_names_one(server: ToolServer) -> None:
    async def store(client: Client) -> Any:
        return await client.call_tool("store_number", {"name": "mine", "value": 3})

    async def recall(client: Client) -> Any:
        return (await client.call_tool("recall_number", {"name": "mine"})).is_error

    async def both(client: Client) -> Any:
        await store(client)
        return await recall(client)

    assert over_http(server, both) is False
    assert over_http(server, recall) is True
    over_http(server, store, **{"X-Session": "shared"})
    assert over_http(server, recall, **{"X-Session": "shared"}) is False


def test_the_guard_protects_mcp(server: ToolServer) -> None:
    for headers, status in (
        ({}, 401),
        ({"Authorization": f"Bearer {server.token}", "Origin": "http://evil.example"}, 403),
        ({"Authorization": f"Bearer {server.token}", "Host": "evil.example"}, 403),
        ({"Authorization": f"Bearer {server.token}", "Content-Type": "application/json"}, 400),
        ({"Authorization": f"Bearer {server.token}", "MCP-Protocol-Version": "2026-07-28"}, 400),
    ):
        answer = httpx.post(f"{server.address}/mcp", content=b"{}", headers=headers, trust_env=False, timeout=60)
        assert answer.status_code in ({status, 406} if status == 400 else {status}), answer.text


def test_without_the_sdk_the_answer_names_the_remedy(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.toolserver.mcp.find_spec", lambda _: None)
    headers = {"Authorization": f"Bearer {server.token}"}
    answer = httpx.post(f"{server.address}/mcp", headers=headers, trust_env=False, timeout=60)
    assert answer.status_code == 501
    assert "pip install 'mcp>=2.3,<3'" in answer.json()["error"]
    assert run(["tools", "serve", "calculator", "--stdio"]) == 3


@pytest.mark.slow
def test_a_worlds_tools_are_imported_from_its_mcp_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = f"{sys.executable} -m agentft tools serve weather,calculator --stdio"
    assert run(["tools", "import", "mcp", command, "--output", str(tmp_path / "mine")]) == 0
    world = json.loads((tmp_path / "mine" / "tools.json").read_text(encoding="utf-8"))
    assert {tool["name"] for tool in world["tools"]} == {
        name for t in load_toolsets(["weather", "calculator"]) for name in t.tools
    }
    for tool in world["tools"]:
        assert (tool["parameters"], tool["access"]) == (
            TOOLS[tool["name"]].definition.parameters,
            TOOLS[tool["name"]].access,
        )
        TOOLS[tool["name"]].check(tool["example"])
    assert run(["tools", "import", "mcp", command, "--output", str(tmp_path / "mine")]) == 2
    assert "it already holds a tool world" in capsys.readouterr().err


@pytest.mark.parametrize(
    "server", ["/nowhere/at/all --x", "'unclosed", "", "http://127.0.0.1:9/mcp", f"{sys.executable} -c 1"]
)
def test_a_failing_mcp_server_is_a_one_line_error(
    server: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["tools", "import", "mcp", server, "--output", str(tmp_path / "w")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "w").exists()


FAULTS = """
client_seconds = 0.4
[[fault]]
kind = "429"
calls = [1]
[[fault]]
kind = "schema"
calls = [2]
[[fault]]
kind = "timeout"
calls = [3]
seconds = 0.5
after = true
[[fault]]
kind = "truncated"
calls = [4]
"""


@pytest.fixture
def faults(tmp_path: Path) -> Path:
    path = tmp_path / "faults.toml"
    path.write_text(FAULTS)
    return path


async def calculate(client: Client) -> tuple[bool, Any]:
    result: Any = await client.call_tool("calculate", {"expression": "6 * 7"})
    return result.is_error, json.loads(result.content[0].text)


class Hasty(ModuleType):
    """asyncio, whose `sleep` does not wait."""

    def __init__(self) -> None:
        super().__init__("asyncio")
        self.slept: list[float] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def test_faults_apply_to_mcp_and_a_truncated_response_ends_early(faults: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hasty = Hasty()
    monkeypatch.setattr(wire, "asyncio", hasty)

    async def three(client: Client) -> list[Any]:
        return [await calculate(client) for _ in range(3)]

    calculator = load_toolsets(["calculator"])
    with ToolServer(calculator, faults=read_faults(str(faults), calculator)) as running:
        limited, twisted, late = over_http(running, three, **{"X-Session": "mine"})
        with pytest.raises(ExceptionGroup) as caught:
            over_http(running, calculate, **{"X-Session": "mine"})
        after = over_http(running, calculate, **{"X-Session": "mine"})

    assert limited == (True, {"error": "too many requests; try again in 2 seconds"})
    assert twisted == (False, {"expression": ["6 * 7"], "result": "42"})
    assert late == after == (False, {"expression": "6 * 7", "result": 42})
    assert hasty.slept == [0.5]
    assert "without sending complete message body" in str(caught.value.exceptions[0])
