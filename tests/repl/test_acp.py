"""The agent in an editor, which is the protocol's own SDK here."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from agentft.repl.session import Session
from agentft.types import Step
from tests.commands.run import REPOSITORY, run_process
from tests.repl.bank import LIMIT, BankStage

acp = pytest.importorskip("acp", reason="the SDK of the Agent Client Protocol is not installed")

ANSWERS = {
    "*/0/0": f"I set it. {LIMIT}",
    "*/0/1": "The limit is 100.",
    "*/1/0": LIMIT,
    "*/1/1": "It stays.",
    "*/2/0": "A long answer: " + " ".join(f"word{n}" for n in range(3000)),
    "*/3/0": LIMIT,
    "*/3/1": "Never said.",
}
SECONDS = 300


class Editor:
    """An editor that keeps the updates. `says`: which option the person takes next; "" closes the question."""

    def __init__(self, *says: str) -> None:
        self.says, self.asked, self.updates = [*says], [], []  # type: ignore[var-annotated]
        self.came = asyncio.Event()

    async def session_update(self, session_id: str, update: Any, **_: Any) -> None:
        self.updates.append(update)
        if "word9" in self.text:
            self.came.set()

    async def request_permission(self, session_id: str, tool_call: Any, options: list[Any], **_: Any) -> Any:
        self.asked.append(tool_call)
        chosen = self.says.pop(0)
        allowed = (
            acp.schema.AllowedOutcome(outcome="selected", option_id=chosen)
            if chosen
            else acp.schema.DeniedOutcome(outcome="cancelled")
        )
        assert [option.option_id for option in options] == ["allow_once", "allow_always", "reject_once"]
        return acp.schema.RequestPermissionResponse(outcome=allowed)

    @property
    def text(self) -> str:
        return "".join(one.content.text for one in self.updates if one.session_update == "agent_message_chunk")

    def calls(self) -> list[tuple[str, str, str]]:
        """The updates of calls, which are forgotten."""
        kinds = {"tool_call", "tool_call_update"}
        found = [(u.session_update, u.tool_call_id, u.status) for u in self.updates if u.session_update in kinds]
        self.updates.clear()
        return found


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_tokens"), ("filtered", "refusal"), ("end", "end_turn")])
def test_why_an_answer_ended(finish: Any, reason: str) -> None:
    from agentft.repl.acp import _reason

    assert _reason(Step(0, (), "", finish, (), 1, 1)) == reason


async def _chat(agent: Any, editor: Editor) -> None:
    started = await agent.initialize(protocol_version=acp.PROTOCOL_VERSION)
    assert started.agent_info.name == "agentft"
    session = (await agent.new_session(cwd="/", mcp_servers=[])).session_id

    async def ask(text: str) -> Any:
        made = await asyncio.wait_for(agent.prompt(session_id=session, prompt=[acp.text_block(text)]), SECONDS)
        return made.stop_reason

    assert await ask("limit to 100") == "end_turn"
    assert editor.text == "I set it. The limit is 100."
    (asked,) = editor.asked
    assert (asked.title, asked.raw_input) == ("set_daily_limit", {"account": "checking", "amount": 100})
    last = next(one for one in reversed(editor.updates) if one.session_update == "tool_call_update")
    assert '"daily_limit"' in last.content[0].content.text
    assert editor.calls() == [("tool_call", "call_1", "pending"), ("tool_call_update", "call_1", "completed")]
    assert await ask("again") == "end_turn"
    assert editor.calls() == [("tool_call", "call_2", "pending"), ("tool_call_update", "call_2", "failed")]
    answering = asyncio.ensure_future(ask("talk"))
    await asyncio.wait_for(editor.came.wait(), SECONDS)
    await agent.cancel(session_id=session)
    assert await answering == "cancelled"
    assert "word2999" not in editor.text
    assert await ask("and again") == "cancelled"
    assert "Never said." not in editor.text
    with pytest.raises(acp.RequestError):
        await ask("there is no answer to this")
    with pytest.raises(acp.RequestError):
        await agent.prompt(session_id="gone", prompt=[acp.text_block("hi")])
    for empty in ([], [acp.text_block(" \n")], [acp.image_block("AA==", "image/png")]):
        with pytest.raises(acp.RequestError) as refused:
            await agent.prompt(session_id=session, prompt=empty)
        assert refused.value.data == {"details": "the prompt has no text"}
    await agent.cancel(session_id="gone")


SAYS = ("allow_once", "reject_once", "")


@pytest.mark.slow
def test_an_editor_talks_to_the_agent_over_stdio(tmp_path: Path) -> None:
    lines = (json.dumps({"key": key, "text": text}) for key, text in ANSWERS.items())
    (tmp_path / "answers.jsonl").write_text("\n".join(lines))
    options = ["--model", f"scripted:{tmp_path / 'answers.jsonl'}", "--tools", "bank", "--approve", "writes", "--acp"]
    command = [sys.executable, "-m", "tests.repl.slow", "chat", *options]
    environment = {"AGENTFT_TEST_SECONDS": "0.005", "AGENTFT_CACHE": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}

    async def talk() -> int:
        editor = Editor(*SAYS)
        spawned = acp.spawn_agent_process(editor, *command, env=environment, cwd=REPOSITORY)
        async with spawned as (agent, process):
            await _chat(agent, editor)
            process.stdin.close()
            return await asyncio.wait_for(process.wait(), SECONDS)

    assert asyncio.run(talk()) == 0


def test_an_editor_may_cancel_without_answering_what_it_is_asked() -> None:
    """Many editors leave the request for a permission open; the agent must not wait for it any more."""
    from agentft.repl.acp import AcpAgent

    class Silent(Editor):
        async def request_permission(self, *_: Any, **__: Any) -> Any:
            self.came.set()
            await asyncio.Event().wait()

    def opened() -> Session:
        return BankStage([], {"*/0/0": LIMIT, "*/0/1": "Never said.", "*/1/0": "Hello."}).session

    async def talk() -> None:
        agent, editor = AcpAgent(opened), Silent()
        agent.on_connect(editor)
        session = (await agent.new_session("/")).session_id
        agent._chats[session].session.gate.approve = "always"
        answering = asyncio.ensure_future(agent.prompt(session, [acp.text_block("limit to 100")]))
        await asyncio.wait_for(editor.came.wait(), SECONDS)
        await agent.cancel(session)
        assert (await asyncio.wait_for(answering, SECONDS)).stop_reason == "cancelled"
        assert (await agent.prompt(session, [acp.text_block("hi")])).stop_reason == "end_turn"
        assert editor.text == "Hello."

    asyncio.run(talk())


def test_every_session_is_a_chat_of_its_own() -> None:
    from agentft.repl.acp import AcpAgent

    def opened() -> Session:
        stage = BankStage([], {"*/0/0": "Hello.", "*/1/0": "Hello again."})
        return stage.session

    async def talk() -> None:
        agent, editor = AcpAgent(opened), Editor()
        agent.on_connect(editor)
        first, second = [(await agent.new_session("/")).session_id for _ in range(2)]
        for session, said in ((first, "Hello."), (second, "Hello."), (first, "Hello again.")):
            editor.updates.clear()
            link = acp.resource_link_block("notes", "file:///notes.txt")
            made = await agent.prompt(session, [acp.text_block("see"), link])
            assert (made.stop_reason, editor.text) == ("end_turn", said)
        assert agent._chats[first].session.rounds[0].question == "see\nfile:///notes.txt"
        agent.stop()
        assert agent._chats[first].session.gate.cancelled.is_set()

    asyncio.run(talk())


NO_MESSAGES = {
    "{bad": -32700,
    "[" * 100_000: -32700,
    '"' + "x" * (1 << 24) + '"': -32700,
    "\0\0": -32700,
    "42": -32600,
    "[]": -32600,
    "null": -32600,
    '"x"': -32600,
    '{"id": {}}': -32600,
    '{"id": 9, "method": []}': -32600,
    '{"id": 0, "error": "x"}': -32600,
}


def test_what_is_no_message_is_refused_and_the_next_one_answered(tmp_path: Path) -> None:
    (tmp_path / "answers.jsonl").write_text(json.dumps({"key": "*", "text": "Hello."}))
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 1}}
    noted = {"jsonrpc": "2.0", "method": "session/cancel\x1b[2J", "params": []}
    lines = [*NO_MESSAGES, "", json.dumps(noted), json.dumps(hello)]
    command = ["chat", "--model", f"scripted:{tmp_path / 'answers.jsonl'}", "--tools", "", "--acp"]
    done = run_process(command, stdin="\n".join(lines), env={"AGENTFT_CACHE": str(tmp_path)})
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    refusals = [answer["error"]["code"] for answer in answers if answer["id"] is None]
    assert (refusals, done.returncode) == ([*NO_MESSAGES.values()], 0)
    assert [answer["result"]["agentInfo"]["name"] for answer in answers if answer["id"] == 1] == ["agentft"]
    assert "session/cancel␛[2J" in done.stderr
    assert "Traceback" not in done.stderr
