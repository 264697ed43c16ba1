"""The multi-turn simulators of BFCL as a source of results for the tool server, and as the official checker.

They run in a process of their own, with bounds on its memory and on the time of a request; it is started when it is
needed, and again after it has died. A request holds all that it depends on, so nothing is left from earlier ones.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from select import select
from threading import RLock
from typing import Any
from weakref import finalize

from agentft.errors import MissingError
from agentft.evaluation import simulators_main
from agentft.metrics.bfcl import Verdict
from agentft.toolserver.recording import Recorded
from agentft.types import Json

__all__ = ["Simulators"]

_SECONDS = 60.0  # for one request, and for starting the process
_NOTHING = "the simulators gave no result"


class Simulators:
    """Runs calls and checks entries. Thread-safe.

    Args:
        code: the wheel or folder that `bfcl_eval` is imported from.
        digest: identifies its content.
        seconds: how long a request may take.
    """

    def __init__(self, code: Path, digest: str, seconds: float = _SECONDS) -> None:
        self.digest = digest
        self.entries: dict[str, Mapping[str, Any]] = {}
        """By the last part of a session's name (see `Job.session`): the `classes`, `config` and `long` of its entry."""
        self._calls: dict[str, list[tuple[str, Any]]] = {}
        self._command = [sys.executable, "-I", simulators_main.__file__, str(code.resolve())]
        self._seconds = seconds
        self._lock = RLock()
        self._process: subprocess.Popen[str] | None = None

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded:
        """The result of a call in a session, as text."""
        made = self._calls.setdefault(session, [])
        calls = [*made, (tool, dict(arguments))]
        result = self._ask({**self.entries[session.rpartition(".")[2]], "calls": calls})
        if result is None:
            result = f"Error during execution: {_NOTHING}"
        else:
            made[:] = calls
        return Recorded(tool, arguments, 200, result, "text/plain")

    def check(
        self, entry: Mapping[str, Any], answers: Sequence[Sequence[str]], turns: Sequence[Sequence[Any]]
    ) -> Verdict:
        """The official verdict on the calls of each turn, (name, arguments), of which a model may have fewer."""
        if len(turns) != len(answers):
            return Verdict(False, "multi_turn:force_terminated", detail=f"it ended in turn {len(turns) - 1}")
        error, detail = self._ask({**entry, "answers": answers, "turns": turns}) or ("checker_error", _NOTHING)
        return Verdict(not error, error, detail=detail)

    def _ask(self, request: Mapping[str, Any]) -> Any:
        """The reply; None if a call hangs, or ends the process.

        Raises:
            MissingError: the simulators cannot be loaded.
        """
        with self._lock:
            process = self._process = self._process or self._start()
            line = ""
            with suppress(OSError):  # it has died
                if process.stdin and process.stdout:
                    process.stdin.write(json.dumps(request) + "\n")
                    process.stdin.flush()
                    line = process.stdout.readline() if select([process.stdout], [], [], self._seconds)[0] else ""
            if not line:
                self.close()
        found = json.loads(line or "{}")
        if process.returncode == 1:  # Python's, if it cannot start the script
            found = {"failed": f"`{' '.join(self._command)}` ends at once"}
        if "failed" in found:
            raise MissingError(f"BFCL's simulators cannot be run: {found['failed']}")
        return found.get("reply")

    def _start(self) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(  # noqa: S603  (our own script)
            self._command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True, encoding="utf-8"
        )
        self._stop = finalize(self, _stop, process)
        return process

    def close(self) -> None:
        """End the process; a later request starts it again."""
        with self._lock:
            if self._process is not None:
                self._process = None
                self._stop()


def _stop(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
