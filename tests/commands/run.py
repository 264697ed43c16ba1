"""Runs `agentft` as users do, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["REPOSITORY", "run_process"]

REPOSITORY = Path(__file__).parents[2]


def run_process(
    arguments: Sequence[str], *, stdin: str | bytes = "", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -m agentft ARGUMENTS` with `stdin` as piped input, in 80 columns, with `env` on top of ours."""
    data = stdin.encode() if isinstance(stdin, str) else stdin
    done = subprocess.run(
        [sys.executable, "-m", "agentft", *arguments],
        input=data,
        capture_output=True,
        check=False,
        timeout=300,
        cwd=cwd or REPOSITORY,
        env={**os.environ, "COLUMNS": "80", "PYTHONPATH": str(REPOSITORY), **(env or {})},
    )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())
