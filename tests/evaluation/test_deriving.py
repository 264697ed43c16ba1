"""Derived suites: what each transform changes, that the expected answers follow, and that they are solvable."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.evaluation.checking import check_cases
from agentft.evaluation.deriving import TRANSFORMS, Derived, derive
from agentft.evaluation.gold import oracle_answers
from agentft.evaluation.plan import Arm, Plan, make_plan
from agentft.evaluation.records import read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.suites import load_suite, load_worlds
from agentft.evaluation.views import ShownTool
from agentft.models.scripted import ScriptedModel
from agentft.toolset import load_toolset
from agentft.types import Case
from tests.evaluation.world import call, small_plan

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "city": {"type": "string", "description": "City.", "title": "City"},
        "days": {"type": "integer", "minimum": 1, "maximum": 7, "description": "How many.", "examples": [3]},
        "unit": {"type": "string", "enum": ["c", "f"], "default": "c", "description": "Unit."},
    },
    "required": ["city"],
}
TOOLS = [ShownTool("get_weather", "get_weather", SCHEMA, "Get it."), ShownTool("alert", "alert", {"type": "object"})]
EXTRA = [
    ShownTool(name, name, {"type": "object"}) for name in ("open", "close", "web_search", "pay", "ring", "mail", "x")
]


def shown(name: str, seed: int = 0, tools: Sequence[ShownTool] = TOOLS) -> list[ShownTool]:
    return TRANSFORMS[name](list(tools), list(EXTRA), Random(seed))


def test_names_are_replaced_and_lead_back() -> None:
    weather, alert = shown("renamed")
    assert (weather.name, alert.name) == ("fetch_conditions", "warning")
    assert list(weather.parameters["properties"]) == ["place", "period", "scale"]
    assert weather.parameters["required"] == ["place"]
    assert weather.arguments == {"place": "city", "period": "days", "scale": "unit"}
    assert (weather.tool, weather.description) == ("get_weather", "Get it.")


def test_unknown_words_change_their_style_and_clashes_are_numbered() -> None:
    tools = [ShownTool(name, name, {"type": "object"}) for name in ("zip_zap", "zipzap", "fetch_x", "get_x")]
    names = [tool.name for tool in shown("renamed", tools=tools)]
    assert names == ["zipZap", "zipzap_given", "get_x_2", "fetch_x_2"]
    closed = {**SCHEMA, "anyOf": [{"required": ["days"]}]}
    (tool,) = shown("renamed", tools=[ShownTool("a", "a", closed)])
    assert (tool.parameters, tool.arguments) == (closed, {})


def test_the_order_is_mixed() -> None:
    orders = {tuple(tool.name for tool in shown("shuffled", seed)) for seed in range(20)}
    assert len(orders) == 2
    inside = {tuple(shown("shuffled", seed, TOOLS[:1])[0].parameters["properties"]) for seed in range(20)}
    assert len(inside) > 3
    assert all(set(order) == {"city", "days", "unit"} for order in inside)


def test_descriptions_are_gone_but_not_a_property_of_that_name() -> None:
    schema = {"type": "object", "properties": {"description": {"type": "string", "description": "Words."}}}
    weather, other = shown("undescribed", tools=[TOOLS[0], ShownTool("a", "a", schema, "An a.")])
    assert weather.description == other.description == ""
    assert "escription" not in json.dumps(weather.parameters)
    assert other.parameters["properties"] == {"description": {"type": "string"}}


def test_enums_and_units_are_changed() -> None:
    weather, alert = shown("values")
    assert alert == TOOLS[1]
    properties = weather.parameters["properties"]
    assert properties["unit"] == {"type": "string", "enum": ["C", "F"], "default": "C", "description": "Unit."}
    assert properties["hours"] == {"type": "integer", "minimum": 24, "maximum": 168, "description": "How many hours."}
    assert (weather.values, weather.factors) == ({"unit": {"C": "c", "F": "f"}}, {"hours": 24})
    assert weather.arguments == {"hours": "days"}
    text = {"type": "object", "properties": {"days": {"type": "string", "enum": ["1", "2"]}}}
    assert shown("values", tools=[ShownTool("a", "a", text)])[0].parameters == text


def test_a_lookalike_stands_before_each_tool() -> None:
    assert [tool.name for tool in shown("lookalikes")] == [
        "get_weather_archive",
        "get_weather",
        "alert_archive",
        "alert",
    ]
    assert [tool.tool for tool in shown("lookalikes")] == ["get_weather", "get_weather", "alert", "alert"]


@pytest.mark.parametrize("count", [3, 10, 30, 100])
def test_distractors_are_added(count: int) -> None:
    found = shown(f"distractors-{count}")
    assert len(found) == len({tool.name for tool in found}) == count + 2
    assert {tool.name for tool in TOOLS} < {tool.name for tool in found}
    assert [tool.name for tool in found] != sorted(tool.name for tool in found)
    assert any(tool.name.endswith("_v2") for tool in found) == (count > len(EXTRA))
    with pytest.raises(InputError, match="leave out the distractors"):
        TRANSFORMS[f"distractors-{count}"](TOOLS, [], Random(0))


def test_the_needed_tools_are_missing() -> None:
    names = {tool.name for tool in shown("missing")}
    assert len(names) == 5
    assert names <= {tool.name for tool in EXTRA} - {"web_search"}


FEW = ("renamed", "distractors-3", "missing", "typos")


@pytest.fixture(scope="module")
def derived(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Derived]]:
    """The tiny suite and some that are derived from it."""
    root = tmp_path_factory.mktemp("suite")
    plan = small_plan(root)
    others = [load_toolset("calculator"), load_toolset("bank")]
    made = derive(plan, plan.suites[0], FEW, others, root / "derived")
    return plan, {one.transform: one for one in made}


def cases(one: Derived) -> dict[str, Case]:
    return {case.id: case for case in load_suite(str(one.folder)).cases}


@pytest.mark.slow
def test_every_derived_case_is_solved_by_its_expected_calls(tmp_path: Path) -> None:
    plan, others = small_plan(tmp_path), [load_toolset("calculator"), load_toolset("bank")]
    made = list(derive(plan, plan.suites[0], list(TRANSFORMS), others, tmp_path / "derived"))
    suites = [plan.suites[0], *(load_suite(str(one.folder)) for one in made)]
    whole = make_plan(suites, [*plan.toolsets, *others])
    assert check_cases(whole) == []
    answers = oracle_answers(whole.job(case) for case in whole.cases)
    summary = evaluate(whole, [Arm("model", "m", "m", lambda: ScriptedModel(answers))], Settings(tmp_path / "out"))
    assert summary.invalid == 0
    assert summary.metrics["success"].arms["model"].value == 1
    found = summary.document()["overfit"]
    assert set(found) == {*TRANSFORMS, "all"}
    assert found["all"]["model"]["index"]["value"] == 0


def test_calls_run_on_the_world_under_its_names(derived: tuple[Plan, dict[str, Derived]], tmp_path: Path) -> None:
    plan, made = derived
    renamed = make_plan([load_suite(str(made["renamed"].folder))], plan.toolsets)
    answers = oracle_answers(renamed.job(case) for case in renamed.cases)
    summary = evaluate(renamed, [Arm("model", "m", "m", lambda: ScriptedModel(answers))], Settings(tmp_path / "out"))
    assert summary.metrics["success"].arms["model"].value == summary.metrics["end_state"].arms["model"].value == 1
    records = {record.case: record for record in read_records(tmp_path / "out" / "cases.jsonl")}
    (exchange,) = records["s2~renamed"].steps[0].exchanges
    assert (exchange.call.name, exchange.url) == ("purchase", "/tools/order")
    assert exchange.sent == {"item": "tea", "count": 2}
    assert summary.overfit is None


def test_the_expected_answers_follow(derived: tuple[Plan, dict[str, Derived]]) -> None:
    _, made = derived
    assert {name: (one.cases, one.left_out) for name, one in made.items()} == {
        **dict.fromkeys(FEW, (7, 0)),
        "missing": (5, 2),  # m1 and i1 expect no call in the first turn
        "typos": (6, 1),  # Chinese has no letters to exchange
    }
    renamed = cases(made["renamed"])["s2~renamed"]
    assert renamed.turns[0].calls[0].name == "purchase"
    assert renamed.turns[0].calls[0].arguments == {"article": "tea", "quantity": 2}
    gone = cases(made["missing"])["s1~missing"]
    assert (gone.category, gone.turns[0].calls, gone.turns[0].answer) == ("missing_tool", (), ())
    for name, case in cases(made["typos"]).items():
        original = next(one for one in derived[0].cases if one.id == name.removesuffix("~typos"))
        assert [turn.calls for turn in case.turns] == [turn.calls for turn in original.turns]
        assert [turn.user for turn in case.turns] != [turn.user for turn in original.turns]
        assert sorted(case.turns[0].user) == sorted(original.turns[0].user)
    assert cases(made["typos"])["s1~typos"].turns[0].user.endswith(" of tea?")


def test_a_derived_suite_depends_on_nothing_but_the_seed(
    derived: tuple[Plan, dict[str, Derived]], tmp_path: Path
) -> None:
    plan, made = derived
    others = [load_toolset("calculator"), load_toolset("bank")]
    for seed, equal in ((0, True), (1, False)):
        (again,) = derive(plan, plan.suites[0], ["distractors-3"], others, tmp_path / str(seed), seed=seed)
        same = (again.folder / "view.json").read_bytes() == (made["distractors-3"].folder / "view.json").read_bytes()
        assert same is equal


def test_digest_and_tools_of_a_derived_suite(derived: tuple[Plan, dict[str, Derived]]) -> None:
    _, made = derived
    folder = made["renamed"].folder
    before = load_suite(str(folder))
    assert (before.of, before.transform, [tool.name for tool in before.shown]) == (
        "shopping",
        "renamed",
        ["cost", "purchase"],
    )
    view = folder / "view.json"
    text = view.read_text()
    view.write_text(text.replace("The price of an item.", "Prices."))
    assert load_suite(str(folder)).digest != before.digest
    view.write_text(text)
    assert load_suite(str(folder)).digest == before.digest


def test_flawed_cases_are_left_out(tmp_path: Path) -> None:
    """Of two cases with one request, the first stays; one that its world refuses goes."""
    good = {"id": "a", "category": "single", "turns": [{"user": "Price of tea?", "calls": [call("price", item="tea")]}]}
    refused = {"user": "Price of gold?", "calls": [call("price", item="gold")]}
    plan = small_plan(tmp_path, [good, {**good, "id": "b"}, {"id": "c", "category": "single", "turns": [refused]}])
    (one,) = derive(plan, plan.suites[0], ["shuffled"], [], tmp_path / "out")
    assert (list(cases(one)), one.left_out) == (["a~shuffled"], 2)


@pytest.mark.parametrize(
    ("names", "message"), [(["renamd"], "did you mean 'renamed'"), (["missing"], "no case can be derived by missing")]
)
def test_what_cannot_be_derived_is_said(names: list[str], message: str, tmp_path: Path) -> None:
    plan = small_plan(tmp_path, [{"id": "i", "category": "irrelevance", "turns": [{"user": "A poem?"}]}])
    with pytest.raises(InputError, match=message):
        list(derive(plan, plan.suites[0], names, [], tmp_path / "out"))


def test_of_all_transforms_those_that_suit_are_taken(tmp_path: Path) -> None:
    good = {"id": "a", "category": "single", "turns": [{"user": "tea?", "calls": [call("price", item="tea")]}]}
    plan = small_plan(tmp_path, [good])
    others = [load_toolset("bank")]
    made = [one.transform for one in derive(plan, plan.suites[0], list(TRANSFORMS), others, tmp_path / "out")]
    assert "renamed" in made
    assert "typos" not in made  # the only words are values


@pytest.mark.slow
@pytest.mark.parametrize("name", ["smart-home", "calendar"])
def test_shipped_suites_can_be_derived(name: str, tmp_path: Path) -> None:
    suite = load_suite(name)
    plan = make_plan([suite], load_worlds([suite]))
    made = list(derive(plan, suite, ["renamed", "values", "distractors-10"], [load_toolset("weather")], tmp_path))
    assert all(one.cases >= 60 for one in made), made


def test_an_interrupted_derivation_leaves_no_suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = small_plan(tmp_path)
    (suite,) = plan.suites

    def stop(plan: Plan) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("agentft.evaluation.deriving.check_cases", stop)
        with pytest.raises(KeyboardInterrupt):
            list(derive(plan, suite, ["renamed"], [], tmp_path / "out", seed=0))
    assert not (tmp_path / "out").exists()
    (made,) = derive(plan, suite, ["renamed"], [], tmp_path / "out", seed=0)
    assert load_suite(str(made.folder)).cases
