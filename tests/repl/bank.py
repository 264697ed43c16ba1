"""A chat with the bank's tools, whose state can change and go back, and scripted answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from agentft.errors import ToolError
from agentft.models.scripted import ScriptedModel
from agentft.repl.store import SessionStore
from agentft.toolserver import Sessions
from agentft.toolset import load_toolsets
from agentft.types import Exchange, Json, ToolCall
from tests.repl.stage import Stage

BANK = load_toolsets(["bank"])


def call(name: str, **arguments: Json) -> str:
    written = {"api_name": name, "url": f"http://bank.test/{name}", "parameters": arguments}
    return f"<|startofthink|>```JSON\n{json.dumps(written)}\n```<|endofthink|>"


LIMIT = call("set_daily_limit", account="checking", amount=100)
ANSWERS = {
    "*/0/0": LIMIT,
    "*/0/1": "The limit is 100.",
    "*/1/0": call("set_daily_limit", account="checking", amount=200),
}
ANSWERS |= {"*/1/1": "Now 200."}


class BankClient:
    """Sends calls to the worlds in this process."""

    def __init__(self) -> None:
        self.worlds = Sessions(BANK)

    def call(self, call: ToolCall, session: str) -> Exchange:
        try:
            status, found = 200, self.worlds.call(call.name, call.arguments, session)
        except ToolError as error:
            status, found = error.status, {"error": str(error)}
        sent = dict(call.arguments)
        return Exchange(call, "POST", call.endpoint, sent, status, json.dumps(found), is_error=status != 200)

    def state_digest(self, session: str) -> str:
        return self.worlds.digest(session)


class BankStage(Stage):
    """A stage whose tools are the bank's. `store`: where its sessions are stored."""

    def __init__(
        self,
        questions: Sequence[str | BaseException],
        answers: Mapping[str, str] | None = None,
        *,
        store: Path | None = None,
    ) -> None:
        super().__init__(questions, ANSWERS if answers is None else answers)
        self.client = BankClient()
        self.gate.inner = self.client
        self.session.worlds = self.client.worlds
        self.session.tools = BANK[0].definitions
        self.session.model = ScriptedModel(ANSWERS if answers is None else answers)
        self.session.reset()
        self.repl.toolsets = BANK
        self.gate.access = {name: tool.access for name, tool in BANK[0].tools.items()}
        self.repl.store = SessionStore(store) if store is not None else None

    def limit(self) -> object:
        """The daily limit of the checking account in the session's state."""
        states = {**self.client.worlds.initial(), **self.client.worlds.snapshot(self.session.conversation.id)}
        return states["bank"]["accounts"]["ACC-1001"]["daily_limit"]


def bank(
    *questions: str | BaseException, answers: Mapping[str, str] | None = None, store: Path | None = None
) -> BankStage:
    """A stage that was run."""
    stage = BankStage(questions, answers, store=store)
    stage.run()
    return stage
