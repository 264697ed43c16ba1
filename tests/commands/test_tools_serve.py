"""`agentft tools serve` serves until Ctrl-C and prints a line that works; `tools call` runs one call."""

from __future__ import annotations

import re
import shlex
import signal
import subprocess
import sys
from contextlib import ExitStack
from functools import partial

import httpx
import pytest

from agentft.commands import run


def test_a_call_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "call", "calculator.calculate", '{"expression": "6 * 7"}']) == 0
    assert capsys.readouterr().out == '{"expression": "6 * 7", "result": 42}\n'


def test_a_refused_call_is_printed_and_exits_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "call", "calculator.calculate", '{"expression": "1/0"}']) == 1
    assert capsys.readouterr().out == '{"error": "division by zero"}\n'
    assert run(["tools", "call", "calculator.nothing"]) == 1


@pytest.mark.parametrize(
    "arguments", [["calculate"], ["nowhere.calculate"], ["calculator.calculate", "{"], ["calculator.calculate", "[]"]]
)
def test_what_names_no_call_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "call", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_another_host_wants_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "serve", "calculator", "--host", "0.0.0.0"]) == 2  # noqa: S104
    assert "--token" in capsys.readouterr().err


def test_it_serves_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "agentft", "tools", "serve", "calculator,weather"]
    # A shell's background job, as these tests may be, hands down that it ignores SIGINT.
    heed = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with (
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            preexec_fn=heed,  # noqa: PLW1509 - no threads here
        ) as process,
        ExitStack() as end,
    ):
        end.callback(process.kill)
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(8)]
        curl = shlex.split(next(line for line in lines if line.startswith("curl")))
        url, header, body = curl[3], curl[2], curl[5]
        name, _, value = header.partition(": ")
        answer = httpx.post(url, headers={name: value}, content=body.encode(), trust_env=False)
        assert (curl[1], curl[4]) == ("-H", "-d")
        assert answer.status_code == 200
        page = re.search(r"http://\S+/\?token=\S+", "".join(lines))
        assert page is not None
        assert httpx.get(page[0], trust_env=False).status_code == 303
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
