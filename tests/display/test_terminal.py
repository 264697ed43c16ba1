"""Everything that reaches a terminal passes through `agentft.display.terminal`, where no text can control it."""

from __future__ import annotations

import ast
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
from rich.panel import Panel
from rich.table import Table

from agentft.commands import run
from agentft.display import terminal
from agentft.display.terminal import open_console, say, say_json_rows, say_path, say_text, waiting
from tests.commands.run import REPOSITORY, run_process
from tests.tiny import save_tiny
from tests.waiting import PATIENCE, wait_until

DOOR = REPOSITORY / "agentft" / "display" / "terminal.py"
OTHERS = sorted(path for path in (REPOSITORY / "agentft").rglob("*.py") if path != DOOR)
# It runs in another library's Python, and its one reader is `agentft bench train`.
FOREIGN = {"agentft/bench/peers.py"}
WRITERS = {"secho", "print_exception", "print_exc", "print_tb", "print_stack", "print_help", "Console"}
STREAMS = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
EVIL = "\x1b]0;PWNED\x07\x1b[2J\u202egnp\u2066\u200b\x9b31m\r\ufeff"
HIDDEN = set(EVIL) - set("0;PWNED[2Jgnp31m]")


def direct_writes(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Calls that write to the terminal themselves. Constant texts are harmless."""
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        function = ast.unparse(node.func)
        name = function.rpartition(".")[2]
        stream, _, method = function.rpartition(".")
        writes = (
            function in {"print", "typer.echo", "click.echo", "echo"}
            or name in WRITERS
            or (stream in STREAMS and method in {"write", "writelines"})
        )
        if writes and not (node.args and all(isinstance(part, ast.Constant) for part in node.args)):
            yield node.lineno, function


@pytest.mark.parametrize("path", OTHERS, ids=[str(path.relative_to(REPOSITORY)) for path in OTHERS])
def test_only_one_module_writes_to_the_terminal(path: Path) -> None:
    if str(path.relative_to(REPOSITORY)) not in FOREIGN:
        assert list(direct_writes(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_search_finds_every_way_of_writing() -> None:
    code = "print(x)\ntyper.echo(f'{x}')\nConsole(stderr=True)\nsys.stderr.write(x)\ntraceback.print_exc()\nprint('a')"
    assert [line for line, _ in direct_writes(ast.parse(code))] == [1, 2, 3, 4, 5]


def test_a_console_shows_whatever_it_is_given(capsys: pytest.CaptureFixture[str]) -> None:
    table = Table(f"head {EVIL}", title=EVIL)
    table.add_row(f"[red]cell[/] :smile: {EVIL}")
    open_console().print(Panel(table, title=EVIL), f"text {EVIL}", EVIL)
    shown = capsys.readouterr().out
    assert not HIDDEN & set(shown)
    assert "[red]cell[/] :smile:" in shown


def test_lines_and_documents(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    say(f"one\n{EVIL}", "cafe\u0301", err=True)
    say_text("two\nlines\x1b[m", err=True)
    lines = capfdbinary.readouterr().err.decode().splitlines()
    assert lines[0].startswith("one␊␛]0;PWNED␇")
    assert lines[1:] == ["cafe\\u0301", "two", "lines␛[m"]
    say_json_rows("rows", [{"text": EVIL}, {"text": "\ud800"}])
    written = capfdbinary.readouterr().out.decode()
    assert not HIDDEN & set(written)
    assert json.loads(written) == {"rows": [{"text": EVIL}, {"text": "\ud800"}]}
    say_path(Path(os.fsdecode(b"cache/\xff\x1b/caf\xc3\xa9")))
    assert capfdbinary.readouterr().out == b"cache/\xff\x1b/caf\xc3\xa9\n", "a program gets the path's own bytes"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which names and contents are hostile."""
    here = tmp_path_factory.mktemp("here")
    turns = [{"from": "user", "value": EVIL}, {"from": "assistant", "value": EVIL}]
    rows = [
        {"id": EVIL, "conversations": turns},
        {"id": EVIL, "conversations": [{"from": EVIL, "value": EVIL}]},
        {"messages": [{"role": "user", "content": EVIL, EVIL: EVIL}], EVIL: EVIL},
    ]
    (here / f"rows{EVIL}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (here / f"bad{EVIL}.toml").write_text(f'"{EVIL.encode("unicode_escape").decode()}" = [', encoding="utf-8")
    world = here / f"world{EVIL}"
    world.mkdir()
    (world / "tools.py").write_text(f'def look(state, word: str = {EVIL!r}) -> str:\n    """Look: {EVIL}"""\n')
    run_folder = here / "runs" / f"run{EVIL}"
    run_folder.mkdir(parents=True)
    (run_folder / "recipe.toml").write_text(f'model = "{EVIL.encode("unicode_escape").decode()}"\n', encoding="utf-8")
    suite = here / f"suite{EVIL}"
    suite.mkdir()
    (suite / "suite.toml").write_text(f"title = {json.dumps(EVIL)}\n{json.dumps(EVIL)} = 1\n", encoding="utf-8")
    description = {"openapi": "3.0.0", "info": {"title": EVIL, "version": "1"}, "paths": {f"/{EVIL}": {EVIL: 1}}}
    (here / f"api{EVIL}.json").write_text(json.dumps(description), encoding="utf-8")
    save_tiny(here / "model")
    return here


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "inspect", f"rows{EVIL}.jsonl"],
        ["data", "inspect", f"rows{EVIL}.jsonl", "--json"],
        ["data", "inspect", f"none{EVIL}.jsonl"],
        ["data", "mask", f"rows{EVIL}.jsonl", "--model", "model", "--learn", "assistant"],
        ["data", "mask", f"rows{EVIL}.jsonl", "--model", "model", "--json"],
        ["data", "mask", f"rows{EVIL}.jsonl", "--model", f"./none{EVIL}"],
        ["data", "build", f"bad{EVIL}.toml"],
        ["data", "build", EVIL],
        ["train", f"bad{EVIL}.toml"],
        ["train", f"{EVIL}=1"],
        ["train", f"model={EVIL}", f"data={EVIL}"],
        ["train", "--resume", EVIL],
        ["train", "--resume", f"run{EVIL}"],
        ["train", f"--{EVIL}"],
        ["eval", f"suite{EVIL}"],
        ["eval", "--tools", f"./world{EVIL}", "--model", "scripted"],
        ["eval", "--tools", f"weather.{EVIL}"],
        ["eval", "--adapter", f"runs/run{EVIL}"],
        ["eval", "--fail-under", f"{EVIL}=1"],
        ["eval", "--faults", f"{EVIL}=1"],
        ["chat", "--tools", f"{EVIL}"],
        ["chat", "--adapter", f"{EVIL}"],
        ["tools", "show", f"./world{EVIL}"],
        ["tools", "show", EVIL],
        ["tools", "check", f"./world{EVIL}"],
        ["tools", "call", f"./world{EVIL}.{EVIL}"],
        ["tools", "call", "weather.current_weather", json.dumps({"city": EVIL, EVIL: 1})],
        ["tools", "import", "openapi", f"api{EVIL}.json", "--output", f"made{EVIL}"],
        ["tools", "import", "traffic", f"api{EVIL}.json", "--output", f"made2{EVIL}"],
        ["tools", "import", "mcp", f"./none{EVIL}", "--output", f"made3{EVIL}"],
        ["models", "pull", EVIL],
        ["plan", f"{EVIL}=1"],
        ["bench", "train", f"--{EVIL}"],
        ["bench", "train", "--shape", EVIL],
        [EVIL],
    ],
    ids=lambda arguments: " ".join(arguments).replace(EVIL, "~"),
)
def test_no_command_lets_a_name_or_a_text_control_the_terminal(
    arguments: list[str], here: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(here)
    monkeypatch.setenv("AGENTFT_CACHE", str(here / "cache"))
    code = run(arguments)
    shown = capfd.readouterr()
    assert code in (0, 1, 2, 3), shown.err
    assert shown.out or shown.err
    assert not HIDDEN & set(shown.out + shown.err)


def test_a_name_in_another_normal_form_is_shown_as_such(tmp_path: Path) -> None:
    (tmp_path / "caf\u00e9.jsonl").write_text("{}\n")
    done = run_process(["data", "inspect", "cafe\u0301.jsonl"], cwd=tmp_path)
    assert (done.returncode, "cafe\\u0301.jsonl" in done.stderr) == (2, True)


def test_without_a_terminal_a_long_wait_is_one_line_and_a_short_one_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    def timer(seconds: float, *rest: Any) -> Timer:
        asked.append(seconds)
        return Timer(PATIENCE if len(asked) == 1 else 0.1, *rest)

    monkeypatch.setattr(terminal, "Timer", timer)
    with waiting("loading a model"):
        pass
    assert capsys.readouterr() == ("", "")
    shown = io.StringIO()
    with waiting(f"loading {EVIL}"):
        wait_until(lambda: shown.write("".join(capsys.readouterr())) and "\n" in shown.getvalue())
    assert asked == [1.0, 1.0]
    assert capsys.readouterr() == ("", "")
    assert shown.getvalue().count("\n") == 1
    assert shown.getvalue().startswith("loading ␛]0;PWNED")


def test_on_a_terminal_a_wait_has_a_spinner(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    with waiting("loading a model"):
        pass
    assert "loading a model ..." in capsys.readouterr().err
