"""The shipped suites: their coverage, that their calls run, and that their answers are in the results."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from agentft.content import content_root
from agentft.evaluation.suites import Suite, load_suite
from agentft.metrics.values import contains_value
from agentft.synthesis.build import build
from agentft.toolserver import ToolClient, ToolServer
from agentft.toolset import Toolset, load_toolset
from agentft.types import CATEGORIES, CallExpectation, Case, Exchange, Json, Span, ToolCall

TRAINED = ("weather", "search", "calculator", "basics")  # the suites of the worlds that have training data
UNTRAINED = ("bank", "calendar", "files", "shop", "smart-home", "trains")
SUITES = (*TRAINED, *UNTRAINED)
WORLDS = tuple(name for name in SUITES if name != "basics")
LATER = {"dependent", "missing_tool"}  # categories that the older suites lack
SAID = {
    "1": "tomorrow 明天",
    "2": "two 两",
    "3": "three 三",
    "4": "four 四",
    "5": "five 五",
    "6": "six 六",
    "7": "seven 七",
    "rain": "下雨",
    "snow": "下雪",
    "wind": "大风",
    "frost": "霜冻",
    "fahrenheit": "华氏度",
    "groceries": "日用杂货",
    "dining": "餐饮",
    "transport": "交通",
    "housing": "住房",
    "leisure": "休闲娱乐",
    "damaged": "坏了",
    "not needed": "不需要了",
    "wrong item": "发错了",
    "every day": "每天",
    "weekdays": "工作日",
    "weekends": "周末",
    "true": "on brightness 打开",
    "false": "off",
    "light": "lights",
    "heat": "高温 供暖",
}
WRITES = {"set_weather_alert", "save_bookmark", "store_number"}


@pytest.fixture(scope="module")
def suites() -> tuple[Suite, ...]:
    return tuple(load_suite(name) for name in SUITES)


@pytest.fixture(scope="module")
def cases(suites: tuple[Suite, ...]) -> list[Case]:
    return [case for suite in suites for case in suite.cases]


@pytest.fixture(scope="module")
def toolsets() -> dict[str, Toolset]:
    return {name: load_toolset(name) for name in WORLDS}


@pytest.fixture(scope="module")
def client(toolsets: dict[str, Toolset]) -> Iterator[ToolClient]:
    with ToolServer(list(toolsets.values()), 0) as server:
        yield server.client()


def make(call: CallExpectation, client: ToolClient, session: str) -> Exchange:
    """The result of the expected call."""
    return client.call(ToolCall("gold", call.name, dict(call.arguments), Span(0, 0)), session)


def values(value: Json) -> set[str]:
    """Every value of a result as text."""
    if isinstance(value, dict):
        return set[str]().union(*(values(item) for item in value.values()))
    return {value if isinstance(value, str) else json.dumps(value)}


def test_at_least_240_cases_cover_the_categories(cases: list[Case]) -> None:
    counts = Counter(case.category for case in cases)
    assert len(cases) >= 240
    assert set(counts) == set(CATEGORIES) - {"injection"}  # a suite of its own: test_injection.py
    assert min(counts.values()) >= 30


def test_every_suite_has_every_category_and_tool(suites: tuple[Suite, ...], toolsets: dict[str, Toolset]) -> None:
    for suite in suites:
        expected = set(CATEGORIES) - {"injection"} - (LATER if suite.name in TRAINED else set())
        assert {case.category for case in suite.cases} == expected
        called = {call.name for case in suite.cases for turn in case.turns for call in turn.calls}
        offered = {tool for world in suite.worlds for tool in toolsets[world].tools}
        assert called == (set(suite.tools) or offered)
        assert called <= offered


def test_at_least_15_percent_are_chinese(suites: tuple[Suite, ...]) -> None:
    for suite in suites:
        share = sum(case.lang == "zh" for case in suite.cases) / len(suite.cases)
        assert 0.15 <= (1 - share if suite.name == "trains" else share) <= 0.35  # its tools speak Chinese


def test_the_language_of_a_case_is_right(cases: list[Case]) -> None:
    for case in cases:
        for turn in case.turns:
            assert any("\u4e00" <= letter <= "\u9fff" for letter in turn.user) == (case.lang == "zh"), turn.user


def test_ids_are_unique_and_requests_in_a_suite(cases: list[Case]) -> None:
    assert len({case.id for case in cases}) == len(cases)
    assert len({(case.suite, *(turn.user for turn in case.turns)) for case in cases}) == len(cases)


@pytest.mark.slow
def test_expected_calls_run_and_answers_are_in_their_results(cases: list[Case], client: ToolClient) -> None:
    for case in cases:
        for turn in case.turns:
            exchanges = [make(call, client, f"gold-{case.id}") for call in turn.calls]
            failed = [exchange.is_error for exchange in exchanges]
            assert failed == [index < turn.failing for index in range(len(failed))], case.id
            said = {text for exchange in exchanges for text in values(json.loads(exchange.received))}
            if case.suite in TRAINED:
                assert set(turn.answer) <= said, case.id
            # Other results say several things in one text.
            assert all(any(contains_value(text, value) for text in said) for value in turn.answer), case.id


def test_calls_fit_their_schemas_with_optional_and_alternative_values(
    cases: list[Case], toolsets: dict[str, Toolset]
) -> None:
    tools = {tool.name: tool.parameters for toolset in toolsets.values() for tool in toolset.definitions}
    for case in cases:
        for call in (call for turn in case.turns for call in turn.calls):
            properties = tools[call.name]["properties"]
            assert isinstance(properties, dict)
            assert {*call.arguments, *call.optional} <= set(properties)
            assert set(call.alternatives) <= set(call.arguments)


@pytest.mark.slow
def test_arguments_are_in_the_conversation_or_in_a_result(cases: list[Case], client: ToolClient) -> None:
    """A model cannot guess values that are not in the conversation."""
    for case in cases:
        heard = ""
        for turn in case.turns:
            heard += f" {turn.user.casefold()} "
            for call in turn.calls:
                for name, value in call.arguments.items():
                    assert any(way in heard for way in ways_to_say(name, value)), (case.id, value)
                received = make(call, client, f"said-{case.id}").received
                heard += f" {received} {' '.join(values(json.loads(received)))} ".casefold()


def ways_to_say(name: str, value: Json) -> set[str]:
    """The ways to write an argument in a request; an expression is searched for by its numbers."""
    if name == "expression" and isinstance(value, str):
        return {re.findall(r"[\d.]+", value)[0]}
    written = (value if isinstance(value, str) else json.dumps(value)).casefold()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", written):
        day = date.fromisoformat(written)
        return {written, f"{day:%-d %B %Y}".casefold(), f"{day:%Y年%-m月%-d日}"}
    bare_page = {written[1:]} if re.fullmatch(r"p\d+", written) else set()
    return {written, *SAID.get(written, "").split(), *bare_page}


def test_missing_parameter_cases_ask_first_and_then_call(cases: list[Case]) -> None:
    for case in (case for case in cases if case.category == "missing_parameter"):
        assert not case.turns[0].calls
        assert len(case.turns) == 2
        assert case.turns[1].calls


def test_cases_fit_their_categories(cases: list[Case]) -> None:
    for case in cases:
        calls = [[call.name for call in turn.calls] for turn in case.turns]
        match case.category:
            case "single":
                assert [len(turn) for turn in calls] == [1]
            case "several_tools":
                assert len(set(calls[0])) >= 2
            case "parallel":
                assert len(calls[0]) >= 2
                assert len(set(calls[0])) == 1
            case "multi_round":
                assert 2 <= len(calls) <= 3
                assert calls[0]
            case "dependent":
                assert [len(turn) >= 2 for turn in calls] == [True]
            case "irrelevance" | "missing_tool":
                assert not any(calls)
            case "tool_error":
                assert any(turn.failing for turn in case.turns)
                assert sum(len(turn.calls) - turn.failing for turn in case.turns) >= 1


def test_tools_that_write_are_called_alone_and_in_parallel(cases: list[Case]) -> None:
    for category in ("single", "parallel"):
        names = {call.name for case in cases if case.category == category for call in case.turns[0].calls}
        assert names >= WRITES


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.slow
def test_the_recipe_builds_the_shipped_cases(name: str, tmp_path: Path) -> None:
    """If a world has changed its results, rebuild: agentft data build evals/NAME/build.toml --output ..."""
    folder = content_root() / "evals" / name
    build(folder / "build.toml", tmp_path / "cases.jsonl", ToolServer)
    assert (tmp_path / "cases.jsonl").read_bytes() == (folder / "cases.jsonl").read_bytes()
