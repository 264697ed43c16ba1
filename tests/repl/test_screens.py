"""Whole sessions in a real terminal (tmux), with the screens compared as text."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.commands.run import REPOSITORY
from tests.repl.bank import LIMIT
from tests.waiting import PATIENCE

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")]

ANSWERS = {
    "*/0/0": f"I set it. {LIMIT}",
    "*/0/1": "# Done\n\nThe limit is **100 EUR** now. 北京 🌧\n\n- one\n- two\n\n[yr](http://yr.test)",
    "*/1/0": "A long answer: word0 word1 hold1",
}
IDLE = "answers.jsonl · 16 bits · 11 tools"
"""The status line, drawn last, while the chat does nothing."""


class Screen:
    """A terminal of tmux in which a chat runs."""

    def __init__(self, folder: Path, width: int, answers: Mapping[str, str] = ANSWERS) -> None:
        self.folder = folder
        self.width = width
        self.starts = 0
        script = folder / "answers.jsonl"
        lines = (json.dumps({"key": key, "text": text}) for key, text in answers.items())
        script.write_text("\n".join(lines), encoding="utf-8")
        self.options = f"--model scripted:{script} --tools bank --approve writes"

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.folder / f"socket-{self.starts}"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        return done.stdout

    def start(self, options: str, first: str = "", then: str = "echo ended $?") -> None:
        self.starts += 1  # a server that is being killed would take the next session with it
        run = f"{first}{sys.executable} -m tests.repl.slow chat {options}; {then}; sleep 999"
        keep = {"AGENTFT_CACHE": str(self.folder), "AGENTFT_TEST_SECONDS": "0.02", "PYTHONPATH": str(REPOSITORY)}
        settings = " ".join(f"{key}={value}" for key, value in keep.items())
        shell = f"cd {REPOSITORY}; unset COLUMNS LINES; export {settings}; {run}"
        self.tmux("new-session", "-d", "-x", str(self.width), "-y", "40", f"bash -c '{shell}'")
        self.wait_for("11 tools")

    def type(self, text: str, *keys: str) -> None:
        if text:
            self.tmux("send-keys", "-l", text)
        for key in keys or ("Enter",):
            self.tmux("send-keys", key)

    def shown(self) -> str:
        text = self.tmux("capture-pane", "-p", "-S", "-200")
        text = re.sub(r"\d+(\.\d+)? m?(s|MB|tokens/s)\b", r"0 \2", text)
        return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))

    def wait_for(self, text: str, seconds: float = PATIENCE) -> str:
        until = time.monotonic() + seconds
        while text not in (shown := self.shown()):
            assert time.monotonic() < until, f"{text!r} did not appear in\n{shown}"
            time.sleep(0.1)
        return shown

    def pid(self) -> int:
        shell = self.tmux("display", "-p", "#{pane_pid}").strip()
        return int(subprocess.run(["pgrep", "-P", shell], capture_output=True, text=True, check=True).stdout)


@pytest.fixture(params=[60, 80, 140])
def screen(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Screen]:
    made = Screen(tmp_path, request.param)
    made.start(made.options)
    yield made
    made.tmux("kill-server")


def test_a_session_at_three_widths(screen: Screen) -> None:
    screen.type("limit to 100")
    screen.wait_for("allow set_daily_limit? y, n [why], e(dit), a(lways) ›")
    screen.type("e")
    screen.wait_for('arguments › {"account": "checking", "amount": 100}')
    screen.type("", *["BSpace"] * 4)
    screen.type("50}")
    screen.wait_for("tokens/s")
    screen.type("/state")
    screen.wait_for("200000 → 5000")
    screen.type("/fault")
    shown = screen.wait_for(f"{IDLE} · fault 503 next")
    start, end = shown.index("› limit to 100"), shown.index("› /state")
    call = "⚙ 1 set_daily_limit checking, 50 · 200 · 0 s"
    body = shown[start:end]
    assert body.startswith(
        '› limit to 100\n  I set it.\n  ⚙ set_daily_limit · write\n  {"account": "checking", "amount": 100}\n' + call
    )
    assert all(len(line) <= screen.width for line in body.splitlines())
    assert body.endswith(
        "\n  Done\n\n  The limit is 100 EUR now. 北京 🌧\n\n   • one\n   • two\n\n  yr (http://yr.test)\n"
        "  1 call · 29 tokens · 0 s · 0 tokens/s\n\n"
    ), body
    received = ' · {"account": "ACC-1001", "dai'
    assert screen.width < 100 or call + received in body
    assert (call + received[:14] in body) == (screen.width > 60), body
    screen.type("", "C-o")
    screen.wait_for("POST http://bank.test/set_daily_limit · 200")


def test_typing_goes_on_during_an_answer_and_esc_gives_the_queue_back(tmp_path: Path) -> None:
    screen = Screen(tmp_path, 80)
    screen.start(screen.options + " --approve never")
    try:
        screen.type("one")
        screen.wait_for("tokens/s")
        screen.type("two")
        screen.wait_for("word1 hold1")
        screen.type("queued question")
        screen.wait_for("queued: queued question")
        screen.type("draft", "Escape")
        screen.wait_for("stopped; what came is kept (/undo removes it)")
        shown = screen.wait_for(IDLE)
        assert "› queued question\n· draft\n" in shown
        assert "queued: " not in shown
        assert "A long answer: word0 word1" in shown
        screen.type("", "C-c")
        screen.type("", "C-d")
        screen.wait_for("ended 0")
    finally:
        screen.tmux("kill-server")


def test_pasted_lines_stay_as_they_are(tmp_path: Path) -> None:
    screen = Screen(tmp_path, 100)
    screen.start(screen.options)
    try:
        screen.tmux("set-buffer", "if 北京:\n\tstay\n")
        screen.tmux("paste-buffer", "-p")
        screen.wait_for("› if 北京:\n·     stay\n")
        screen.wait_for("0 tokens · 0 MB of memory")
        screen.type("\x1b[31mred", "Space")  # as a terminal that does not mark what is pasted would send it
        assert "Exception" not in screen.wait_for("red")
    finally:
        screen.tmux("kill-server")


def test_a_text_with_a_mark_reaches_the_model_after_its_next_call(tmp_path: Path) -> None:
    answers = {"*/0/0": f"I set it: hold1 {LIMIT}", "*/1/0": "It is 100.", "*/2/0": "That was all. hold2"}
    screen = Screen(tmp_path, 80, answers)
    screen.start(screen.options + " --approve never")
    try:
        screen.type("limit to 100")
        screen.wait_for("hold1")
        screen.type("!in words")
        screen.wait_for("after its next call: in words")
        screen.type("after that")
        screen.wait_for("queued: after that")
        (tmp_path / "hold1").touch()
        screen.wait_for("hold2")
        shown = screen.wait_for("› after that\n")
        assert "after its next call: in words" not in shown
        assert re.search(r"⚙ 1 set_daily_limit.*\n› in words\n  It is 100\.\n", shown), shown
        screen.type("!not for a call")
        screen.wait_for("after its next call: not for a call")
        screen.type("", "C-c")
        screen.wait_for("stopped; what came is kept")
        assert "› !not for a call\n" in screen.wait_for(IDLE)
    finally:
        screen.tmux("kill-server")


def test_a_killed_chat_goes_on_where_it_was(tmp_path: Path) -> None:
    screen = Screen(tmp_path, 80)
    screen.start(screen.options)
    try:
        screen.type("limit to 100")
        screen.wait_for("a(lways) ›")
        screen.type("y")
        screen.wait_for("tokens/s")
        os.kill(screen.pid(), signal.SIGKILL)
        screen.wait_for("ended 137")
        screen.tmux("kill-server")
        screen.start("--resume --approve writes")
        shown = screen.wait_for("resumed chat-")
        assert "› limit to 100\n" in shown, "what was said is shown again"
        assert "⚙ 1 set_daily_limit checking, 100 · 200 · {" in shown
        screen.type("/state")
        screen.wait_for("bank.accounts.ACC-1001.daily_limit: 200000 → 10000")
        screen.type("/undo")
        screen.wait_for("undone")
        screen.type("/state")
        screen.wait_for("nothing has changed")
    finally:
        screen.tmux("kill-server")


def answering(folder: Path) -> tuple[Screen, Path]:
    """A chat that answers a question and does not come to the end, and the file that it saves."""
    screen, saved = Screen(folder, 80, {"*/0/0": "It is 100. hold1"}), folder / "saved.jsonl"
    screen.start(f"{screen.options} --save {saved}")
    screen.type("how much")
    return screen, saved


def test_the_end_during_an_answer_saves_what_came_of_it(tmp_path: Path) -> None:
    screen, saved = answering(tmp_path)
    try:
        screen.wait_for("hold1")
        screen.type("", "C-d")
        shown = screen.wait_for("ended 0")
        ends = [shown.index(text) for text in ("what came is kept", "saved to", "to go on: agentft chat", "ended 0")]
        assert ends == sorted(ends), shown
        assert json.loads(saved.read_text())["conversations"][-1]["value"] == "It is 100. hold1"
    finally:
        screen.tmux("kill-server")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_that_ends_the_chat_restores_the_terminal_and_saves(tmp_path: Path, number: int, code: int) -> None:
    screen, saved = answering(tmp_path)
    try:
        screen.wait_for("hold1")
        os.kill(screen.pid(), number)
        screen.wait_for(f"ended {code}")
        settings = subprocess.run(
            ["stty", "-a", "-F", screen.tmux("display", "-p", "#{pane_tty}").strip()],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
        assert {"icanon", "echo", "isig", "icrnl"} <= {*settings}
        assert "It is 100. hold1" in saved.read_text()
    finally:
        screen.tmux("kill-server")


def test_ctrl_z_stops_the_chat_for_the_shell_and_fg_goes_on(tmp_path: Path) -> None:
    screen = Screen(tmp_path, 80)
    screen.start(screen.options, "set -m; ", "stty -a; fg")
    try:
        screen.type("a draft", "C-z")
        shown = screen.wait_for("isig icanon")
        assert " -icanon" not in shown
        screen.type(" goes on", "Space")
        screen.wait_for("› a draft goes on")
    finally:
        screen.tmux("kill-server")
