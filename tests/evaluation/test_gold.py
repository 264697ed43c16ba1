"""The expected calls of a suite, executed and turned into perfect answers."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.agent import Job
from agentft.errors import InputError
from agentft.evaluation.gold import gold_states, oracle_answers
from agentft.types import (
    CallExpectation,
    Case,
    CaseTurn,
    Category,
    Exchange,
    Part,
    Span,
    Text,
    ToolCall,
    ToolDefinition,
)

TOOLS = (
    ToolDefinition("read", "", {}, ("http://w.test/read", "http://w.test/v2/read")),
    ToolDefinition("write", "", {}),
)


class Server:
    """Answers calls with an error if they have the argument `fail`, and remembers them by session."""

    def __init__(self) -> None:
        self.calls: dict[str, list[str]] = {}

    def call(self, call: ToolCall, session: str) -> Exchange:
        self.calls.setdefault(session, []).append(call.name)
        failed = "fail" in call.arguments
        return Exchange(call, "POST", "", dict(call.arguments), 404 if failed else 200, "x" * 300, failed)

    def state_digest(self, session: str) -> str:
        return " ".join(self.calls[session])


def expect(name: str, **arguments: Any) -> CallExpectation:
    return CallExpectation(name, arguments)


def case(name: str, *turns: CaseTurn, category: Category = "single") -> Case:
    return Case(name, "s", category, "en", ("w",), turns)


def states(*cases: Case) -> dict[str, str | None]:
    server = Server()
    return gold_states(cases, lambda _: server, lambda name: name == "write", "run")


def test_the_state_is_given_where_a_call_that_succeeds_writes() -> None:
    read, write, failing = expect("read"), expect("write"), expect("write", fail=1)
    assert states(
        case("nothing", CaseTurn("u")),
        case("reads", CaseTurn("u", (read, read))),
        case("writes", CaseTurn("u", (read, write, read))),
        case("writes in the second turn", CaseTurn("u", (read,)), CaseTurn("u", (write,))),
        case("fails to write", CaseTurn("u", (failing, read), failing=1)),
        case("reads after it fails to read", CaseTurn("u", (expect("read", fail=1), read), failing=1)),
        case("writes after it fails to", CaseTurn("u", (failing, write), failing=1)),
    ) == {
        "nothing": None,
        "reads": None,
        "writes": "read write read",
        "writes in the second turn": "read write",
        "fails to write": None,
        "reads after it fails to read": None,
        "writes after it fails to": "write write",
    }


def test_every_case_has_a_session_of_its_own() -> None:
    server = Server()
    cases = [case(name, CaseTurn("u", (expect("write"),))) for name in "ab"]
    assert gold_states(cases, lambda _: server, lambda _: True, "run") == {"a": "write", "b": "write"}
    assert list(server.calls) == ["run-gold-0", "run-gold-1"]


@pytest.mark.parametrize(
    ("calls", "failing", "message"),
    [
        ([{"fail": 1}], 0, f"read(fail=1) returned 404: {'x' * 200}; it was expected to succeed; fix"),
        ([{"a": "b", "c": 1}], 1, f"read(a='b', c=1) returned 200: {'x' * 200}; it was expected to fail; fix"),
        ([{"fail": 1}, {"fail": 2}], 1, "read(fail=2) returned 404"),
        ([{"fail": 1}, {}], 2, "read() returned 200"),
    ],
)
def test_a_call_that_does_not_do_what_is_expected_is_named(
    calls: list[dict[str, int]], failing: int, message: str
) -> None:
    turn = CaseTurn("u", tuple(expect("read", **call) for call in calls), failing=failing)
    with pytest.raises(InputError) as caught:
        states(case("c", turn))
    assert str(caught.value).startswith(f"suite s, case c: {message}")


def answers(*turns: CaseTurn, category: Category = "single") -> dict[str, tuple[Part, ...]]:
    return oracle_answers([Job(case("c", *turns, category=category), "", TOOLS)])


def text(content: str) -> tuple[Text]:
    return (Text(content, Span(0, len(content))),)


def gold(name: str, endpoint: str | None = None, **arguments: Any) -> ToolCall:
    return ToolCall("gold", name, arguments, Span(0, 0), endpoint=endpoint)


def test_calls_are_made_in_one_reply_at_the_first_endpoint_of_their_tool() -> None:
    found = answers(CaseTurn("u", (expect("read", a=1), expect("write"))), CaseTurn("u"), category="parallel")
    assert found == {
        "c/0/0": (gold("read", "http://w.test/read", a=1), gold("write")),
        "c/0/1": text("Done."),
        "c/1/0": text("Could you tell me more?"),
    }


@pytest.mark.parametrize("category", ["multi_round", "tool_error"])
def test_calls_that_follow_one_another_are_made_one_by_one(category: Category) -> None:
    found = answers(CaseTurn("u", (expect("write", a=1), expect("write", a=2))), category=category)
    assert found == {"c/0/0": (gold("write", a=1),), "c/0/1": (gold("write", a=2),), "c/0/2": text("Done.")}


def test_the_answer_is_the_reference_or_else_the_values() -> None:
    turns = [CaseTurn("u", answer=("7", "8")), CaseTurn("u", answer=("7",), reference="It is 7.")]
    assert answers(*turns) == {"c/0/0": text("7, 8"), "c/1/0": text("It is 7.")}


def test_optional_arguments_are_left_out() -> None:
    call = CallExpectation("write", {"a": 1}, {"a": (2,)}, {"b": 3})
    assert answers(CaseTurn("u", (call,)))["c/0/0"] == (gold("write", a=1),)
