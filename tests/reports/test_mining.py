"""What is mined from failures: groups, nearest rows, what was never seen, contradictions, and rows without leaks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from agentft.evaluation.plan import Arm, Plan
from agentft.evaluation.records import Record, read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.models.scripted import ScriptedModel
from agentft.reports.mining import Mined, mine
from agentft.rows.likeness import TrainedRequest
from agentft.types import Span, ToolCall
from tests.evaluation.world import call, small_plan

TOOLS = frozenset({"price", "order"})


def made(name: str, **arguments: Any) -> ToolCall:
    return ToolCall("c", name, arguments, Span(0, 0))


def trained(said: str, *calls: ToolCall, place: str = "d:1", tools: frozenset[str] = TOOLS) -> TrainedRequest:
    return TrainedRequest(place, (said,), calls, tools)


def run(plan: Plan, output: Path, text: str = "I see.") -> list[Record]:
    evaluate(plan, [Arm("model", "m", "m", lambda: ScriptedModel({"*": text}))], Settings(output))
    return list(read_records(output / "cases.jsonl"))


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return small_plan(tmp_path_factory.mktemp("plan"))


def mined(plan: Plan, training: list[TrainedRequest] | None, **wish: Any) -> Mined:
    output = plan.suites[0].folder / "out"
    records = list(read_records(output / "cases.jsonl")) if output.exists() else run(plan, output)
    return mine(plan, records, training, source=str(output), **wish)


def test_failures_are_grouped_and_named(plan: Plan) -> None:
    found = mined(plan, [trained("price of tea, please", made("price", item="tea"), place="d:7")])
    assert (found.cases, found.failures) == (7, 6)
    first = found.clusters[0]
    assert (first.name, first.cases) == ("no-call, price", ("s1", "p1", "e1"))
    assert first.categories == {"single": 1, "parallel": 1, "tool_error": 1}
    assert re.fullmatch(r'\(0\.[4-7]\d\): d:7 "price of tea, please" -> price', first.nearest)


def test_what_was_never_seen(plan: Plan) -> None:
    unseen = mined(plan, [trained("tea?", made("price", item="tea"))]).unseen
    assert unseen == {
        "tools": {"order": 3},
        "arguments": {},
        "values": {},
        "patterns": {"price + price": 2},
    }
    many = [trained(f"{item}?", made("price", item=item)) for item in "abcde"]
    unseen = mined(plan, [*many, trained("Two!", made("order", item="tea"))]).unseen
    assert unseen is not None
    assert unseen["arguments"] == {"order.count": 3}
    assert unseen["patterns"] == {"price + price": 2, "price + order": 1}
    assert mined(plan, None).unseen is None


def test_contradictions(plan: Plan) -> None:
    training = [
        trained("price of tea", made("price", item="cake"), place="d:1"),  # case s1 says tea
        trained("A?", made("price", item="a"), place="d:2"),
        trained("a", made("price", item="b"), place="d:3"),
        trained("A", place="d:4", tools=frozenset()),  # it has no tools, so it cannot call
        trained("Order two teas.", made("order", item="tea", count=2), place="d:5"),  # as case s2
        trained("Order tea.", made("price", item="tea"), place="d:6"),  # case m1 asks back
    ]
    found = mined(plan, training)
    assert found.contradictions is not None
    assert found.contradictions == [
        '"price of tea": d:1 makes price({"item": "cake"}), but case s1 expects price({"item": "tea"})',
        '"a": d:3 makes price({"item": "b"}), but d:2 price({"item": "a"})',
        '"Order tea.": d:6 makes price({"item": "tea"}), but case m1 expects no call',
    ]
    assert found.overlap == {"s1": "d:1", "s2": "d:5"}
    assert found.success == {"clean": 1 / 5, "overlapping": 0}  # only i1 is solved


def test_rows_say_where_they_come_from_and_equal_no_case(plan: Plan) -> None:
    found = mined(plan, None)
    assert found.proposals
    requests = [tuple(turn.user for turn in case.turns) for case in plan.cases]
    for one in found.proposals:
        assert not any(one.said == asked[: len(one.said)] for asked in requests)
        origin = one.row["metadata"]
        assert isinstance(origin, dict)
        assert {"from", "evaluation", "suite", "case", "case_digest", "error", "kind"} == origin.keys()
        assert (origin["case"], origin["kind"]) == (one.case, "values")
        assert str(one.row["id"]).startswith(f"{one.case}-values-")
    assert set(found.without) | {one.case for one in found.proposals} == {"s1", "s2", "p1", "m1", "e1", "r1"}


def test_a_proposal_that_a_case_asks_is_refused(tmp_path: Path) -> None:
    """The only other value is that of the second case."""
    cases = [
        {
            "id": item,
            "category": "single",
            "turns": [{"user": f"Price of {item}?", "calls": [call("price", item=item)]}],
        }
        for item in ("tea", "cake")
    ]
    plan = small_plan(tmp_path, cases)
    found = mined(plan, None)
    assert (found.proposals, found.refused, found.without) == ([], 2, ["tea", "cake"])


def test_what_training_has_is_not_proposed(plan: Plan) -> None:
    said = mined(plan, None).proposals[0].said
    known = TrainedRequest("d:1", tuple(f"{text.upper()}!" for text in said), (), TOOLS)
    assert said not in [one.said for one in mined(plan, [known]).proposals]


def test_nothing_failed(tmp_path: Path) -> None:
    plan = small_plan(tmp_path, [{"id": "i", "category": "irrelevance", "turns": [{"user": "A poem?"}]}])
    found = mined(plan, [])
    assert (found.failures, found.clusters, found.proposals, found.overlap) == (0, [], [], {})
