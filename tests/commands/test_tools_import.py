"""`agentft tools import`: a file becomes a working world, and nothing is fetched or read without its flag."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from agentft.commands import run
from agentft.toolset import load_toolset
from agentft.types import Json

SPEC = """
openapi: 3.1.0
paths:
  /a: {get: {parameters: [{$ref: "parts/p.yaml#/P"}], responses: {}}}
  /b: {get: {responses: {}}}
"""
PART = "P: {name: q, in: query, schema: {type: integer}}\n"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    (tmp_path / "api" / "parts").mkdir(parents=True)
    (tmp_path / "api" / "spec.yaml").write_text(SPEC, encoding="utf-8")
    (tmp_path / "api" / "parts" / "p.yaml").write_text(PART, encoding="utf-8")
    return tmp_path / "api" / "spec.yaml"


class Files(BaseHTTPRequestHandler):
    """Serves the two files, a redirect and nothing else."""

    def do_GET(self) -> None:
        body = {"/spec.yaml": SPEC, "/parts/p.yaml": PART}.get(self.path, "")
        self.send_response(302 if self.path == "/moved" else 200 if body else 404)
        self.send_header("Location", "/spec.yaml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        """Be quiet."""


@pytest.fixture
def address() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_a_file_becomes_a_world(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "world"
    assert run(["tools", "import", "openapi", str(spec), "--output", str(folder)]) == 0
    shown, notes = capsys.readouterr()
    assert "1 tool (1 read)" in shown
    assert f"next: agentft tools show {folder}\n" in notes
    assert "refused #/paths/~1a/get/parameters/0: the reference 'parts/p.yaml#/P' leads to another document" in shown
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "state.json", "tools.json"]
    assert list(load_toolset(str(folder)).tools) == ["get_b"]
    assert run(["tools", "show", str(folder)]) == 0
    assert run(["tools", "import", "openapi", str(spec), "--output", str(folder)]) == 2
    assert "remove it, or choose another --output" in capsys.readouterr().err


def test_references_to_other_files_need_a_flag(spec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ["tools", "import", "openapi", str(spec), "--output", str(tmp_path / "w"), "--allow-refs", "--json"]
    assert run(done) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["tools"], report["access"], report["refused"]) == (2, {"read": 2}, [])
    assert load_toolset(str(tmp_path / "w")).tools["get_a"].check.names == ("q",)


@pytest.mark.parametrize(
    "reference", ["../secret.yaml", "/etc/passwd", "file:///etc/passwd", "parts/link.yaml", "http://127.0.0.1:1/x"]
)
def test_references_do_not_leave_the_folder(
    spec: Path, tmp_path: Path, reference: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "secret.yaml").write_text(PART, encoding="utf-8")
    (spec.parent / "parts" / "link.yaml").symlink_to(tmp_path / "secret.yaml")
    spec.write_text(SPEC.replace("parts/p.yaml", reference), encoding="utf-8")
    arguments = ["tools", "import", "openapi", str(spec), "--output", str(tmp_path / "w"), "--allow-refs", "--json"]
    assert run(arguments) == 0
    (refusal,) = json.loads(capsys.readouterr().out)["refused"]
    assert "is neither below" in refusal["reason"]


def test_an_address_is_fetched_only_with_its_flag(
    address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["tools", "import", "openapi", f"{address}/spec.yaml", "--output", str(tmp_path / "w")]
    assert run(arguments) == 2
    assert "pass --allow-url to fetch it" in capsys.readouterr().err
    assert run([*arguments, "--allow-url", "--allow-refs"]) == 0
    assert len(load_toolset(str(tmp_path / "w")).tools) == 2
    for path, message in (("/moved", "answers 302 to '/spec.yaml'"), ("/gone", "answers 404")):
        assert run([*arguments[:3], address + path, *arguments[4:], "--allow-url"]) == 2
        assert message in capsys.readouterr().err


def test_an_address_that_does_not_respond_is_one_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = "http://127.0.0.1:9/spec.yaml"
    assert run(["tools", "import", "openapi", url, "--output", str(tmp_path / "w"), "--allow-url"]) == 2
    assert "cannot be fetched" in capsys.readouterr().err


def test_traffic_becomes_a_world(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = {"tool": "ping", "arguments": {"n": 1}, "status": 200, "body": "pong"}
    (tmp_path / "t.jsonl").write_text(json.dumps(line), encoding="utf-8")
    assert run(["tools", "import", "traffic", str(tmp_path / "t.jsonl"), "--output", str(tmp_path / "w")]) == 0
    assert "1 tool (1 write)" in capsys.readouterr().out
    world = load_toolset(str(tmp_path / "w"))
    assert world.call("ping", {"n": 1}, world.new_state()) == "pong"
    again = ["tools", "import", "traffic", str(tmp_path / "t.jsonl"), "--output", str(tmp_path / "u"), "--json"]
    capsys.readouterr()
    assert run(again) == 0
    assert json.loads(capsys.readouterr().out)["output"] == str(tmp_path / "u")
    assert run(["tools", "import", "traffic", str(tmp_path / "no.jsonl"), "--output", str(tmp_path / "v")]) == 2
    assert "cannot be read (No such file or directory)" in capsys.readouterr().err


def test_one_bad_tool_of_an_mcp_server_is_refused_and_renamed_tools_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    count: dict[str, Json] = {"type": "object", "properties": {"n": {"$ref": "#/$defs/N"}}, "required": ["n"]}
    count["$defs"] = {"N": {"type": "integer", "minimum": 7}}
    tools: list[tuple[str, Json]] = [
        ("a b", count),
        ("a-b", {"type": "object"}),
        ("odd", {"type": 3}),
        ("gone", {"$ref": "#/x"}),
    ]

    async def listed(*_: object) -> tuple[list[Json], bool]:
        return [{"name": name, "inputSchema": schema} for name, schema in tools], False

    monkeypatch.setattr("agentft.imports.mcp.list_tools", listed)
    assert run(["tools", "import", "mcp", "any", "--output", str(tmp_path / "w"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [item["place"] for item in report["refused"]] == ["odd", "gone"]
    assert report["adapted"] == 1
    assert "more than 100 pages of tools" in (tmp_path / "w" / "README.md").read_text(encoding="utf-8")
    world = load_toolset(str(tmp_path / "w"))
    first, second = world.tools.values()
    assert (first.definition.name, second.definition.name[:4]) == ("a_b", "a_b_")
    assert first.definition.parameters == count
    assert isinstance(first.example["n"], int)
    assert first.example["n"] >= 7
    assert "`a_b` (write): `a b`" in (tmp_path / "w" / "README.md").read_text(encoding="utf-8")
