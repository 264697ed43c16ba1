"""The training data and the suites share nothing: no request, no wording, no near-wording, no value.

A wording is a template: what is left of a request when its values are taken out. Wordings are compared as sets of word
pairs (Chinese: pairs of characters), with every value as the same word; their Jaccard index stays below `NEAR`.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import TypeAlias

import pytest

from agentft.content import content_root
from agentft.evaluation.suites import load_suite
from agentft.synthesis.build import play_recipe, recipe_toolsets
from agentft.synthesis.compose import wrap
from agentft.synthesis.play import Played
from agentft.synthesis.recipe import BuildRecipe, Phrases, read_build_recipe
from agentft.synthesis.slots import REFERENCE
from agentft.toolserver import ToolServer
from agentft.types import Case, Json

pytestmark = pytest.mark.slow  # every recipe is built

NEAR = 0.7
Pair: TypeAlias = tuple[str, str]
TRAINING = ("datasets/quickstart.toml", "datasets/worlds.toml")
SUITES = (
    "weather",
    "search",
    "calculator",
    "basics",
    "bank",
    "calendar",
    "files",
    "shop",
    "smart-home",
    "trains",
)
VALUE = "\0"
NUMBER = re.compile(r"\d+(?:\.\d+)?")
SHARED = {"unit", "days", "condition", "from_unit", "to_unit"}  # the world knows a handful of values for these


@cache
def recipe_of(path: str) -> BuildRecipe:
    return read_build_recipe(content_root() / path)


@cache
def played(path: str) -> tuple[Played, ...]:
    recipe = recipe_of(path)
    toolsets = recipe_toolsets(recipe)
    with ToolServer(list(toolsets.values()), 0) as server:
        return tuple(play_recipe(recipe, toolsets, server.client()))


def suite_recipes() -> list[str]:
    return [f"evals/{name}/build.toml" for name in SUITES]


def requests(path: str) -> set[str]:
    return {item.user for one in played(path) for item in one.rounds}


def wordings(path: str) -> set[str]:
    """Every template that the recipe can use alone, and the joined ones that it did use."""
    recipe = recipe_of(path)
    found = {item.template for one in played(path) for item in one.rounds}
    for intent in recipe.intents:
        wraps = recipe.phrases.get(intent.lang, Phrases()).wraps
        found |= {say for item in intent.rounds for say in item.say} | set(intent.follow)
        found |= {wrap(clause, pattern) for clause in intent.do for pattern in wraps}
    return found


def words(template: str) -> tuple[str, ...]:
    masked = REFERENCE.sub(VALUE, template).casefold()
    return tuple(re.findall(r"\0|[a-z0-9']+|[\u4e00-\u9fff]", masked))


def pairs(template: str) -> frozenset[Pair]:
    inside = ("^", *words(template), "$")
    return frozenset(itertools.pairwise(inside))


@cache
def training_pairs() -> tuple[list[frozenset[Pair]], Mapping[Pair, list[int]]]:
    """The pairs of each training wording, and the numbers of the wordings that hold a pair."""
    known = [pairs(template) for template in set[str]().union(*map(wordings, TRAINING))]
    holding: dict[Pair, list[int]] = {}
    for index, found in enumerate(known):
        for pair in found:
            holding.setdefault(pair, []).append(index)
    return known, holding


def arguments(path: str) -> Iterator[tuple[str, Json]]:
    for one in played(path):
        for call in (call for item in one.rounds for call in item.calls):
            yield from call.arguments.items()


def spoken_values(path: str) -> Mapping[str, set[str]]:
    """Argument name -> its values; numbers in requests and arguments are under `number`; results are left out."""
    found: dict[str, set[str]] = {"number": set()}
    said = {number for request in requests(path) for number in NUMBER.findall(request)}
    for name, value in arguments(path):
        if name in {"expression", "value"}:
            found["number"] |= said & set(NUMBER.findall(str(value))) - {"0", "2"}
        elif name not in SHARED:
            found.setdefault(name, set()).add(str(value).casefold())
    return found


@pytest.mark.slow
@pytest.mark.parametrize("path", suite_recipes())
def test_no_request_is_shared(path: str) -> None:
    suite = load_suite(path.split("/")[1])
    shipped = {turn.user for case in suite.cases for turn in case.turns}
    assert shipped == requests(path)
    assert not shipped & set().union(*map(requests, TRAINING))


@pytest.mark.slow
@pytest.mark.parametrize("path", suite_recipes())
def test_no_wording_is_shared(path: str) -> None:
    known = {words(template) for training in TRAINING for template in wordings(training)}
    shared = [template for template in wordings(path) if words(template) in known]
    assert shared == []


@pytest.mark.slow
@pytest.mark.parametrize("path", suite_recipes())
def test_no_wording_is_nearly_shared(path: str) -> None:
    known, holding = training_pairs()
    near = {}
    for template in wordings(path):
        mine = pairs(template)
        shared = Counter(index for pair in mine for index in holding.get(pair, ()))
        closest = max((count / (len(mine | known[index])) for index, count in shared.items()), default=0)
        if closest >= NEAR:
            near[template] = closest
    assert near == {}


@pytest.mark.slow
@pytest.mark.parametrize("path", suite_recipes())
def test_no_value_is_shared(path: str) -> None:
    for training in map(spoken_values, TRAINING):
        for name, mine in spoken_values(path).items():
            assert not mine & training.get(name, set()), name


def test_value_lists_are_disjoint_whatever_the_seed() -> None:
    """Not only the drawn values: the lists themselves."""
    training = recipe_of(TRAINING[0])  # both include the same lists
    suites = [recipe_of(path) for path in suite_recipes()]
    for slot in (
        "city",
        "old",
        "query",
        "page",
        "label",
        "name",
        "int",
        "small",
        "decimal",
        "bare",
        "nopage",
        "noquery",
    ):
        mine = {entry.say.casefold() for lang in training.values.values() for entry in lang.get(slot, ())}
        theirs = {
            entry.say.casefold() for suite in suites for lang in suite.values.values() for entry in lang.get(slot, ())
        }
        assert mine, slot
        assert theirs, slot
        assert not mine & theirs, slot


def test_a_city_is_on_one_side_under_all_its_names() -> None:
    cities = recipe_toolsets(recipe_of(TRAINING[0]))["weather"].new_state()["cities"]
    english = {str(facts.get("zh", name)): name for name, facts in cities.items()}
    sides = []
    for paths in (TRAINING, suite_recipes()):
        names = {str(value) for path in paths for name, value in arguments(path) if name == "city"}
        sides.append({english.get(name, name) for name in names})
    assert not sides[0] & sides[1]


def test_pages_that_are_found_are_on_one_side() -> None:
    sides = []
    for paths in (TRAINING, suite_recipes()):
        results = [
            result.content
            for path in paths
            for one in played(path)
            for item in one.rounds
            for call, result in zip(item.calls, item.results, strict=True)
            if call.name in {"web_search", "open_page"} and not result.is_error
        ]
        sides.append({re.search(r'"page": ?"(p\d+)"', text)[1] for text in results})  # type: ignore[index]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("case", load_suite("forgetting").cases, ids=lambda case: case.id)
def test_no_question_about_forgetting_is_near_the_training_data(case: Case) -> None:
    known, _ = training_pairs()
    asked = pairs(case.turns[0].user)
    assert max(len(asked & other) / len(asked | other) for other in known) < NEAR
