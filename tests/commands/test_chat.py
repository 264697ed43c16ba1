"""`agentft chat` as a user runs it, with scripted answers and the real tool servers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentft import runs
from agentft.commands import chat, run
from agentft.records import parse_row
from agentft.repl.session import PERSONA
from agentft.runs import FinishedRun
from agentft.types import ToolCall, ToolResult
from tests.commands.run import REPOSITORY, run_process
from tests.models.served import Answer, Served
from tests.tiny import tiny_tokenizer
from tests.waiting import PATIENCE


def call(**value: object) -> str:
    return f"<|startofthink|>```JSON\n{json.dumps(value)}\n```<|endofthink|>"


URL = "http://weather.test/current_weather"
ANSWERS = {
    "*/0/0": "I look. " + call(api_name="current_weather", url=URL, parameters={"city": "Oslo"}),
    "*/0/1": "Dress warmly. [bold]\x1b[31m",
    "*/1/0": call(api_name="current_weather", url="http://evil.test/x", parameters={"city": "Oslo"}),
    "*/1/1": "I was not let through.",
}


@pytest.fixture
def script(tmp_path: Path) -> str:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps({"key": key, "text": text}) + "\n" for key, text in ANSWERS.items()))
    return f"scripted:{path}"


def test_a_piped_chat_calls_the_tools_and_is_saved(script: str, tmp_path: Path) -> None:
    kept = tmp_path / "chats.jsonl"
    options = ["--model", script, "--tools", "weather", "--save", str(kept), "--system", "Be brief."]
    done = run_process(["chat", *options], stdin="How is Oslo?\nAnd now?\n")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "I look.\nDress warmly. [bold]␛[31m\nI was not let through.\n"
    assert re.search(r"⚙ 1 current_weather Oslo · 200 · \d+ ms · \{\"city\": \"Oslo\"", done.stderr)
    assert "⚙ 2 current_weather Oslo · not sent · http://evil.test/x is not the address" in done.stderr
    assert "\x1b" not in done.stderr
    read = parse_row(json.loads(kept.read_text(encoding="utf-8")), "row")
    assert read.turns[0].raw.startswith("Be brief.")
    parts = read.turns[2].parts
    assert [part.name for part in parts if isinstance(part, ToolCall)] == ["current_weather"]
    results = [json.loads(part.content) for part in parts if isinstance(part, ToolResult)]
    assert results[0]["city"] == "Oslo"


def test_a_chat_inside_this_process(
    script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("How is Oslo?\n"))
    monkeypatch.chdir(tmp_path)
    assert run(["chat", "--model", script, "--tools", "weather", "--save", "chats.jsonl"]) == 0
    captured = capsys.readouterr()
    assert "Dress warmly." in captured.out
    assert captured.err.endswith("saved to chats.jsonl\n")
    row = json.loads(Path("chats.jsonl").read_text(encoding="utf-8"))
    assert row["conversations"][0]["value"].startswith(PERSONA)


@pytest.mark.parametrize(
    "extra", [["--no-stream"], ["--tools", "weather,search", "--bits", "4"], ["--top-k", "5", "--temperature", "1"]]
)
def test_options(
    script: str, extra: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("How is Oslo?\n/quit\n"))
    assert run(["chat", "--model", script, *extra]) == 0
    assert "Dress warmly." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("known", "worlds"),
    [
        (("create_event", "delete_file"), {"calendar": ["create_event"], "files": ["delete_file"]}),
        (("calculate",), {"calculator": ["calculate"]}),
    ],
)
def test_an_adapter_selects_the_tools_that_it_was_trained_on(
    known: tuple[str, ...], worlds: dict[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever shipped worlds they are in."""
    tuned = FinishedRun(Path(), "smollm2-135m", "msagent", Path(), False, False, known)
    monkeypatch.setattr(runs, "find_finished", lambda name: tuned)
    assert {toolset.name: list(toolset.tools) for toolset in chat._toolsets(None, "last")} == worlds


@pytest.mark.parametrize("known", [(), ("create_event", "book_flight")])
def test_an_adapter_with_unknown_tools_gets_the_three_default_worlds(
    known: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tuned = FinishedRun(Path(), "smollm2-135m", "msagent", Path(), False, False, known)
    monkeypatch.setattr(runs, "find_finished", lambda name: tuned)
    names = [toolset.name for toolset in chat._toolsets(None, "last")]
    assert names == [toolset.name for toolset in chat._toolsets(None, None)] == ["weather", "search", "calculator"]
    told = "trained with create_event, book_flight, which no shipped world has; name yours: --tools\n"
    assert capsys.readouterr().err == ("note: the adapter was " + told) * bool(known)


def test_a_chat_without_tools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = tmp_path / "a.jsonl"
    answers.write_text('{"key": "*", "text": "Hello."}\n')
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n/tools\n"))
    assert run(["chat", "--model", f"scripted:{answers}", "--tools", ""]) == 0
    assert capsys.readouterr().out.splitlines() == ["Hello.", "no tools"]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--tools", "wether"], 2, "no tool world 'wether'"),
        (["--save", "/"], 2, "/: this is a folder"),
        (["--save", "/no/such/place.jsonl"], 2, "does not exist"),
        (["--adapter", "no-such-run"], 2, "there is no run 'no-such-run'"),
        (["--bits", "5"], 2, "--bits"),
        (["--temperature", "-1"], 2, "--temperature"),
        (["--approve", "writes"], 2, "--approve writes needs a person at a terminal"),
        (["--continue"], 2, "--resume needs a person at a terminal"),
        (["--model", "scripted:/no/such.jsonl"], 2, "cannot be read"),
        (["--model", "./no-such-model"], 2, "no such folder"),
    ],
)
def test_bad_options_are_one_line(
    script: str,
    options: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = options if "--model" in options or "--adapter" in options else ["--model", script, *options]
    monkeypatch.setattr(sys, "stdin", io.StringIO("hi\n"))
    assert run(["chat", *arguments]) == code
    shown = capsys.readouterr().err
    errors = [line for line in shown.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert message in errors[0]
    assert "Traceback" not in shown


def test_an_endpoint_gets_the_prompts_of_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AGENTFT_API_KEY", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("How is Oslo?\n/prompt\n"))
    tokenizer = tiny_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    answer = Answer(body={"choices": [{"text": "Fine.", "finish_reason": "stop"}]})
    options = ["--tokenizer", str(tmp_path), "--tools", "", "--system", "Hi."]
    with Served([answer]) as served:
        assert run(["chat", "--endpoint", served.url, *options]) == 0
    assert run(["chat", *options]) == 2
    (sent,) = served.chats
    captured = capsys.readouterr()
    assert sent.path == "/v1/completions"
    assert "How is Oslo?" in captured.out
    assert captured.out.rstrip("\n") == f"Fine.\n{tokenizer.decode(sent.body['prompt'])}".rstrip("\n")
    assert "add --endpoint, or omit --tokenizer" in captured.err


@pytest.mark.parametrize("streams", [True, False])
def test_another_model_and_an_answer_within_a_thought_are_told(
    streams: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("AGENTFT_API_KEY", raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO("How is Oslo?\nAnd now?\n"))
    part = {"reasoning_content": "Fine."}
    said = {"model": "other", "choices": [{"delta" if streams else "message": part, "finish_reason": "stop"}]}
    body = f"data: {json.dumps(said)}\n\ndata: [DONE]\n\n" if streams else said
    with Served(lambda _: Answer(body=body)) as served:
        assert run(["chat", "--endpoint", served.url, "--model", "tiny", "--tools", ""]) == 0
    told = capsys.readouterr().err
    assert told.count("the server says that another model answers: other") == 1
    assert told.count("a thought without an answer") == 2


def test_without_the_sdk_there_is_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(chat, "find_spec", lambda _: None)
    assert run(["chat", "--acp", "--tools", ""]) == 3
    assert "pip install 'agentft-suite[acp]'" in capsys.readouterr().err


def test_json_is_one_document_and_nothing_else(script: str) -> None:
    done = run_process(["chat", "--model", script, "--tools", "weather", "--json"], stdin="How is Oslo?\nAnd now?\n")
    document = json.loads(done.stdout)
    assert (done.returncode, document["model"]) == (0, script)
    first, second = document["rounds"]
    assert (first["question"], first["answer"], first["finish"]) == (
        "How is Oslo?",
        "Dress warmly. [bold]\x1b[31m",
        "end",
    )
    assert [(one["name"], one["arguments"], one["status"]) for one in first["calls"]] == [
        ("current_weather", {"city": "Oslo"}, 200)
    ]
    assert (second["calls"][0]["status"], second["calls"][0]["is_error"]) == (None, True)
    assert first["tokens"] > 0


def test_a_script_that_ends_too_soon_is_an_error_in_a_pipe(script: str) -> None:
    done = run_process(["chat", "--model", script, "--tools", "weather"], stdin="a\nb\nc\n")
    assert done.returncode == 2
    assert "no answer for" in done.stderr


class Terminal:
    """A process on a terminal of its own."""

    def __init__(self, arguments: list[str], cache: Path, term: str = "xterm") -> None:
        ours, theirs = pty.openpty()
        self._screen, self._seen = ours, ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agentft", *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=REPOSITORY,
            env={**os.environ, "AGENTFT_CACHE": str(cache), "TERM": term, "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(theirs)

    def type(self, keys: str) -> None:
        os.write(self._screen, keys.encode())

    def wait_for(self, text: str, seconds: float = PATIENCE) -> str:
        until = time.monotonic() + seconds
        while text not in self._seen:
            ready, _, _ = select.select([self._screen], [], [], max(0.0, until - time.monotonic()))
            assert ready, f"{text!r} did not appear in {self._seen!r}"
            self._seen += os.read(self._screen, 65536).decode(errors="replace")
        seen, _, self._seen = self._seen.partition(text)
        return seen

    def press_until(self, keys: str, text: str) -> None:
        """Press keys, more than once if the chat is still busy, until the text appears."""
        for _ in range(300):
            self.type(keys)
            with contextlib.suppress(AssertionError):
                self.wait_for(text, 1.0)
                return
        pytest.fail(f"{text!r} did not appear in {self._seen!r}")

    def leave(self) -> int:
        """Press Ctrl-D until the chat ends: while it prints, the terminal takes keys for itself."""
        for _ in range(600):
            try:
                self.type("\x04")
                self.wait_for("never", 0.5)  # reads what the chat writes, so that it is not kept waiting
            except OSError:  # the terminal is closed
                return self.process.wait(PATIENCE)
            except AssertionError:
                continue
        pytest.fail("Ctrl-D does not end the chat")

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        os.close(self._screen)


@pytest.mark.slow
def test_on_a_terminal_there_is_an_input_line_and_ctrl_d_leaves(script: str, tmp_path: Path) -> None:
    terminal = Terminal(["chat", "--model", script, "--tools", "weather"], tmp_path)
    try:
        terminal.wait_for("Ctrl-D to leave")
        terminal.wait_for("› ")
        terminal.type("How is Oslo?\r")
        terminal.wait_for("current_weather")
        terminal.wait_for("Dress warmly. [bold]␛[31m")
        terminal.wait_for("tokens · ")
        terminal.press_until("\x03", "press Ctrl-D or type /quit to leave")
        assert terminal.leave() == 0
    finally:
        terminal.close()
    assert "How is Oslo?" in (tmp_path / "chat_history").read_text()
    assert (tmp_path / "chat_history").stat().st_mode & 0o077 == 0


@pytest.mark.slow
def test_a_model_that_cannot_be_loaded_ends_the_chat_on_a_terminal(tmp_path: Path) -> None:
    terminal = Terminal(["chat", "--model", "scripted:/no/such.jsonl", "--tools", ""], tmp_path)
    try:
        terminal.wait_for("error: /no/such.jsonl: cannot be read")
        assert terminal.process.wait(PATIENCE) == 2
    finally:
        terminal.close()


@pytest.mark.slow
def test_a_terminal_that_cannot_move_its_cursor(script: str, tmp_path: Path) -> None:
    terminal = Terminal(["chat", "--model", script, "--tools", "weather"], tmp_path, term="dumb")
    try:
        terminal.wait_for("› ")
        terminal.type("How is Oslo?\n")
        assert "\x1b[" not in terminal.wait_for("Dress warmly.")
        assert terminal.leave() == 0
    finally:
        terminal.close()
