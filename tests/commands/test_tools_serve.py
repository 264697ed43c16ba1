"""`agentft tools serve` serves until Ctrl-C and prints a working curl command; `tools call` runs one call."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

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
def test_an_invalid_call_is_one_line(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "call", *arguments]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_listening_on_another_host_needs_a_token(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "serve", "calculator", "--host", "0.0.0.0"]) == 2  # noqa: S104
    assert "--token" in capsys.readouterr().err


def test_it_serves_until_it_is_interrupted() -> None:
    command = [sys.executable, "-m", "agentft", "tools", "serve", "calculator,weather"]
    with started(command) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(8)]
        curl = shlex.split(next(line for line in lines if line.startswith("curl")))
        url, header, body = curl[3], curl[2], curl[5]
        name, _, value = header.partition(": ")
        answer = httpx.post(url, headers={name: value}, content=body.encode(), trust_env=False, timeout=60)
        assert (curl[1], curl[4]) == ("-H", "-d")
        assert answer.status_code == 200
        page = re.search(r"http://\S+/\?token=\S+", "".join(lines))
        assert page is not None
        assert httpx.get(page[0], trust_env=False, timeout=60).status_code == 303
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that reacts to SIGINT, even if the tests run as a shell's background job, and ends with the test."""
    react = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        bufsize=1,
        preexec_fn=react,  # noqa: PLW1509
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@contextmanager
def served(*options: str) -> Iterator[str]:
    """The address of a server that the command started with the token `a-long-token`."""
    command = [sys.executable, "-m", "agentft", "tools", "serve", "calculator", "--token", "a-long-token", *options]
    with started(command) as process:
        assert process.stdout is not None
        yield process.stdout.readline().rpartition(" ")[2].strip()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=300) == 130


def calculate(address: str, expression: str) -> httpx.Response:
    headers = {"Authorization": "Bearer a-long-token"}
    return httpx.post(
        f"{address}/tools/calculate", json={"expression": expression}, headers=headers, trust_env=False, timeout=60
    )


@pytest.mark.slow
def test_faults_recording_and_replay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three servers: one with faults that records a faultless one behind it, then one that replays."""
    kept = tmp_path / "kept.jsonl"
    monkeypatch.setenv("AGENTFT_REAL_AUTHORIZATION", "Bearer a-long-token")
    faults = tmp_path / "faults.toml"
    faults.write_text('[[fault]]\nkind = "503"\ncalls = [2]\n')
    with served() as real, served("--real", real, "--record", str(kept), "--faults", str(faults)) as address:
        answers = [calculate(address, text) for text in ("6 * 7", "1", "2")]
    assert [answer.status_code for answer in answers] == [200, 503, 200]
    assert [json.loads(line)["body"]["result"] for line in kept.read_text().splitlines()] == [42, 2]
    with served("--replay", str(kept)) as address:
        assert [calculate(address, text).status_code for text in ("6 * 7", "3")] == [200, 404]
    with served("--replay", str(kept), "--replay-miss", "mock") as address:
        assert calculate(address, "3").json()["result"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--faults", "tmeout=1"], "did you mean 'timeout'?"),
        (["--faults", "500=1", "--stdio"], "--stdio uses no HTTP; omit --faults"),
        (["--record", "kept.jsonl"], "add --real, or omit --record"),
    ],
)
def test_conflicting_options_are_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["tools", "serve", "calculator", *options]) == 2
    assert message in capsys.readouterr().err
