"""Recordings of a real service (JSONL, secrets redacted), and their replay.

A line is `{"tool", "arguments", "status", "type", "body", "method", "url", "headers", "session"}`: `body` is JSON if
`type` is, otherwise text; `url` is the tool's route without the values of its parameters; `headers` are those of the
response. Refused calls and failures of the service (timeouts, lost connections, responses that are too large) are
recorded with the status that the caller got. A call is matched by its session, its tool and the canonical JSON of its
arguments, with secrets redacted.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any

from agentft.errors import ToolError
from agentft.files import naming
from agentft.redaction import redacted
from agentft.strict import read_as, read_bytes, read_json_line
from agentft.toolset import digest
from agentft.types import Json

__all__ = ["Recorded", "Recorder", "Replayer"]


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded exchange; the fields are the keys of its line. `session`: the caller's, with the name of its run."""

    tool: str
    arguments: Mapping[str, Json]
    status: int
    body: Json
    type: str = "application/json"
    method: str = "POST"
    url: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    session: str = ""


class Recorder:
    """Appends exchanges to a file, one write per line; each is on disk before its response is returned.

    Args:
        path: the file to append to; a new one is readable by its owner only.
        keep_secrets: do not redact secrets.

    Raises:
        InputError: the file exists and is not a recording.
    """

    def __init__(self, path: Path, *, keep_secrets: bool = False) -> None:
        path.touch(mode=0o600)
        _read(path)
        self._clean = (lambda value: value) if keep_secrets else redacted
        self._file = path.open("ab", buffering=0)
        self._lock = Lock()

    def add(self, exchange: Recorded) -> None:
        """Append an exchange.

        Raises:
            OSError: it could not be written in full.
        """
        try:
            row: Any = self._clean(asdict(exchange))
            line = json.dumps({**row, "session": exchange.session}, allow_nan=False).encode() + b"\n"
        except (ValueError, RecursionError):  # refused arguments that are not JSON, which no file can hold
            return
        with self._lock, naming(self._file.name):
            if self._file.write(line) < len(line):
                raise OSError("the recording could not be written in full; free some space")
            os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file. Closing twice is fine."""
        self._file.close()


class Replayer:
    """Responds from a recording, which `digest` identifies.

    A session gets its own responses in their order. The part of its name before the first dot is the run, and is
    ignored (`one.a` and `two.a` are the same session); a name without a dot counts in full. Of several runs of a
    session, the last one is replayed. If it was not recorded, the first session with the same part after the last dot
    (another arm with the same case) takes its place. If there is none, or it lacks the call, the responses of all
    sessions count: the n-th equal call gets the n-th one, later calls the last.

    Args:
        path: the recording.
        strict: refuse calls that were not recorded; otherwise the mock world responds to them.
        writes: the tools that change state. A session gets no response from after a write before it calls that write.

    Raises:
        InputError: the file cannot be read, or a line of it is wrong.
    """

    def __init__(self, path: Path, *, strict: bool = True, writes: Collection[str] = ()) -> None:
        self._all = _Answers(_read(path), writes)
        self._own: dict[str, _Answers] = {}
        runs: defaultdict[str, dict[str, list[Recorded]]] = defaultdict(dict)
        for exchange in self._all.exchanges:
            if exchange.session:
                runs[_without_run(exchange.session)].setdefault(exchange.session, []).append(exchange)
        for name, found in runs.items():
            self._own[name] = _Answers(list(found.values())[-1], writes)
            self._own.setdefault(name.rpartition(".")[2], self._own[name])  # for another arm with the same case
        self.digest = hashlib.sha256(path.read_bytes() + bytes([strict])).hexdigest()
        self._strict = strict
        self._sessions: dict[str, _Session] = {}
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = Lock()

    def __call__(self, tool: str, arguments: Mapping[str, Json], session: str) -> Recorded | None:
        """The recorded response; None: the mock world responds.

        Raises:
            ToolError: a strict replay has no response to the call, or its arguments are nested too deeply.
        """
        try:
            key = _key(tool, arguments)
        except RecursionError:
            raise ToolError("the arguments are nested too deeply; use plain values") from None
        with self._lock:
            found = self._find(session, key)
        if found is None and self._strict:
            raise ToolError(f"there is no recorded answer to {tool} with these arguments", status=404)
        return found

    def _find(self, session: str, key: str) -> Recorded | None:
        name = _without_run(session)
        own = self._own.get(name) or self._own.get(name.rpartition(".")[2])
        if own is not None and key in own.places:
            return self._sessions.setdefault(session, _Session(own)).next(key)
        places = self._all.places.get(key)
        if not places:
            return None
        self._counts[session, key] += 1
        return self._all.exchanges[places[min(self._counts[session, key], len(places)) - 1]]

    def close(self) -> None:
        """Do nothing: a replay holds no resources."""


class _Answers:
    """Recorded exchanges, with the places of each call and of the writes."""

    def __init__(self, exchanges: Sequence[Recorded], writes: Collection[str]) -> None:
        self.exchanges = exchanges
        self.places: defaultdict[str, list[int]] = defaultdict(list)
        for place, exchange in enumerate(exchanges):
            self.places[_key(exchange.tool, exchange.arguments)].append(place)
        self.writes = [place for place, exchange in enumerate(exchanges) if exchange.tool in writes]


class _Session:
    """How far a session has replayed its answers."""

    def __init__(self, answers: _Answers) -> None:
        self._answers = answers
        self._used: set[int] = set()
        self._last = -1  # the latest place that was replayed

    def next(self, key: str) -> Recorded:
        """The answer to a call: the next one without a write in between, else an unused earlier one, else the last."""
        places = self._answers.places[key]
        ahead = next((place for place in places if place > self._last), None)
        behind = [place for place in places if place <= self._last]
        if ahead is not None and behind:
            skipped = [place for place in self._answers.writes if self._last < place < ahead]
            ahead = None if set(skipped) - self._used else ahead
        if ahead is None:
            ahead = next((place for place in behind if place not in self._used), behind[-1])
        self._used.add(ahead)
        self._last = max(self._last, ahead)
        return self._answers.exchanges[ahead]


def _without_run(session: str) -> str:
    return session.partition(".")[2] or session


def _key(tool: str, arguments: Mapping[str, Json]) -> str:
    return digest([tool, redacted(dict(arguments))])


def _read(path: Path) -> list[Recorded]:
    lines = read_bytes(path, "use a file made by --record").split(b"\n")
    places = [(line, f"{path}:{number}") for number, line in enumerate(lines, start=1) if line.strip()]
    return [read_as(Recorded, read_json_line(line, at), at) for line, at in places]
