"""The command line as a whole: help, exit codes, one-line errors, and lazy imports."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer

import agentft
from agentft import commands
from agentft.commands import COMMANDS, GROUPS, run
from agentft.errors import InputError, MissingError
from tests.commands.run import REPOSITORY, run_process

HEAVY = ["torch", "transformers", "peft", "httpx", "uvicorn", "starlette", "datasets", "scipy", "numpy", "jsonschema"]


def test_help_imports_nothing_heavy_and_no_room_but_the_commands() -> None:
    code = (
        "import sys\nfrom agentft.commands import run\nassert run(['--help']) == 0\n"
        f"print(*[name for name in {HEAVY} if name in sys.modules], file=sys.stderr)\n"
        "ours = [name.removeprefix('agentft.') for name in sys.modules if name.startswith('agentft.')]\n"
        "print(*[name for name in ours if not name.startswith('commands')], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert (done.returncode, set(done.stderr.split())) == (0, {"content", "errors"})


@pytest.mark.parametrize(
    "command",
    [
        ["data", "mask", "tests/rows/public_rows.jsonl"],
        ["chat", "--tools", ""],
        ["doctor"],
        ["eval", "no-such-suite"],
        ["plan"],
        ["bench", "train"],
    ],
    ids=" ".join,
)
def test_a_model_folder_that_does_not_exist_is_refused_before_torch_is_imported(command: list[str]) -> None:
    code = (
        "import sys\nfrom agentft.commands import run\n"
        f"assert run([*{command}, '--model', './no-such']) == 2\nassert 'torch' not in sys.modules"
    )
    program = [sys.executable, "-c", code]
    done = subprocess.run(program, input="hi\n", capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    assert "'./no-such': no such folder" in done.stderr


@pytest.mark.parametrize(
    ("command", "error"),
    [
        (["eval", "no-such"], "there is no suite 'no-such'"),
        (["plan", "--data", "no-such"], "no-such does not exist; `data` must be a data file"),
        (["train", "--data", "."], "/* > rows.jsonl joins its files); `data` must be a data file"),
    ],
)
def test_a_wrong_name_is_refused_before_scipy_and_torch_are_imported(command: list[str], error: str) -> None:
    """They take over a second to import."""
    heavy = "[name for name in ('scipy.stats', 'scipy.optimize', 'torch') if name in sys.modules]"
    code = f"import sys\nfrom agentft.commands import run\nassert run({command}) == 2\nassert not {heavy}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert error in done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run([*name.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert "Example:" in shown
    assert f"agentft {name}" in shown
    assert "Raises:" not in shown


def test_commands_are_listed_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--help"]) == 0
    shown = capsys.readouterr().out
    first = [name for name in COMMANDS if " " not in name]
    places = [shown.index(f"│ {name} ") for name in first]
    assert places == sorted(places)
    assert {name.rpartition(" ")[0] for name in COMMANDS if " " in name} == {*GROUPS, "eval"}


def test_version_and_module() -> None:
    assert run_process(["--version"]).stdout == f"agentft {agentft.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chta"], "error: no such command 'chta'. Did you mean 'chat'? (see `agentft --help`)\n"),
        (["models", "pul"], "error: no such command 'pul'. Did you mean 'pull'? (see `agentft models --help`)\n"),
        (
            ["chat", "--modle", "x"],
            "error: no such option: --modle (Possible options: --model) (see `agentft chat --help`)\n",
        ),
        (["models", "pull"], "error: missing argument 'name' (see `agentft models pull --help`)\n"),
        (["tools", "shwo"], "error: no such command 'shwo'. Did you mean 'show'? (see `agentft tools --help`)\n"),
        (["models", "pull", "x"], "error: there is no embedded model 'x'; the embedded models are: smollm2-135m\n"),
        (["tools", "show", "wether"], "error: no tool world 'wether'; the shipped ones are "),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


def test_a_group_without_a_command_lists_its_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["data"]) == 2
    captured = capsys.readouterr()
    assert all(name in captured.out + captured.err for name in ("inspect", "mask", "build"))
    assert captured.err.endswith("error: give one of these commands (see `agentft data --help`)\n")


@pytest.mark.parametrize("word", ["mine", "show"])
def test_a_folder_with_the_name_of_a_command_is_found(
    word: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(["eval", word, "--limit", "3"]) == 2
    assert "./" not in capsys.readouterr().err
    (tmp_path / word).mkdir()
    for more in ([], ["--limit", "3"]):
        assert run(["eval", word, *more]) == 2
        assert f"; the suite in the folder {word} is ./{word} (see" in capsys.readouterr().err


def raising(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


@pytest.fixture
def with_command(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Put a command named `probe` into the app."""

    def put(function: Callable[..., Any]) -> None:
        app = typer.Typer(callback=lambda: None)
        app.command("probe")(function)
        monkeypatch.setattr(commands, "app", app)

    return put


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("a.jsonl:3: bad; correct it"), 2, "error: a.jsonl:3: bad; correct it\n"),
        (MissingError("no GPU; use one"), 3, "error: no GPU; use one\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
        (typer.Abort(), 130, "interrupted\n"),
        (OSError(errno.ENOSPC, "No space left", "/d/f"), 2, "error: the disk is full at /d/f; finished work"),
        (
            PermissionError(errno.EACCES, "Permission denied", "/d/f"),
            2,
            "error: Permission denied at /d/f; change its permissions, or give another path\n",
        ),
        (OSError("odd"), 2, "error: odd\n"),
    ],
)
def test_errors_become_one_line_and_a_code(
    error: BaseException,
    code: int,
    message: str,
    with_command: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with_command(raising(error))
    assert run(["probe"]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert captured.err.count("\n") == 1


def test_a_bug_has_its_traceback_and_its_own_exit_code(
    with_command: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    with_command(raising(ZeroDivisionError("oops")))
    assert run(["probe"]) == 70
    shown = capsys.readouterr().err
    assert "ZeroDivisionError: oops" in shown
    assert shown.endswith("error: this is a bug in agentft; please report it with the lines above\n")


def test_debug_shows_the_traceback(
    with_command: Callable[[Callable[..., Any]], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AGENTFT_DEBUG", "1")
    with_command(raising(InputError("bad")))
    assert run(["probe"]) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown
    assert shown.endswith("error: bad\n")


def test_a_missing_library_is_not_our_bug(
    with_command: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def lacking() -> None:
        raise ModuleNotFoundError("No module named 'peft.tuners'", name="peft.tuners")

    with_command(lacking)
    assert run(["probe"]) == 3
    assert capsys.readouterr().err.startswith("error: the Python package peft is missing in this environment (")


def test_the_end_of_a_file_is_not_an_interruption(
    with_command: Callable[[Callable[..., Any]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    def cut() -> None:
        raise EOFError("Ran out of input")

    with_command(cut)
    assert run(["probe"]) == 70
    assert "this is a bug in agentft" in capsys.readouterr().err


def test_a_verdict_is_the_exit_code(with_command: Callable[[Callable[..., Any]], None]) -> None:
    with_command(raising(typer.Exit(1)))
    assert run(["probe"]) == 1
    with_command(lambda: None)
    assert run(["probe"]) == 0


NOISY = """
import os, subprocess, sys, typer
from typing import Annotated
from agentft import commands
from agentft.__main__ import main
from agentft.display.terminal import say_json, say_json_rows

def probe(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    print("python")
    os.write(1, b"descriptor\\n")
    subprocess.run(["echo", "child"])
    say_json({"city": "Malmö"}) if as_json else say_json_rows("rows", [{}])
    print("late")

commands.app = typer.Typer(callback=lambda: None)
commands.app.command("probe")(probe)
main()
"""


@pytest.mark.parametrize("closed", ["", "2>&-"])
def test_with_json_stdout_is_one_document_whatever_libraries_print(closed: str) -> None:
    command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, "-c", NOISY, "probe"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=300)
    assert '{"city": "Malmö"}' in done.stdout.splitlines()
    if not closed:
        assert done.stdout.count("\n") == 1
        assert sorted(done.stderr.split()) == ["child", "descriptor", "late", "python"]
        plain = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY, timeout=300)
        assert plain.stdout.splitlines() == ["python", "descriptor", "child", '{"rows": [{}]}', "late"]


CLOSED = """
import os, subprocess, sys
from typing import Annotated
import typer
from agentft import commands
from agentft.__main__ import main
from agentft.display.terminal import say, say_json
from agentft.toolset import stdout_to_stderr

def probe(as_json: Annotated[bool, typer.Option("--json")] = False) -> None:
    with stdout_to_stderr():
        print("noise", file=sys.stdout, flush=True)
    say("words")
    say("warning", err=True)
    say_json({})
    subprocess.run(["sh", "-c", "cat; echo child; echo child >&2"], check=True)
    if os.fstat(0).st_rdev == os.stat(os.devnull).st_rdev:
        assert sys.stdin.read() == ""
    with open(sys.argv[0] if os.path.isfile(sys.argv[0]) else os.devnull) as stream:
        assert stream.fileno() > 2

commands.app = typer.Typer(callback=lambda: None)
commands.app.command("probe")(probe)
main()
"""


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("option", [[], ["--json"]])
def test_a_closed_descriptor_is_like_dev_null(closed: str, option: list[str]) -> None:
    for program in (["-c", CLOSED, "probe", *option], ["-m", "agentft", "tools", "show", "weather", *option]):
        command = ["sh", "-c", f'"$@" {closed}', "sh", sys.executable, *program]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY, timeout=300)
        assert done.returncode == 0, done.stderr
        assert "error" not in done.stderr + done.stdout
        assert ("child" in done.stderr) is ("-c" in program and "2>&-" not in closed)


def test_an_interrupted_import_has_no_traceback(tmp_path: Path) -> None:
    # A background job of a shell would ignore the signal.
    handled = "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    (tmp_path / "typer.py").write_text(f"{handled}os.kill(os.getpid(), signal.SIGINT)\n[0] * 10\n")
    done = run_process(["--help"], env={"PYTHONPATH": f"{tmp_path}:{REPOSITORY}"})
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m agentft tools show weather --json | true"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.stderr == ""


def test_without_arguments_the_chat_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[bool] = []
    monkeypatch.setattr(commands, "chat_command", lambda: called.append(True))
    assert run([]) == 0
    assert called == [True]


def test_no_colour_with_no_color_or_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = run_process(["--help"], env={"NO_COLOR": "1", "FORCE_COLOR": "1"}).stdout
    assert "\x1b[3" not in plain
    assert "\x1b" not in run_process(["--help"]).stdout


def test_models_list(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path))
    assert run(["models", "list", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["models"]
    assert (row["name"], row["folder"], row["licence"]) == ("smollm2-135m", None, "Apache-2.0")
    assert run(["models", "list"]) == 0
    assert "agentft models pull smollm2-135m" in capsys.readouterr().out


def test_models_pull_prints_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path))
    folder = tmp_path / "models" / "smollm2-135m-0.1.2"
    folder.mkdir(parents=True)
    (folder / "origin.json").write_text("{}")
    assert run(["models", "pull", "smollm2-135m"]) == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_offline_without_a_cached_model_is_exit_code_3(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offline = {"AGENTFT_CACHE": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path)}
    done = run_process(["chat"], stdin="hi\n", env=offline)
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: smollm2-135m is not in the cache and could not be fetched")
    assert "agentft models pull smollm2-135m" in last


def test_tools_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "list", "--json"]) == 0
    worlds = json.loads(capsys.readouterr().out)["worlds"]
    assert {"weather", "search", "calculator"} <= {world["name"] for world in worlds}
    assert run(["tools", "list"]) == 0
    assert "set_weather_alert*" in capsys.readouterr().out
    assert run(["tools", "show", "weather", "--json"]) == 0
    tools = {tool["name"]: tool for tool in json.loads(capsys.readouterr().out)["tools"]}
    assert tools["set_weather_alert"]["access"] == "write"
    assert tools["current_weather"]["endpoints"] == ["http://weather.test/current_weather"]
    assert run(["tools", "show", str(REPOSITORY / "tools" / "search")]) == 0
    assert "open_page" in capsys.readouterr().out
