"""A chat with scripted answers and scripted tools, for tests."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from agentft.display.chat import ChatView
from agentft.models import Model, OnDelta, Reading, Reply, Request, Sampling, TokenScore
from agentft.models.scripted import ScriptedModel
from agentft.repl.gate import CallGate
from agentft.repl.loop import Repl
from agentft.repl.session import Session
from agentft.types import Conversation, Exchange, ToolCall, ToolDefinition, Turn

DOUBLE = ToolDefinition(
    "double",
    "Double a number.",
    {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]},
    ("http://math.test/double",),
)
CALL = (
    '<|startofthink|>```JSON\n{"api_name": "double", "url": "http://math.test/double", "parameters": {"x": 4}}\n'
    "```<|endofthink|>"
)
ANSWERS = {"*/0/0": f"I work it out.{CALL}", "*/0/1": "It is 8.", "*/1/0": "You are welcome."}


class Doubler:
    """A tool client that doubles."""

    def __init__(self) -> None:
        self.sessions: list[str] = []

    def call(self, call: ToolCall, session: str) -> Exchange:
        self.sessions.append(session)
        x = call.arguments["x"]
        assert isinstance(x, int)
        return Exchange(call, "POST", call.endpoint, None, 200, json.dumps({"result": 2 * x}), is_error=False)

    def state_digest(self, session: str) -> str:
        return ""


class Stage:
    """A Repl with scripted questions, whose output is recorded. A question may be an exception to raise."""

    def __init__(
        self,
        questions: Sequence[str | BaseException],
        answers: Mapping[str, str] | None = None,
        *,
        fmt: str = "msagent",
        save_to: Path | None = None,
        interactive: bool = True,
    ) -> None:
        self._questions = list(questions)
        self.asked: list[tuple[str, str]] = []
        self.screen, self.notes, self.tools = io.StringIO(), io.StringIO(), Doubler()
        view = ChatView(self._console(self.screen, terminal=interactive), self._console(self.notes, width=500))
        model = ScriptedModel(ANSWERS if answers is None else answers, fmt=fmt)
        self.gate = CallGate(self.tools)
        self.session = Session(model, self.gate, Sampling(), (DOUBLE,))
        self.repl = Repl(lambda: self.session, view, self._read, (), save_to=save_to, interactive=interactive)

    def run(self) -> Stage:
        self.repl.run()
        return self

    @property
    def shown(self) -> str:
        return self.screen.getvalue()

    @property
    def noted(self) -> str:
        return self.notes.getvalue()

    def _read(self, prompt: str, text: str = "", /) -> str:
        self.asked.append((prompt, text))
        if not self._questions:
            raise EOFError
        question = self._questions.pop(0)
        if isinstance(question, BaseException):
            raise question
        return question

    @staticmethod
    def _console(file: io.StringIO, *, terminal: bool = False, width: int = 80) -> Console:
        return Console(
            file=file, width=width, color_system=None, highlight=False, force_terminal=terminal, force_interactive=False
        )


class Inspectable:
    """A scripted model that says how sure it was: of the word `100` it was not."""

    context = 0

    def __init__(self, model: Model) -> None:
        self.model = model
        self.name, self.source, self.rendering = model.name, model.source, model.rendering

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        return self.model.reply(requests, sampling, on_delta)

    def prompt(self, conversation: Conversation) -> str:
        return f"[{len(conversation.turns)} turns]"

    def count(self, conversation: Conversation) -> int:
        return 100 * len(conversation.turns)

    def explain(self, conversation: Conversation, text: str) -> list[TokenScore]:
        words = re.findall(r"\S+\s*|\s+", text)
        unsure = (("200", 0.55), ("100", 0.4), ("\x1b[2J", 0.05))
        return [TokenScore(one, 0.4 if "100" in one else 0.99, unsure) for one in words]

    def read(self, replies: Sequence[tuple[Conversation, Turn]]) -> list[Reading]:
        return [Reading("", ()) for _ in replies]
