"""Sessions on disk: one JSON file for each chat, written anew after every step, so that a crash loses nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.files import json_of, write_text
from agentft.records.parts import dump_part, read_part
from agentft.repl.session import ChatRound, Session
from agentft.types import Conversation, Exchange, Json, Step, Turn

__all__ = ["SessionStore", "StoredSession"]

_VERSION = 1


@dataclass(frozen=True, slots=True)
class StoredSession:
    """A stored chat. `origin`: the options that it was started with."""

    path: Path
    document: Mapping[str, Any]

    def options(self, *given: str | None) -> list[str | None]:
        """These options of the command line: those given, else those that the chat was started with."""
        keys = ("model", "adapter", "tools", "endpoint", "tokenizer")
        return [self.document["origin"].get(key) if one is None else one for key, one in zip(keys, given, strict=True)]

    def server(self) -> tuple[str | None, list[str]]:
        """The MCP server that the chat's calls went to, and the environment variables that it gets.

        Raises:
            InputError: its secrets were not stored.
        """
        origin = self.document["origin"]
        if origin.get("again"):
            raise InputError(
                f"the calls of this chat went to {origin['mcp']}, whose secrets are not stored; name it again with "
                "--mcp and --env, or use --mcp '' for made-up results"
            )
        return origin.get("mcp"), origin.get("env") or []

    @property
    def name(self) -> str:
        """What the person called it."""
        return str(self.document.get("name", ""))

    @property
    def questions(self) -> list[str]:
        """What was asked."""
        return [one["question"] for one in self.document["rounds"]]

    def open(self, session: Session) -> None:
        """Put the chat into a session.

        Raises:
            InputError: its turns are in another format than this model's, or damaged.
        """
        with _reading(self.path):
            self._fill(session)

    def _fill(self, session: Session) -> None:
        row = self.document["conversation"]
        if row["source"] != session.model.source:
            raise InputError(
                f"{self.path}: its turns are in the format {row['source']}, and this model writes "
                f"{session.model.source}; start agentft chat with the model {self.document['model']}"
            )
        turns = tuple(Turn(**{**one, "parts": tuple(map(read_part, one["parts"]))}) for one in row["turns"])
        rounds = [ChatRound(**{**one, "steps": [*map(_read_step, one["steps"])]}) for one in self.document["rounds"]]
        fixes = [*self.document["fixes"]]
        if session.worlds is not None:
            session.worlds.restore(row["id"], self.document["states"])
        session.conversation = Conversation(row["id"], turns, session.offered, row["source"])
        session.rounds, session.dropped, session.fixes = rounds, self.document["dropped"], fixes
        session.unanswered, session.name = "", self.name


@dataclass
class SessionStore:
    """The folder of the sessions. `origin`: the options of this chat's command line."""

    folder: Path
    origin: Mapping[str, Json] = field(default_factory=dict)

    def save(self, session: Session) -> None:
        """Write the session; nothing is written before the first question."""
        if not session.rounds:
            return
        conversation = session.conversation
        turns = [
            {"role": turn.role, "raw": turn.raw, "excluded": turn.excluded, "parts": [*map(dump_part, turn.parts)]}
            for turn in conversation.turns
        ]
        document = {
            "version": _VERSION,
            "saved": time.time(),
            "name": session.name,
            "model": session.model.name,
            "origin": dict(self.origin),
            "conversation": {"id": conversation.id, "source": conversation.source, "turns": turns},
            "rounds": [{**vars(one), "steps": [*map(_step_document, one.steps)]} for one in session.rounds],
            "states": session.worlds.snapshot(conversation.id) if session.worlds is not None else {},
            "dropped": session.dropped,
            "fixes": session.fixes,
        }
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        # Surrogates that a model wrote are escaped, so that they can be encoded.
        write_text(self.folder / f"{conversation.id}.json", json.dumps(document) + "\n")

    def find(self, name: str = "") -> StoredSession:
        """A session by its name, its id, the beginning of it, or its number in `newest`; the newest without a name.

        Raises:
            InputError: there is none, or it cannot be read.
        """
        paths = self._paths()
        if name.isdecimal() and 1 <= int(name) <= len(paths):
            paths = [paths[int(name) - 1]]
        elif name:
            if named := next((one for one in self.newest(len(paths)) if one.name == name), None):
                return named
            paths = [path for path in paths if path.stem.startswith(name)]
        if not paths:
            raise InputError(f"there is no session {name[:60]!r}; /load lists them" if name else "no chat is stored")
        return _read(paths[0])

    def newest(self, count: int) -> Iterator[StoredSession]:
        """The newest sessions; one that cannot be read is left out."""
        for path in self._paths()[:count]:
            with suppress(InputError):
                yield _read(path)

    def _paths(self) -> list[Path]:
        return sorted(self.folder.glob("chat-*.json"), key=lambda path: path.stat().st_mtime_ns, reverse=True)


def _step_document(step: Step) -> dict[str, Any]:
    exchanges = [{**asdict(one), "call": dump_part(one.call)} for one in step.exchanges]
    return {**asdict(step), "parts": [*map(dump_part, step.parts)], "exchanges": exchanges}


def _read_step(row: dict[str, Any]) -> Step:
    exchanges = tuple(Exchange(**{**one, "call": read_part(one["call"])}) for one in row["exchanges"])
    return Step(**{**row, "parts": tuple(map(read_part, row["parts"])), "exchanges": exchanges})


def _read(path: Path) -> StoredSession:
    with _reading(path):
        document = json_of(path.read_bytes())
        if document["version"] != _VERSION:
            raise InputError(f"{path}: written by another version of agentft; it cannot be resumed")
        document["conversation"]["turns"], document["rounds"], document["origin"].keys()
    return StoredSession(path, document)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Name the file in an error of the block, which reads a part of a session."""
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a session of this version ({error}); remove the file") from None
