"""A chat whose tools are those of an MCP server, called for real."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from concurrent.futures import CancelledError
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from agentft.commands import chat, run
from agentft.errors import InputError, ToolError
from agentft.models import Sampling
from agentft.models.scripted import ScriptedModel
from agentft.repl.gate import CallGate
from agentft.repl.mcp import McpService
from agentft.repl.session import Session
from agentft.repl.store import StoredSession
from agentft.toolserver import ToolServer
from agentft.toolset import Toolset, load_toolset, load_toolsets
from agentft.types import Json
from tests.imports.test_mcp import OBJECT, SERVER
from tests.repl.stage import Stage

TOOLS: list[Any] = [
    {"name": "note it", "inputSchema": OBJECT, "annotations": {"readOnlyHint": True}},
    {"name": "wipe", "inputSchema": {"type": "object"}, "annotations": {"destructiveHint": True}},
]


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Toolset, Path]:
    """The server's command, the world that was imported from it, and the file of the calls that it got."""
    folder = tmp_path_factory.mktemp("mcp")
    (folder / "listed.json").write_text(json.dumps(TOOLS), encoding="utf-8")
    command = f"{sys.executable} {SERVER} {folder / 'listed.json'}"
    assert run(["tools", "import", "mcp", command, "--output", str(folder / "real")]) == 0
    return command, load_toolset(str(folder / "real")), folder / "calls.jsonl"


@pytest.fixture(scope="module")
def service(imported: tuple[str, Toolset, Path]) -> Iterator[McpService]:
    made = McpService(imported[0], [imported[1], *load_toolsets(["weather"])])
    yield made
    made.close()


def calls(path: Path) -> list[Any]:
    """The calls that the server has got; they are forgotten."""
    got = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    path.unlink(missing_ok=True)
    return got


def test_a_call_is_sent_after_a_yes_and_not_after_a_no(
    service: McpService, imported: tuple[str, Toolset, Path]
) -> None:
    _, world, got = imported
    note = world.tools["note_it"].definition
    call = json.dumps({"api_name": "note_it", "url": note.endpoints[0], "parameters": {"a": 4}})
    answers = {"*/0/0": f"<|startofthink|>```JSON\n{call}\n```<|endofthink|>", "*/0/1": "Well."}
    for said, sent, shown in (("y", [["note it", {"a": 4}]], "note_it 4 · 200"), ("n", [], "note_it 4 · not sent")):
        stage = Stage(["note 4", said], {})
        with ToolServer([world], source=service) as server:
            gate = CallGate(server.client(), approve="always")
            stage.session = Session(ScriptedModel(answers), gate, Sampling(), (note,))
            stage.run()
            server._service._source = None  # another test uses it
        assert calls(got) == sent
        assert shown in stage.shown
        received = stage.session.rounds[0].steps[0].exchanges[0].received
        assert received == ("done: note it" if sent else '{"error": "the user did not allow this call"}')
        assert "but not what its calls changed" in Stage(["note 4", "/undo"], {"*": "Well."}).run().noted


def test_what_the_server_answers(service: McpService, imported: tuple[str, Toolset, Path]) -> None:
    _, world, got = imported
    assert service("current_weather", {"city": "Oslo"}, "s") is None
    done, failed = service("wipe", {"x": 1}, "s"), service("wipe", {"fail": 1}, "s")
    assert done is not None
    assert failed is not None
    assert (done.status, done.body, done.type) == (200, "done: wipe", "text/plain")
    assert (failed.status, failed.body) == (422, {"error": "done: wipe"})
    with pytest.raises(ToolError):
        service("note_it", {"a": "four"}, "s")
    assert calls(got) == [["wipe", {"x": 1}], ["wipe", {"fail": 1}]]
    assert {name: tool.access for name, tool in world.tools.items()} == {
        "note_it": "read",
        "wipe": "destructive",
        "key": "write",
    }


@pytest.mark.parametrize(
    ("content", "more", "body"),
    [
        (
            [{"type": "resource", "resource": {"uri": "repo://a.md", "mimeType": "text/plain", "text": "# A"}}],
            {},
            "# A",
        ),
        ([{"type": "resource", "resource": {"uri": "repo://a.png", "blob": "AAAA"}}], {}, "repo://a.png"),
        ([{"type": "resource_link", "uri": "repo://a.md", "name": "a"}], {}, "repo://a.md"),
        ([{"type": "image", "data": "AAAA", "mimeType": "image/png"}], {}, "[image]"),
        ([], {"structuredContent": {"a": 1}}, {"a": 1}),
        ([], {"structuredContent": {"a": 1}, "isError": True}, {"error": {"a": 1}}),
    ],
)
def test_what_a_result_holds(
    service: McpService, imported: tuple[str, Toolset, Path], content: Json, more: Json, body: Json
) -> None:
    made = service("wipe", {"content": content, "more": more}, "s")
    assert made is not None
    assert made.body == body
    calls(imported[2])


def test_the_credentials_of_a_server_are_in_no_result(imported: tuple[str, Toolset, Path]) -> None:
    command = imported[0].replace(".py ", ".py --token hunter-two ", 1)
    service = McpService(command, [imported[1]], ["MY_API_KEY=hunter-three"])
    told: list[Json] = [{"type": "text", "text": "hunter-two, which was sent"}]
    more: Json = {"structuredContent": {"a": ["hunter-two"]}}
    for arguments in (dict[str, Json](content=told), dict[str, Json](content=told, more=more)):
        made = service("wipe", arguments, "s")
        assert made is not None
        assert made.body in ("[redacted], which was sent", {"a": ["[redacted]"]})
    made = service("key", {}, "s")
    assert made is not None
    assert made.body == "Key: [redacted]"
    service.close()
    calls(imported[2])


def test_a_result_that_does_not_follow_the_protocol_is_told_in_a_sentence(
    service: McpService, imported: tuple[str, Toolset, Path]
) -> None:
    odd: list[dict[str, Json]] = [
        {"content": "text"},
        {"content": [{"type": "hologram"}]},
        {"more": {"structuredContent": [1]}},
    ]
    for more in odd:
        made = service("wipe", more, "s")
        assert made is not None
        error = "the MCP server gives no result: its answers do not follow the protocol"
        assert (made.status, made.body) == (502, {"error": error})
    calls(imported[2])


def test_a_command_that_ends_is_the_result_of_the_call_and_starts_again_with_the_next(
    imported: tuple[str, Toolset, Path],
) -> None:
    command, world, got = imported
    mortal = McpService(command, [world])
    try:
        for _ in range(2):
            made = mortal("wipe", {"die": 1}, "s")
            assert made is not None
            assert made.status == 502
            assert "the MCP server gives no result: Connection closed; the next call connects" in json.dumps(made.body)
            made = mortal("wipe", {"x": 1}, "s")
            assert made is not None
            assert (made.status, made.body) == (200, "done: wipe")
    finally:
        mortal.close()
    assert calls(got) == [["wipe", {"die": 1}], ["wipe", {"x": 1}]] * 2


class Forgetful(BaseHTTPRequestHandler):
    """An MCP server over HTTP. It answers messages of sessions that it does not know with `refusal`."""

    protocol_version = "HTTP/1.1"
    refusal: tuple[int, Json] = 404, None
    sessions: ClassVar[list[str]] = []
    calls: ClassVar[list[Json]] = []

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        self.say(404)  # no stream of notifications; many servers say so with this status

    def do_DELETE(self) -> None:
        self.say(200)

    def do_POST(self) -> None:
        message = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        known = self.headers.get("Mcp-Session-Id") in self.sessions
        result: dict[str, Any] = {}
        if message["method"] == "initialize":
            self.sessions.append(f"session-{len(self.calls)}")
            version = message["params"]["protocolVersion"]
            info = {"name": "x", "version": "1"}
            result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": info}
        elif not known:
            return self.say(*self.refusal)
        elif "id" not in message:
            return self.say(202)
        elif message["method"] == "tools/list":
            result = {"tools": TOOLS}
        else:
            self.calls.append(message["params"]["arguments"])
            if "fail" in message["params"]["arguments"]:
                error: Json = {"code": -32000, "message": "your session at the bank is over"}
                return self.say(200, {"jsonrpc": "2.0", "id": message["id"], "error": error})
            result = {"content": [{"type": "text", "text": self.sessions[-1]}]}
        return self.say(200, {"jsonrpc": "2.0", "id": message["id"], "result": result})

    def say(self, status: int, body: Json = None) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Mcp-Session-Id", self.sessions[-1] if self.sessions else "none")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.mark.parametrize(
    "refusal",
    [
        (404, None),
        (404, {"jsonrpc": "2.0", "id": None, "error": {"code": -32001, "message": "Not known"}}),
        (400, {"jsonrpc": "2.0", "id": None, "error": {"code": -32000, "message": "No valid session ID provided"}}),
    ],
)
def test_a_session_that_the_server_has_ended_is_replaced_by_a_new_one(
    imported: tuple[str, Toolset, Path], monkeypatch: pytest.MonkeyPatch, refusal: tuple[int, Json]
) -> None:
    for name, value in (("refusal", refusal), ("sessions", []), ("calls", [])):
        monkeypatch.setattr(Forgetful, name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Forgetful) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        service = McpService(f"http://127.0.0.1:{server.server_port}/mcp", [imported[1]])
        try:
            answers = []
            for number in range(4):
                made = service("wipe", {"x": number}, "s")
                assert made is not None
                answers.append(made.body)
                if number == 1:
                    Forgetful.sessions.clear()
            assert answers == ["session-0", "session-0", "session-2", "session-2"]
            failed = service("wipe", {"fail": 1}, "s")  # a tool's own error is no end of the session
            assert failed is not None
            assert failed.status == 502
            assert Forgetful.calls == [{"x": 0}, {"x": 1}, {"x": 2}, {"x": 3}, {"fail": 1}]
        finally:
            service.close()
            server.shutdown()


@pytest.mark.parametrize("error", [InputError("All connection attempts failed"), CancelledError()])
def test_a_server_that_is_gone_is_left_without_an_error(
    imported: tuple[str, Toolset, Path], error: BaseException
) -> None:
    made = McpService(imported[0], [imported[1]])

    def fail() -> None:
        raise error

    made._open.callback(fail)  # what the SDK ends with when a server at a URL was killed
    made.close()
    calls(imported[2])


def test_other_tools_and_other_servers_are_refused(imported: tuple[str, Toolset, Path]) -> None:
    with pytest.raises(InputError, match="lists none of these tools"):
        McpService(imported[0], load_toolsets(["weather"]))
    with pytest.raises(InputError, match="no tool list"):
        McpService("/no/such/server --token S3CRET", [imported[1]])


def scripted(path: Path, call: str, answer: str) -> str:
    """A model that makes one call, then answers."""
    lines = (("*/0/0", f"<|startofthink|>```JSON\n{call}\n```<|endofthink|>"), ("*/0/1", answer))
    path.write_text("\n".join(json.dumps({"key": key, "text": text}) for key, text in lines))
    return f"scripted:{path}"


def test_nobody_is_asked_on_a_pipe(
    imported: tuple[str, Toolset, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, world, got = imported
    name = str(got.parent / "real")
    call = json.dumps({"api_name": "wipe", "url": world.tools["wipe"].definition.endpoints[0], "parameters": {"b": 2}})
    model = scripted(tmp_path / "a.jsonl", call, "Gone.")
    options = ["chat", "--model", model, "--tools", name, "--mcp", command]
    monkeypatch.setattr(sys, "stdin", io.StringIO("wipe it\n"))
    assert run(options) == 2
    assert "--mcp needs --approve never" in capsys.readouterr().err
    assert run([*options, "--approve", "never"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Gone.\n"
    assert "wipe 2 · 200" in captured.err
    assert calls(got) == [["wipe", {"b": 2}]]


def test_the_server_gets_the_variables_that_are_named(
    imported: tuple[str, Toolset, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command, world, got = imported
    call = json.dumps({"api_name": "key", "url": world.tools["key"].definition.endpoints[0], "parameters": {}})
    model = scripted(tmp_path / "a.jsonl", call, "Done.")
    options = ["chat", "--model", model, "--tools", str(got.parent / "real"), "--json"]
    monkeypatch.setattr(sys, "stdin", io.StringIO("go\n"))
    assert run([*options, "--mcp", command, "--approve", "never", "--env", "MY_API_KEY=s3"]) == 0
    (made,) = json.loads(capsys.readouterr().out)["rounds"][0]["calls"]
    assert made["result"] == "Key: s3"
    calls(got)
    assert run([*options, "--env", "MY_API_KEY=s3"]) == 2
    assert "add --mcp, or omit --env" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("server", "env", "again"),
    [
        ("npx files /data", ["HOME"], False),
        ("npx files /data", None, False),
        ("npx files --token S3CRET", None, True),
        ("npx files /data", ["KEY=S3CRET"], True),
        (None, None, None),
    ],
)
def test_a_resumed_chat_calls_the_same_server(server: str | None, env: list[str] | None, again: bool | None) -> None:
    origin = chat._said(server, env)
    assert "S3CRET" not in json.dumps(origin)
    stored = StoredSession(Path("chat.json"), {"origin": origin})
    if again:
        with pytest.raises(InputError, match="secrets are not stored; name it again with --mcp and --env"):
            stored.server()
    else:
        assert stored.server() == (server, env or [])
