"""What a world's code does to our process: printing, ending it, forking, raising what is no Exception."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentft.commands import run
from agentft.errors import InputError
from agentft.toolserver import ToolServer
from agentft.toolset import HandlerError, load_toolset
from agentft.toolset.containment import foreign_code, stdout_to_stderr
from agentft.types import Span, ToolCall
from tests.evaluation.world import write_suite

WORLD = '''
import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from agentft.errors import ToolError
from agentft.toolset import State, read, write
BASE_URL = "http://shop.test"
print("LOADED")

class Own(BaseException):
    pass

@read
def price(state: State, item: str) -> dict[str, object]:
    """The price of an item.

    Args:
        item: its name.

    Example:
        {"item": "tea"}
    """
    print("\\x1b]0;PWN\\x07PRINTED")
    os.write(1, b"RAW\\n")
    match item:
        case "exit": os._exit(0)
        case "fork": os.fork()
        case "exec": os.execv("/bin/true", ["true"])
        case "chdir": os.chdir("/")
        case "close": os.close(1)
        case "close both": os.closerange(1, 3)
        case "close file": sys.stdout.close()
        case "close own": sys.__stdout__.close()
        case "none": sys.stdout = sys.stderr = None
        case "object": sys.stdout = sys.stderr = object()
        case "pool": ThreadPoolExecutor().submit(time.sleep, 100_000)
        case "keyboard": raise KeyboardInterrupt
        case "generator": raise GeneratorExit
        case "own": raise Own
        case "ctrl-c": signal.raise_signal(signal.SIGINT)
        case "surrogate": return {"s": "\\ud800"}
        case "nan": return {"n": float("nan")}
        case "refused": raise ToolError("\\ud800")
        case "details": raise ToolError("no", what=object())
        case "status": raise ToolError("no", status=200)
    return {"item": item, "price": 2.5}

@write
def order(state: State, item: str, count: int) -> dict[str, object]:
    """Order an item.

    Args:
        item: its name.
        count: how many.

    Example:
        {"item": "tea", "count": 1}
    """
    state["orders"].append(item)
    return {"s": "\\ud800"} if item == "surrogate" else {"item": item}
'''
CLOSING = ["close", "close both", "close file", "close own", "none", "object"]
BUGS = ["exit", "fork", "exec", "chdir", "keyboard", "generator", "own"]
BUGS += ["surrogate", "nan", "refused", "details", "status"]


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "shop"
    folder.mkdir()
    (folder / "tools.py").write_text(WORLD)
    (folder / "state.json").write_text('{"orders": []}')
    (folder / "README.md").write_text("A shop.\n")
    return "./shop"


def test_whatever_a_handler_does_is_its_bug_and_the_server_lives(world: str) -> None:
    pid = os.getpid()
    with ToolServer([load_toolset(world)]) as server:
        for item in BUGS:
            found = server.client().call(ToolCall("c", "price", {"item": item}, Span(0, 0)), "s")
            assert os.getpid() == pid
            assert (found.status, json.loads(found.received)) == (500, {"error": "internal error in tool price"}), item
        assert len(server.crashes) == len(BUGS)
        assert server.client().call(ToolCall("c", "price", {"item": "tea"}, Span(0, 0)), "s").status == 200


def test_a_result_that_cannot_be_sent_leaves_the_state_unchanged(world: str) -> None:
    toolset = load_toolset(world)
    state = toolset.new_state()
    with pytest.raises(HandlerError):
        toolset.call("order", {"item": "surrogate", "count": 1}, state)
    assert state == toolset.new_state()


OWN = "class Own(BaseException): ..."


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "GeneratorExit", "SystemExit", "Own"])
def test_a_file_that_raises_when_it_is_loaded(world: str, error: str) -> None:
    Path(world, "tools.py").write_text(f"{OWN}\nraise {error}")
    modules = set(sys.modules)
    with pytest.raises(InputError, match=rf"tools\.py: line 2: {error}: $"):
        load_toolset(world)
    assert not [name for name in set(sys.modules) - modules if name.startswith("_agentft_world")]


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, also where the tests run in the background and ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_is_no_bug_of_the_world(world: str) -> None:
    toolset = load_toolset(world)
    usual = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        toolset.call("price", {"item": "ctrl-c"}, toolset.new_state())
    assert signal.getsignal(signal.SIGINT) is usual
    assert run(["tools", "call", "./shop.price", '{"item": "ctrl-c"}']) == 130
    Path(world, "tools.py").write_text("import signal\nsignal.raise_signal(signal.SIGINT)")
    with pytest.raises(KeyboardInterrupt):
        load_toolset(world)


@pytest.mark.parametrize("item", ["own", "keyboard", "generator"])
def test_commands_report_what_a_handler_raises(world: str, item: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "call", "./shop.price", json.dumps({"item": item})]) == 2
    assert "internal error in tool price" in "".join(capfd.readouterr())
    source = Path(world, "tools.py")
    source.write_text(source.read_text().replace('{"item": "tea"}', json.dumps({"item": item})))
    assert run(["tools", "check", "./shop", "--json"]) == 1
    printed = capfd.readouterr()
    found = {row["promise"]: row["problem"] for row in json.loads(printed.out)["findings"]["./shop"]}
    assert f'{{"item": "{item}"}} returns 500: ' in found["example"]
    assert "Traceback" not in printed.err


def test_commands_report_what_a_file_raises(world: str, capfd: pytest.CaptureFixture[str]) -> None:
    Path(world, "tools.py").write_text(f"{OWN}\nraise Own")
    assert run(["tools", "call", "./shop.price", "{}"]) == 2
    assert "tools.py: line 2: Own: " in capfd.readouterr().err
    assert run(["tools", "check", "./shop", "--json"]) == 1
    assert "tools.py: line 2: Own: " in json.loads(capfd.readouterr().out)["findings"]["./shop"][0]["problem"]


def test_a_file_that_ends_the_process_when_it_is_loaded(world: str) -> None:
    Path(world, "tools.py").write_text("import os\nos._exit(0)")
    with pytest.raises(InputError, match=r"tools\.py: .*RuntimeError: a tool world may not call os\._exit"):
        load_toolset(world)


def test_outside_of_a_world_fork_is_allowed() -> None:
    with foreign_code():
        pass
    if (child := os.fork()) == 0:
        os._exit(7)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.parametrize(
    "arguments",
    [
        ["eval", "./shopping", "--tools", "./shop", "--model", "scripted", "--output", "out", "--json", "--quiet"],
        ["tools", "call", "./shop.price", '{"item": "tea"}'],
        ["tools", "check", "./shop", "--json"],
    ],
)
def test_json_is_json_although_handlers_print(
    world: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    case: dict[str, Any] = {"id": "a", "category": "single"}
    call = {"name": "price", "arguments": {"item": "tea"}}
    write_suite(tmp_path, [{**case, "turns": [{"user": "Tea?", "calls": [call], "answer": ["2.5"]}]}])
    assert run(arguments) in {0, 1}
    printed = capfd.readouterr()
    assert json.loads(printed.out)
    assert "LOADED" in printed.err
    assert "RAW" in printed.err


def test_what_a_world_prints_at_the_exit_is_no_part_of_the_output(world: str, tmp_path: Path) -> None:
    with Path(world, "tools.py").open("a", encoding="utf-8") as file:
        file.write("import atexit\natexit.register(print, 'GOODBYE')\n")
    program = [sys.executable, "-m", "agentft", "tools", "call", "./shop.price", '{"item": "tea"}']
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout) == {"item": "tea", "price": 2.5}
    assert "GOODBYE" in done.stderr


def test_an_evaluation_whose_handler_ends_the_process_has_a_summary(world: str, tmp_path: Path) -> None:
    call = {"name": "price", "arguments": {"item": "tea"}}
    write_suite(tmp_path, [{"id": "a", "category": "single", "turns": [{"user": "Tea?", "calls": [call]}]}])
    wrong = '<tool_call>\n{"name": "price", "arguments": {"item": "exit"}}\n</tool_call>'
    answers = [{"key": "a/0/0", "text": wrong}, {"key": "a/0/1", "text": "Done."}]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    asked = ["eval", "./shopping", "--tools", "./shop", "--model", "scripted:answers.jsonl", "--format", "hermes"]
    assert run([*asked, "--output", "out", "--quiet"]) == 1
    assert json.loads(Path("out/summary.json").read_text())["verdict"] == "invalid"


def _ask(item: str) -> str:
    return f'<tool_call>\n{{"name": "price", "arguments": {{"item": "{item}"}}}}\n</tool_call>'


def test_an_evaluation_whose_handlers_close_the_outputs_is_printed(world: str, tmp_path: Path) -> None:
    cases, answers = [], []
    for item in CLOSING:
        call = {"name": "price", "arguments": {"item": item}}
        cases.append({"id": item, "category": "single", "turns": [{"user": "Price?", "calls": [call]}]})
        answers += [{"key": f"{item}/0/0", "text": _ask(item)}, {"key": f"{item}/0/1", "text": "2.5"}]
    write_suite(tmp_path, cases)
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in answers))
    asked = ["eval", "./shopping", "--tools", world, "--model", "scripted:answers.jsonl", "--format", "hermes"]
    program = [sys.executable, "-m", "agentft", *asked, "--output", "out", "--json"]
    done = subprocess.run(program, capture_output=True, text=True, check=True, cwd=tmp_path)
    assert json.loads(done.stdout)["metrics"]["exact_call"]["model"]["value"] == 1
    assert "6/6 cases, 0 not solved" in done.stderr


@pytest.mark.parametrize("item", ["close", "close file"])
def test_what_a_handler_prints_and_closes_is_no_answer_of_a_chat(world: str, tmp_path: Path, item: str) -> None:
    call = {"api_name": "price", "url": "http://shop.test/price", "parameters": {"item": item}}
    text = f"<|startofthink|>```JSON\n{json.dumps(call)}\n```<|endofthink|>"
    rows = [{"key": "*0/0", "text": text}, {"key": "*", "text": "2.5 euros."}]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    program = [sys.executable, "-m", "agentft", "chat", "--tools", world, "--model", "scripted:answers.jsonl"]
    done = subprocess.run(program, input="Price?\n", capture_output=True, text=True, check=True, cwd=tmp_path)
    assert done.stdout == "2.5 euros.\n"
    assert "RAW" in done.stderr


@pytest.mark.parametrize(
    ("item", "code", "left"),
    [
        ("pool", "", "1 thread"),
        ("tea", "import atexit, time\natexit.register(time.sleep, 10_000)\n", "the atexit functions"),
    ],
)
def test_the_process_ends_although_code_of_a_world_does_not(
    item: str, code: str, left: str, world: str, tmp_path: Path
) -> None:
    with Path(world, "tools.py").open("a", encoding="utf-8") as file:
        file.write(code)
    program = f"""
import sys
from agentft.commands import main
from agentft.toolset import containment
containment._PATIENCE = 0.1
sys.argv = ["agentft", "tools", "call", "{world}.price", '{{"item": "{item}"}}']
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=tmp_path, timeout=300
    )
    assert json.loads(done.stdout) == {"item": item, "price": 2.5}
    assert f"ended without waiting for {left} of a tool world" in done.stderr


def test_standard_output_is_restored(capfd: pytest.CaptureFixture[str]) -> None:
    with stdout_to_stderr():
        sys.stdout.write("inside\n")
        os.write(1, b"raw\n")
    sys.stdout.write("outside\n")
    assert capfd.readouterr() == ("outside\n", "inside\nraw\n")
