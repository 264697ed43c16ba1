"""The times of `agentft chat` on a terminal, to its input line and first tokens: `python -m tests.bench.bench_chat`.

Targets, for SmolLM2 from the cache on two cores: the input line after 2.5 s, the first token of an answer after 1 s. It
needs tmux. Options of the chat may follow; the default is `--tools weather`.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

LIMIT = 120.0
QUESTIONS = ("What is the weather like in Paris?", "And in Lisbon?")


def main() -> int:
    """Measure one start and two rounds."""
    if not shutil.which("tmux"):
        sys.stderr.write("tmux is not installed\n")
        return 3
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # the terminal must not stay
    options = " ".join(sys.argv[1:]) or "--tools weather"
    with tempfile.TemporaryDirectory() as folder:
        socket = str(Path(folder) / "tmux")
        try:
            measure(socket, f"{sys.executable} -m agentft chat {options}")
        finally:
            subprocess.run(["tmux", "-S", socket, "kill-server"], check=False, timeout=20)
    return 0


def measure(socket: str, command: str) -> None:
    """Start the chat in a terminal, and ask."""

    def tmux(*arguments: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", socket, *arguments], capture_output=True, text=True, check=True, timeout=20
        )
        return done.stdout

    def after(begun: float, there: Callable[[str], bool]) -> float:
        while not there(tmux("capture-pane", "-p")):
            if time.perf_counter() - begun > LIMIT:
                raise TimeoutError(tmux("capture-pane", "-p"))
            time.sleep(0.02)
        return time.perf_counter() - begun

    keep = f"export PYTHONPATH={os.environ.get('PYTHONPATH', '')}; unset PYTHONDONTWRITEBYTECODE"
    begun = time.perf_counter()
    tmux("new-session", "-d", "-x", "100", "-y", "40", f"{keep}; {command}; sleep 99")
    report("input line", after(begun, lambda shown: "\n›" in shown))
    report("model loaded", after(begun, lambda shown: " tokens" in shown))
    report("tools read", after(begun, lambda shown: "Esc stops" not in shown))
    for number, question in enumerate(QUESTIONS, start=1):
        tmux("send-keys", "-l", question)
        tmux("send-keys", "Enter")
        begun = time.perf_counter()
        began = partial(answers, question, ("answering", "writing a call", "⚙", "tokens/s"))
        report(f"round {number}: first token", after(begun, began))
        report(f"round {number}: answered", after(begun, partial(answers, question, ("tokens/s",))))


def answers(question: str, words: tuple[str, ...], shown: str) -> bool:
    """Whether one of the words is below the question."""
    below = shown.partition(f"› {question}\n")[2]
    return any(word in below for word in words)


def report(what: str, seconds: float) -> None:
    """Print one time."""
    sys.stdout.write(f"{what:<24}{seconds:7.2f} s\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
