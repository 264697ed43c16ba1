from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.evaluation.suites import load_suite, select_suites, stratified
from agentft.types import CATEGORIES, Case, CaseTurn, Category

HEAD = """name = "mini"
description = "A small one."
persona = "You help."
worlds = ["weather"]
[comparators]
"current_weather.city" = "casefold"
"""
CASE: dict[str, Any] = {
    "id": "m1",
    "category": "single",
    "lang": "en",
    "turns": [
        {
            "user": "Weather in Paris?",
            "calls": [
                {
                    "name": "current_weather",
                    "arguments": {"city": "Paris"},
                    "alternatives": {"city": ["paris"]},
                    "optional": {"unit": "celsius"},
                }
            ],
            "answer": ["Paris"],
            "failing": 1,
        }
    ],
}


def write(folder: Path, *cases: object, head: str = HEAD) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "suite.toml").write_text(head)
    (folder / "cases.jsonl").write_text("\n".join(c if isinstance(c, str) else json.dumps(c) for c in cases))
    return str(folder)


def test_a_suite_is_read_with_all_its_fields(tmp_path: Path) -> None:
    suite = load_suite(write(tmp_path / "mini", CASE, "", {**CASE, "id": "m2"}))
    assert (suite.name, suite.persona, suite.worlds) == ("mini", "You help.", ("weather",))
    assert suite.comparators == {"current_weather.city": "casefold"}
    assert [case.id for case in suite.cases] == ["m1", "m2"]
    case = suite.cases[0]
    assert (case.suite, case.category, case.lang, case.worlds) == ("mini", "single", "en", ("weather",))
    call = case.turns[0].calls[0]
    assert call.alternatives == {"city": ("paris",)}
    assert call.optional == {"unit": "celsius"}
    assert case.turns[0].failing == 1
    assert len(suite.digest) == 64


def test_the_digest_changes_with_the_cases(tmp_path: Path) -> None:
    first = load_suite(write(tmp_path / "mini", CASE)).digest
    assert load_suite(write(tmp_path / "mini", {**CASE, "lang": "zh"})).digest != first


def edited(**changes: object) -> dict[str, object]:
    return {**CASE, **changes}


TURN: dict[str, Any] = CASE["turns"][0]
CALL: dict[str, Any] = TURN["calls"][0]


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("{", "cases.jsonl:2: it is not a JSON object"),
        ("[]", "cases.jsonl:2: expected a JSON object, got list"),
        ('{"id": NaN}', "NaN is not JSON"),
        ('{"id": "a", "id": "b"}', "the key 'id' occurs twice"),
        (edited(), "case id 'm1' was used in line 1"),
        (edited(categry="single"), "cases.jsonl:2: there is no key 'categry'; did you mean 'category'?"),
        (edited(id="x", category="singel"), "`category` is 'singel', which is not valid; did you mean 'single'?"),
        (edited(id=" "), "`id` is ' '; it must be a string (not blank)"),
        (edited(id="x", turns=[]), "`turns` is empty"),
        (edited(id="x", turns="no"), "`turns` is 'no'; it must be a list"),
        (edited(id="x", category="irrelevance"), "a case of irrelevance must expect no calls"),
        (edited(id="x", category="missing_tool"), "a case of missing_tool must expect no calls"),
        (edited(id="x", turns=[{"user": "Hi"}]), "expects nothing is solved by any reply; add `calls` or `answer`, or"),
        (edited(id="x", turns=[{**TURN, "failing": 2}]), "turns[0]: `failing` is 2; it must be a count from 0 to 1"),
        (edited(id="x", turns=[{**TURN, "failing": True}]), "`failing` is True"),
        (edited(id="x", turns=[{"calls": []}]), "turns[0]: `user` is missing"),
        (edited(id="x", turns=[{**TURN, "answer": [1]}]), "`answer[0]` is 1; it must be a string"),
        (edited(id="x", turns=[{**TURN, "calls": [{"name": "a"}]}]), "turns[0].calls[0]: `arguments` is missing"),
        (
            edited(id="x", turns=[{**TURN, "calls": [{**CALL, "alternatives": {"town": ["a"]}}]}]),
            "`alternatives` has 'town', which is not in `arguments`; add it there",
        ),
        (edited(id="x", turns=[{**TURN, "calls": [{**CALL, "optional": {"city": "a"}}]}]), "is in both"),
        (edited(id="x", turns=[{**TURN, "calls": [{**CALL, "args": {}}]}]), "calls[0]: there is no key 'args'"),
    ],
)
def test_a_bad_case_is_named_with_its_place(tmp_path: Path, bad: object, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_suite(write(tmp_path / "mini", CASE, bad))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("head", "message"),
    [
        ("name = ", "suite.toml: it is not TOML"),
        ('name = "mini"\nworld = ["weather"]', "there is no key 'world'; did you mean 'worlds'?"),
        ('name = "mini"\nworlds = []', "`worlds` is empty"),
        ('name = "mini"', "`worlds` is missing"),
        (
            HEAD.replace("casefold", "fuzzy"),
            "`comparators.current_weather.city` is 'fuzzy', which is not valid; known: exact",
        ),
        (HEAD.replace("current_weather.city", "city"), "comparator key 'city' must be"),
        ('name = "mini"\nworlds = ["a"]\ncomparators = 1', "`comparators` is 1; it must be a table"),
    ],
)
def test_a_bad_head_is_named(tmp_path: Path, head: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_suite(write(tmp_path / "mini", CASE, head=head))
    assert message in str(caught.value)


def test_missing_files_and_suites_are_named(tmp_path: Path) -> None:
    folder = Path(write(tmp_path / "mini", CASE))
    (folder / "cases.jsonl").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_suite(str(folder))
    with pytest.raises(InputError, match="there is no suite 'nosuch'"):
        load_suite("nosuch")
    with pytest.raises(InputError, match="it has no cases"):
        load_suite(write(tmp_path / "empty"))


def test_suites_are_selected_by_worlds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.evaluation.suites.content_root", lambda: tmp_path)
    monkeypatch.setattr("agentft.content.content_root", lambda: tmp_path)
    (tmp_path / "evals").mkdir()
    write(tmp_path / "evals" / "mini", CASE)
    write(tmp_path / "evals" / "both", CASE, head='name = "both"\nworlds = ["weather", "search"]')
    assert [suite.name for suite in select_suites([], ["weather"])] == ["mini"]
    assert [suite.name for suite in select_suites([], ["search", "weather"])] == ["both", "mini"]
    assert [suite.name for suite in select_suites([], [])] == ["both", "mini"]
    assert [suite.name for suite in select_suites(["mini", "mini"], [])] == ["mini"]
    with pytest.raises(InputError, match="no shipped suite fits the tools calculator"):
        select_suites([], ["calculator"])


def test_suites_are_selected_by_single_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentft.evaluation.suites.content_root", lambda: tmp_path)
    monkeypatch.setattr("agentft.content.content_root", lambda: tmp_path)
    (tmp_path / "evals").mkdir()
    write(tmp_path / "evals" / "mini", CASE)
    some = load_suite(
        write(tmp_path / "evals" / "some", CASE, head='name = "some"\nworlds = ["weather"]\ntools = ["x"]')
    )
    assert some.cases[0].tools == ("x",)
    called = {call.name for turn in some.cases[0].turns for call in turn.calls}
    assert [suite.name for suite in select_suites([], ["weather"], called)] == ["mini"]
    assert [suite.name for suite in select_suites([], ["weather"], called | {"x"})] == ["mini", "some"]
    with pytest.raises(InputError, match="no shipped suite fits"):
        select_suites([], ["weather"], {"other"})


def make(count: int, category: Category) -> list[Case]:
    return [Case(f"{category}{i}", "s", category, "en", ("w",), (CaseTurn("u"),)) for i in range(count)]


def test_a_limit_keeps_the_proportions_and_is_the_same_every_time() -> None:
    cases = make(40, "single") + make(20, "irrelevance") + make(20, "parallel")
    chosen = stratified(cases, 20)
    counts = {category: sum(case.category == category for case in chosen) for category in CATEGORIES}
    assert counts["single"] == 10
    assert counts["irrelevance"] == 5
    assert counts["parallel"] == 5
    assert chosen == stratified(cases, 20)
    assert [cases.index(case) for case in chosen] == sorted(cases.index(case) for case in chosen)
    assert {case.id for case in stratified(cases, 8)} <= {case.id for case in chosen}
    assert stratified(cases, None) == tuple(cases)
    assert stratified(cases, 99) == tuple(cases)


def test_two_worlds_of_one_name_are_refused(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder / "mine").mkdir(parents=True)
        (tmp_path / folder / "mine" / "tools.json").write_text("{}")
    write(tmp_path / "suite", CASE, head='name = "suite"\nworlds = ["../a/mine", "../b/mine"]')
    with pytest.raises(InputError, match="two of the `worlds` have the same name"):
        load_suite(str(tmp_path / "suite"))
