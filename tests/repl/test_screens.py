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
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.commands.run import REPOSITORY
from tests.repl.bank import LIMIT

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not shutil.which("tmux"), reason="tmux is not installed")]

ANSWERS = {
    "*/0/0": f"I set it. {LIMIT}",
    "*/0/1": "# Done\n\nThe limit is **100 EUR** now. 北京 🌧\n\n- one\n- two\n\n[yr](http://yr.test)",
    "*/1/0": "A long answer: " + " ".join(f"word{n}" for n in range(300)),
    "*": "Yes.",
}


class Screen:
    """A terminal of tmux in which a chat runs."""

    def __init__(self, folder: Path, width: int) -> None:
        self.folder = folder
        self.width = width
        self.starts = 0
        answers = folder / "answers.jsonl"
        lines = (json.dumps({"key": key, "text": text}) for key, text in ANSWERS.items())
        answers.write_text("\n".join(lines), encoding="utf-8")
        self.options = f"--model scripted:{answers} --tools bank --approve writes"

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-S", str(self.folder / f"socket-{self.starts}"), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
        return done.stdout

    def start(self, options: str) -> None:
        self.starts += 1  # a server that is being killed would take the next session with it
        run = f"{sys.executable} -m tests.repl.slow chat {options}; echo ended $?; sleep 99"
        keep = {"AGENTFT_CACHE": str(self.folder), "AGENTFT_TEST_SECONDS": "0.02", "PYTHONPATH": str(REPOSITORY)}
        settings = " ".join(f"{key}={value}" for key, value in keep.items())
        shell = f"cd {REPOSITORY}; unset COLUMNS LINES; export {settings}; {run}"
        self.tmux("new-session", "-d", "-x", str(self.width), "-y", "40", f"bash -c '{shell}'")
        self.wait_for("11 tools", 60)

    def type(self, text: str, *keys: str) -> None:
        if text:
            self.tmux("send-keys", "-l", text)
        for key in keys or ("Enter",):
            self.tmux("send-keys", key)

    def shown(self) -> str:
        text = self.tmux("capture-pane", "-p", "-S", "-200")
        text = re.sub(r"\d+(\.\d+)? (ms|s|MB|tokens/s)\b", r"0 \2", text)
        return "\n".join(line.rstrip() for line in text.rstrip().split("\n"))

    def wait_for(self, text: str, seconds: float = 30) -> str:
        until = time.monotonic() + seconds
        while text not in (shown := self.shown()):
            assert time.monotonic() < until, f"{text!r} did not appear in\n{shown}"
            time.sleep(0.1)
        return shown

    def pid(self) -> int:
        wanted = ["pgrep", "-f", f"tests.repl.slow chat .*{self.folder}"]
        found = subprocess.run(wanted, capture_output=True, text=True, check=True)
        return max(map(int, found.stdout.split()))


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
    shown = screen.wait_for("11 tools · fault 503 next")
    start, end = shown.index("› limit to 100"), shown.index("› /state")
    call = "⚙ 1 set_daily_limit checking, 50 · 200 · 0 ms"
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
    assert "answers.jsonl · 16 bits · 11 tools" in shown.splitlines()[-1]


def test_typing_goes_on_during_an_answer_and_esc_gives_the_queue_back(tmp_path: Path) -> None:
    screen = Screen(tmp_path, 80)
    screen.start(screen.options + " --approve never")
    try:
        screen.type("one")
        screen.wait_for("tokens/s")
        screen.type("two")
        screen.wait_for("word9")
        screen.type("queued question")
        screen.wait_for("queued: queued question")
        screen.type("draft", "Escape")
        shown = screen.wait_for("stopped; what came is kept (/undo removes it)")
        assert "› queued question\n· draft\n" in shown
        assert "queued: " not in shown
        assert "A long answer: word0 word1" in shown
        screen.type("", "C-c")
        screen.type("", "C-d")
        screen.wait_for("ended 0")
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
        shown = screen.wait_for("after 1 round")
        assert "resumed chat-" in shown
        screen.type("/state")
        screen.wait_for("bank.accounts.ACC-1001.daily_limit: 200000 → 10000")
        screen.type("/undo")
        screen.wait_for("undone")
        screen.type("/state")
        screen.wait_for("nothing has changed")
    finally:
        screen.tmux("kill-server")
