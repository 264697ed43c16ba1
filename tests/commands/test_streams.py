"""What commands do with their standard output: a reader that leaves, a locale that is not UTF-8."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands.run import REPOSITORY


@pytest.mark.parametrize("command", [["tools", "list"], ["--help"], ["tools", "list", "--json"]])
def test_a_command_whose_reader_has_left_exits_as_shells_report_sigpipe(command: list[str]) -> None:
    started = [sys.executable, "-m", "agentft", *command]
    with subprocess.Popen(started, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=REPOSITORY) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(120) == 141
        assert process.stderr is not None
        assert process.stderr.read() == b""


def test_where_the_locale_is_not_utf8_pipes_get_utf8(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text('{"key": "*", "text": "5 \u20ac \\u5317"}\n', encoding="utf-8")
    command = [sys.executable, "-m", "agentft", "chat", "--model", f"scripted:{tmp_path}/answers.jsonl", "--tools", ""]
    latin = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, input=b"hi\n", capture_output=True, env=latin, timeout=300, check=False)
    assert (done.returncode, done.stdout.decode()) == (0, "5 \u20ac \u5317\n"), done.stderr
