"""Rows from cases with other values: reworded, played, reserved values avoided, corrections and results followed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentft.agent import Job
from agentft.content import content_root
from agentft.evaluation.suites import load_suite
from agentft.records import parse_row
from agentft.synthesis.recipe import read_build_recipe
from agentft.synthesis.variants import Proposal, Studio, argument_values
from agentft.toolserver import ToolServer
from agentft.toolset import Toolset, load_toolset
from agentft.types import Case, Text, ToolCall, ToolDefinition
from tests.evaluation.world import call, small_plan, write_world


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ToolServer, Toolset]]:
    root = tmp_path_factory.mktemp("world")
    toolset = load_toolset(write_world(root))
    prices = dict.fromkeys(["tea", "cake", "bread", "cheese", "apples", "coffee beans"], 3)
    toolset = Toolset("shop", toolset.base_url, toolset.tools, {"prices": prices, "orders": []})
    with ToolServer([toolset], 0) as server:
        yield server, toolset


def job_of(tmp_path: Path, *turns: dict[str, Any], category: str = "single") -> Job:
    plan = small_plan(tmp_path, [{"id": "x", "category": category, "turns": list(turns)}])
    return plan.job(plan.cases[0])


def studio(shop: tuple[ToolServer, Toolset], taken: set[str] = frozenset(), seed: int = 0) -> Studio:  # type: ignore[assignment]
    server, toolset = shop
    return Studio(server.client(), [toolset], "You sell.", {("price", "item"): taken}, {}, seed=seed)


def values(shop: tuple[ToolServer, Toolset], job: Job, last: int = 0, count: int = 3, **options: Any) -> list[Proposal]:
    return list(studio(shop, **options).variants(job.case, last, job.tools, count))


def test_a_value_is_replaced_in_the_words_and_in_the_call(shop: tuple[ToolServer, Toolset], tmp_path: Path) -> None:
    job = job_of(tmp_path, {"user": "Price of TEA? Not of team.", "calls": [call("price", item="tea")]})
    found = values(shop, job)
    assert len(found) == 3
    for one in found:
        (made,) = one.calls
        item = made.arguments["item"]
        assert item in {"cake", "bread", "cheese", "apples", "coffee beans"}
        assert one.said == (f"Price of {item}? Not of team.",)
        assert (one.case, one.kind) == ("x", "values")
        conversation = parse_row(one.row, "")
        *_, last = conversation.turns
        assert [part.name for part in last.parts if isinstance(part, ToolCall)] == ["price"]
        assert {tool.name for tool in conversation.tools} == {"price", "order"}
    assert len({one.said for one in found}) == 3
    assert values(shop, job) == found
    assert values(shop, job, seed=1) != found


def test_values_of_the_evaluation_are_avoided(shop: tuple[ToolServer, Toolset], tmp_path: Path) -> None:
    job = job_of(tmp_path, {"user": "Price of tea?", "calls": [call("price", item="tea")]})
    assert {one.said[0] for one in values(shop, job, count=9, taken={"cake"})} == {
        "Price of bread?",
        "Price of cheese?",
        "Price of apples?",
        "Price of coffee beans?",
    }
    few = values(shop, job, count=9, taken={"cake", "bread"})  # three are left: too few
    assert "Price of cake?" in {one.said[0] for one in few}


def test_only_the_worlds_own_success_counts(shop: tuple[ToolServer, Toolset], tmp_path: Path) -> None:
    """`bomb` crashes the handler; a case that its world refuses gives no row."""
    refused = job_of(tmp_path, {"user": "Price of bomb?", "calls": [call("price", item="bomb")]})
    assert values(shop, refused) == []
    silent = job_of(tmp_path, {"user": "How much is it?", "calls": [call("price", item="tea")]})
    assert values(shop, silent) == []  # the user names no value


def test_a_result_is_followed(shop: tuple[ToolServer, Toolset], tmp_path: Path) -> None:
    """`3` stands in the first result at `price`, and the user does not name it."""
    turns = [
        {"user": "Price of tea?", "calls": [call("price", item="tea")], "answer": ["3"]},
        {"user": "Order as many bread as it costs.", "calls": [call("order", item="bread", count=3)]},
    ]
    job = job_of(tmp_path, *turns, category="multi_round")
    (one, *_) = values(shop, job, last=1)
    assert one.calls[0].arguments["count"] == 3
    assert one.said[0] != "Price of tea?"
    reply = parse_row(one.row, "").turns[2]
    assert "".join(part.text for part in reply.parts if isinstance(part, Text)).strip() == "3"
    assert values(shop, job, last=0)[0].said[1:] == ()


def test_a_question_is_asked_for_what_the_next_turn_supplies(shop: tuple[ToolServer, Toolset], tmp_path: Path) -> None:
    turns: list[dict[str, Any]] = [
        {"user": "Order tea."},
        {"user": "Make it 3.", "calls": [call("order", item="tea", count=3)]},
    ]
    job = job_of(tmp_path, *turns, category="missing_parameter")
    (one, *_) = values(shop, job, last=0)
    assert one.row["conversations"][-1] == {"from": "assistant", "value": "Could you tell me more?"}  # type: ignore[index]
    (two, *_) = values(shop, job, last=1)
    assert two.said[1] == f"Make it {two.calls[0].arguments['count']}."
    closing = job_of(tmp_path, {"user": "Price of tea?", "calls": [call("price", item="tea")]}, {"user": "Thanks!"})
    assert values(shop, closing, last=1) == []  # somebody would have to write the reply


def test_a_call_that_must_fail_gives_no_row(shop: tuple[ToolServer, Toolset], tmp_path: Path) -> None:
    calls = [call("price", item="tee"), call("price", item="tea")]
    job = job_of(tmp_path, {"user": "Price of tee?", "calls": calls, "failing": 1}, category="tool_error")
    assert values(shop, job) == []


def test_numbers_and_enums() -> None:
    suite = load_suite("weather")
    case = next(case for case in suite.cases if case.id == "weather-single-05")
    toolset = load_toolset("weather")
    tools = toolset.definitions
    with ToolServer([toolset], 0) as server:
        make = Studio(server.client(), [toolset], "", argument_values(suite.cases), {})
        (one, *_) = make.values(case, 0, tools)
    assert one.calls[0].arguments["unit"] != "fahrenheit"
    assert str(one.calls[0].arguments["unit"]) in one.said[0]


def by_id(name: str) -> tuple[Case, tuple[ToolDefinition, ...], Toolset]:
    suite, toolset = load_suite("weather"), load_toolset("weather")
    return next(case for case in suite.cases if case.id == name), toolset.definitions, toolset


def test_templates_have_the_same_tools_and_other_words() -> None:
    case, tools, toolset = by_id("weather-parallel-01")
    recipe = read_build_recipe(content_root() / "datasets" / "worlds.toml")
    wanted = sorted(call.name for turn in case.turns for call in turn.calls)
    with ToolServer([toolset], 0) as server:
        make = Studio(server.client(), [toolset], "You know the weather.", {}, {}, recipe)
        found = list(make.variants(case, None, tools, 2))
        again = list(make.variants(case, None, tools, 2))
        none = list(Studio(server.client(), [toolset], "", {}, {}).variants(case, None, tools, 2))
    assert [one.kind for one in found] == ["template", "template"]
    for one in found:
        assert sorted(made.name for made in one.calls) == wanted
        assert not any("{" in said for said in one.said)
    assert len({one.said for one in found + again}) == 4  # no conversation is used twice
    assert none == []


def test_values_of_arguments() -> None:
    case, _, _ = by_id("weather-single-05")
    assert argument_values([case]) == {
        ("current_weather", "city"): {"melbourne"},
        ("current_weather", "unit"): {"fahrenheit"},
    }
