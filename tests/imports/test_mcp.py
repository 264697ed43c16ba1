"""The tools of an MCP server: each is imported as it is described, or refused without the others."""

from __future__ import annotations

import gzip
import io
import json
import logging
import sys
import tracemalloc
from contextlib import nullcontext, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from agentft.commands import run
from agentft.errors import ToolError
from agentft.toolset import load_toolset
from agentft.toolset.arguments import ArgumentCheck

SERVER = Path(__file__).parent / "mcp_server.py"
OBJECT: Any = {"type": "object", "properties": {"a": {"type": "integer"}}}
BAD: list[Any] = [
    {"anyOf": [{"type": "object"}]},
    {},
    None,
    [],
    {"type": "array"},
    {"type": "string"},
    {"type": "object", "required": "a"},
    {"type": "object", "properties": {"a": {}, "required": ["a"]}},
    {"type": "object", "properties": {"a": {"$ref": "#/$defs/gone"}}},
]


def import_tools(tools: Any, folder: Path, *more: str) -> int:
    listed = folder / "listed.json"
    listed.write_text(json.dumps(tools), encoding="utf-8")
    command = f"env MODE=S3CRET {sys.executable} {SERVER} --token S3CRET {listed}"
    return run(["tools", "import", "mcp", command, "--output", str(folder / "w"), *more])


def test_one_bad_tool_does_not_take_the_others_down(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bad = [{"name": f"bad{number}", "inputSchema": schema} for number, schema in enumerate(BAD)]
    odd: list[Any] = [7, {"inputSchema": OBJECT}, {"name": "good", "inputSchema": OBJECT}, {"name": "none"}]
    assert import_tools([*bad, {"name": "good", "inputSchema": OBJECT}, *odd], tmp_path, "--json") == 0
    refused = {note["place"]: note["reason"] for note in json.loads(capsys.readouterr().out)["refused"]}
    places = [*(f"tools/{len(BAD) + more}" for more in (1, 2)), "good", "none"]
    assert list(refused) == [*(f"bad{number}" for number in range(len(BAD))), *places]
    assert not any("pydantic" in reason or "\n" in reason for reason in refused.values())
    assert 'whose `type` is "object"' in refused["bad0"]
    assert set(load_toolset(str(tmp_path / "w")).tools) == {"good", "key"}
    assert import_tools({}, tmp_path / "w") == 2
    error = capsys.readouterr().err
    assert "nothing can be imported; the first of 1: tools/0" in error
    assert "S3CRET" not in error


OLD: dict[str, Any] = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "properties": {
        "share": {"type": "number", "minimum": 0, "exclusiveMinimum": True, "maximum": 1, "exclusiveMaximum": False},
        "span": {
            "type": "array",
            "items": [{"type": "integer"}, {"$ref": "#/definitions/end"}],
            "additionalItems": False,
        },
        "items": {"type": "string"},
        "card": {"type": "string"},
    },
    "dependencies": {"card": ["share"], "items": {"required": ["span"]}},
    "definitions": {"end": {"type": "integer", "minimum": 5}},
}


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        ({"share": 0.5}, True),
        ({"share": 1}, True),
        ({"share": 0}, False),
        ({"span": [1, 5]}, True),
        ({"span": [1, 4]}, False),
        ({"span": [1, 5, 6]}, False),
        ({"card": "c", "share": 1}, True),
        ({"card": "c"}, False),
        ({"items": "i", "span": []}, True),
        ({"items": "i"}, False),
    ],
)
def test_older_drafts_keep_their_meaning(arguments: dict[str, Any], accepted: bool, tmp_path: Path) -> None:
    assert import_tools([{"name": "t", "inputSchema": OLD}], tmp_path) == 0
    told = (tmp_path / "w" / "README.md").read_text()
    assert "now as in JSON Schema 2020-12: dependencies, exclusiveMaximum, exclusiveMinimum, items" in told
    with nullcontext() if accepted else pytest.raises(ToolError):
        ArgumentCheck(load_toolset(str(tmp_path / "w")).tools["t"].definition)(arguments)


OLDEST = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "required": True},
        "m": {"type": "string", "required": False, "pattern": "^\\p{L}+$"},
        "o": {"$ref": "#p"},
        "required": {"type": "boolean"},
        "q": {"type": "object", "properties": []},
    },
    "required": ["o"],
    "definitions": {"P": {"$id": "#p", "type": "integer", "default": None}},
}


@pytest.mark.parametrize(
    ("arguments", "accepted"),
    [
        ({"n": -1, "o": 1, "m": "é"}, True),
        ({"o": 1}, False),
        ({"n": 1}, False),
        ({"n": 1, "o": "a"}, False),
        ({"n": 1, "o": 1, "m": "1"}, False),
        ({"n": 1, "o": 1, "q": {"a": 1}, "required": True}, True),
    ],
)
def test_what_only_the_oldest_drafts_allow_is_read_or_told(
    arguments: dict[str, Any], accepted: bool, tmp_path: Path
) -> None:
    assert import_tools([{"name": "old", "inputSchema": OLDEST}], tmp_path) == 0
    told = (tmp_path / "w" / "README.md").read_text()
    assert "now as in JSON Schema 2020-12: $id, properties, required" in told
    check = load_toolset(str(tmp_path / "w")).tools["old"].check
    with nullcontext() if accepted else pytest.raises(ToolError):
        check(arguments)


def test_references_to_items_of_tuples_and_by_ids_are_followed(tmp_path: Path) -> None:
    pair = {"type": "array", "items": [{"type": "integer"}, {"$ref": "#/properties/pair/items/0"}]}
    tree = {"$id": "http://x.test/tree", "type": "object", "properties": {"node": {"$ref": "node"}}}
    tree["$defs"] = {"node": {"$id": "http://x.test/node", "type": "object", "properties": {"tree": {"$ref": "tree"}}}}
    tools = [
        {"name": "tuple", "inputSchema": {"type": "object", "properties": {"pair": pair}}},
        {"name": "tree", "inputSchema": tree},
    ]
    assert import_tools(tools, tmp_path) == 0
    made = load_toolset(str(tmp_path / "w")).tools
    made["tuple"].check({"pair": [1, 2]})
    made["tree"].check({"node": {"tree": {"node": {}}}})
    with pytest.raises(ToolError, match="integer"):
        made["tuple"].check({"pair": [1, "x"]})
    with pytest.raises(ToolError, match="object"):
        made["tree"].check({"node": {"tree": 1}})


def test_nulls_of_what_was_left_out_are_dropped(tmp_path: Path) -> None:
    inner = {"type": "string", "enum": ["a", None], "default": None, "items": None}
    tools = [
        {"name": "none", "inputSchema": {"type": "object", "properties": None, "required": None}},
        {"name": "some", "inputSchema": {"type": "object", "properties": {"x": inner}, "required": None}},
    ]
    assert import_tools(tools, tmp_path) == 0
    made = load_toolset(str(tmp_path / "w")).tools
    kept = {"type": "string", "enum": ["a", None], "default": None}
    assert made["none"].definition.parameters == {"type": "object"}
    assert made["some"].definition.parameters == {"type": "object", "properties": {"x": kept}}
    assert "`none`: now as in JSON Schema 2020-12: properties, required" in (tmp_path / "w" / "README.md").read_text()


def test_a_list_ends_where_a_page_is_repeated(tmp_path: Path) -> None:
    assert import_tools({"tools": [{"name": "one", "inputSchema": OBJECT}], "nextCursor": ""}, tmp_path) == 0
    assert [*load_toolset(str(tmp_path / "w")).tools] == ["one"]
    assert "Refused: 0. Adapted: 0." in (tmp_path / "w" / "README.md").read_text(encoding="utf-8")


def test_descriptions_are_kept_whole(tmp_path: Path) -> None:
    texts = ["Show <revision>:<path>", "Rows where a < b\nand c > d.", "Word " * 70 + "Only in allowed directories."]
    tools = [{"name": f"t{number}", "description": text, "inputSchema": OBJECT} for number, text in enumerate(texts)]
    assert import_tools(tools, tmp_path) == 0
    made = load_toolset(str(tmp_path / "w")).definitions
    assert [tool.description for tool in made] == [*texts, "Key: None"]


def test_an_imported_tool_is_called_in_the_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert import_tools([{"name": "count", "inputSchema": OBJECT}], tmp_path) == 0
    (endpoint,) = load_toolset(str(tmp_path / "w")).definitions[0].endpoints
    call = json.dumps({"api_name": "count", "url": endpoint, "parameters": {"a": 3}})
    answers = {"*/0/0": f"<|startofthink|>```JSON\n{call}\n```<|endofthink|>", "*/0/1": "Counted."}
    lines = [json.dumps({"key": key, "text": text}) + "\n" for key, text in answers.items()]
    (tmp_path / "answers.jsonl").write_text("".join(lines), encoding="utf-8")
    capsys.readouterr()
    monkeypatch.setattr(sys, "stdin", io.StringIO("Count to 3.\n"))
    assert run(["chat", "--model", f"scripted:{tmp_path / 'answers.jsonl'}", "--tools", str(tmp_path / "w")]) == 0
    captured = capsys.readouterr()
    assert captured.out == "Counted.\n"
    assert "⚙ 1 count" in captured.err
    assert "· 200 ·" in captured.err


@pytest.mark.parametrize(
    ("body", "packed", "message"),
    [
        (b'{"hello": 1}', False, "no tool list: its answers do not follow the protocol\n"),
        (b"Sign in", False, "no tool list: the server answers 401: it wants a login, and agentft has none; "),
        (gzip.compress(b"{" + b" " * 2**20 * 20 + b"}", mtime=0), True, "the server compresses its answers"),
        (b"{" + b" " * 2**20 * 17 + b"}", False, "the server's answer is larger than 16 MiB"),
    ],
)
def test_an_answer_over_http_is_read_within_bounds_or_told(
    body: bytes, packed: bool, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(401 if body == b"Sign in" else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if packed:
                self.send_header("Content-Encoding", "gzip")
            self.end_headers()
            with suppress(OSError):  # the client does not read all of it
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        try:
            address = f"http://127.0.0.1:{server.server_port}/mcp"
            assert run(["tools", "import", "mcp", address, "--output", str(tmp_path / "w")]) == 2
        finally:
            server.shutdown()
    assert message in capsys.readouterr().err


def test_variables_for_a_url_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    address = "http://127.0.0.1:9/mcp?api_key=S3CRET"
    command = ["tools", "import", "mcp", address, "--env", "A=S3CRET", "--output", str(tmp_path / "w")]
    assert run(command) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "--env sets variables of a command, not of a URL; omit --env" in error
    assert "S3CRET" not in error


@pytest.mark.parametrize("given", ["MY_API_KEY", "MY_API_KEY=abc"])
def test_the_server_gets_the_named_variables_and_no_file_keeps_a_credential(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MY_API_KEY", "abc")
    assert import_tools([], tmp_path, "--env", given) == 0
    assert load_toolset(str(tmp_path / "w")).definitions[0].description == "Key: abc"
    assert all("S3CRET" not in path.read_text() for path in (tmp_path / "w").iterdir())
    monkeypatch.delenv("MY_API_KEY")
    assert import_tools([], tmp_path / "w", "--env", "MY_API_KEY") == 2
    assert "--env MY_API_KEY: the variable is not set; set it" in capsys.readouterr().err


def test_a_credential_that_a_server_lists_is_in_no_file(tmp_path: Path) -> None:
    default = {"type": "object", "properties": {"a": {"type": "string", "default": "hunter-two"}}}
    more = ["--env", "MY_API_KEY=hunter-two", "--env", "MODE=plain text"]
    assert import_tools([{"name": "good", "inputSchema": default, "description": "plain text"}], tmp_path, *more) == 0
    written = (tmp_path / "w" / "tools.json").read_text()
    assert "hunter" not in written
    assert "Key: [redacted]" in written
    assert "plain text" in written


def test_what_a_server_prints_and_logs_is_not_shown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "listed.json").write_text("[]")
    loud = tmp_path / "loud.py"
    said = "print('ready', flush=True)\nprint('\\x1b[2Jlogged', file=sys.stderr, flush=True)"
    loud.write_text(SERVER.read_text(encoding="utf-8").replace("\n\nTOOLS", f"\n\n{said}\nTOOLS"))
    command = f"{sys.executable} {loud} {tmp_path / 'listed.json'}"
    assert run(["tools", "import", "mcp", command, "--output", str(tmp_path / "w")]) == 0
    shown = capfd.readouterr().err
    assert "Traceback" not in shown
    assert "logged" not in shown
    assert all(logging.getLogger(name).handlers for name in ("mcp", "client")), "else Python prints the SDK's warnings"


def test_of_a_long_log_only_the_end_is_kept(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failing = tmp_path / "failing.py"
    failing.write_text("import sys\nfor _ in range(2000): print('x' * 5000, file=sys.stderr)\nsys.exit('no key')")
    tracemalloc.start()
    assert run(["tools", "import", "mcp", f"{sys.executable} {failing}", "--output", str(tmp_path / "w")]) == 2
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "(it wrote: no key)" in capfd.readouterr().err.replace("\n", " ")
    assert peak < 8 << 20


def test_a_server_that_fails_is_quoted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    failing = tmp_path / "failing.py"
    failing.write_text("import sys\nsys.exit('\\x1b[2JAPI_KEY is not set\\n')")
    assert run(["tools", "import", "mcp", f"{sys.executable} {failing}", "--output", str(tmp_path / "w")]) == 2
    shown = capfd.readouterr().err
    assert "API_KEY is not set); if it needs environment variables" in shown.replace("\n", " ")
    assert "\x1b" not in shown


@pytest.mark.parametrize(
    ("log", "shown"),
    [
        (
            "npm error code E404\nnpm error 404 Not Found - GET http://r.test/none\nnpm error A complete log is in: x",
            "(it wrote: npm error code E404 npm error 404 Not Found - GET http://r.test/none npm",
        ),
        ("started\nError: old\nTypeError: no host {\n  errno: -1,\n}", "(it wrote: TypeError: no host { errno: -1, })"),
        (
            "SettingsError: 1 missing\napi_key\n  Field required",
            "(it wrote: SettingsError: 1 missing api_key ",
        ),
        ("Error: " + "x" * 275 + " secret-value-of-length", "xx [redacted])"),
    ],
    ids=["npm", "node", "pydantic", "a credential at the cut"],
)
def test_of_a_failing_servers_log_the_error_is_quoted(
    log: str, shown: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = tmp_path / "failing.py"
    failing.write_text(f"import sys\nsys.exit({log!r})")
    more = ["--env", "API_KEY=secret-value-of-length", "--output", str(tmp_path / "w")]
    assert run(["tools", "import", "mcp", f"{sys.executable} {failing}", *more]) == 2
    assert shown in capsys.readouterr().err


def test_what_a_server_writes_of_its_credentials_is_not_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = tmp_path / "dies.py"
    script.write_text('import os, sys\nsys.exit(f\'no: {os.environ["ONE"]} {os.environ["TWO"]} {sys.argv[2:]}\')')
    monkeypatch.setenv("TWO", "secret-two")
    command = f"env MODE=secret-zero {sys.executable} {script} --token 'secret-three'"
    more = ["--env", "ONE=secret-one", "--env", "TWO", "--output", str(tmp_path / "w")]
    assert run(["tools", "import", "mcp", command, *more]) == 2
    said = capsys.readouterr().err
    assert "it wrote: no: [redacted] [redacted] ['[redacted]']" in said
    assert "secret" not in said
