"""The promises of every shipped world, and the results of weather and search."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentft.content import content_root
from agentft.errors import ToolError
from agentft.toolset import State, Tool, Toolset, load_toolset, load_toolsets, proof, shipped_worlds
from agentft.types import Json

NAMES = shipped_worlds()
WORLDS = load_toolsets(NAMES, seed=11)  # all together: no two may share a tool's name
TOOLS = [(world, tool) for world in WORLDS for tool in world.tools.values()]
every_tool = pytest.mark.parametrize(("world", "tool"), TOOLS, ids=[tool.definition.name for _, tool in TOOLS])
WEATHER, SEARCH = (next(world for world in WORLDS if world.name == name) for name in ("weather", "search"))
CITIES: dict[str, dict[str, Any]] = WEATHER.new_state()["cities"]
UNTOUCHED = WEATHER.new_state()  # for reads of every city: a fresh state for each would take minutes


def ask(world: Toolset, tool: str, /, **arguments: Json) -> dict[str, Any]:
    return read(world, tool, world.new_state(), **arguments)


def read(world: Toolset, tool: str, state: State, /, **arguments: Json) -> dict[str, Any]:
    result = world.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(world: Toolset, tool: str, /, **arguments: Json) -> tuple[int, str]:
    with pytest.raises(ToolError) as caught:
        world.call(tool, arguments, world.new_state())
    return caught.value.status, str(caught.value)


def test_the_worlds_have_the_tools_of_the_contract() -> None:
    """Suites, recipes and adapters name these tools; new worlds are free."""
    tools = {world.name: sorted(world.tools) for world in WORLDS}
    assert tools["weather"] == ["air_quality", "current_weather", "set_weather_alert", "weather_forecast"]
    assert tools["search"] == ["open_page", "save_bookmark", "web_search"]
    assert tools["calculator"] == ["calculate", "convert_units", "recall_number", "store_number"]
    writes = {
        tool.definition.name
        for world, tool in TOOLS
        if world.name in {"weather", "search", "calculator"} and world.is_write(tool.definition.name)
    }
    assert writes == {"set_weather_alert", "save_bookmark", "store_number"}


def test_a_world_has_its_own_address_and_several_tools() -> None:
    assert [world.base_url for world in WORLDS] == [f"http://{name}.test" for name in NAMES]
    assert all(len(world.tools) >= 3 for world in WORLDS)


def test_a_world_is_three_files() -> None:
    for world in WORLDS:
        folder = content_root() / "tools" / world.name
        assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
            "README.md",
            "state.json",
            "tools.py",
        ]
        readme = (folder / "README.md").read_text(encoding="utf-8")
        assert all(f"`{name}(" in readme for name in world.tools)


@every_tool
def test_schemas_are_valid_and_fully_described(world: Toolset, tool: Tool) -> None:
    schema = tool.definition.parameters
    Draft202012Validator.check_schema(schema)
    assert schema["additionalProperties"] is False
    properties = schema["properties"]
    assert isinstance(properties, dict)
    assert all(isinstance(facts, dict) and facts.get("description") for facts in properties.values())
    assert tool.definition.endpoints == (f"{world.base_url}/{tool.definition.name}",)


@every_tool
def test_the_documented_example_runs_and_is_small_and_flat(world: Toolset, tool: Tool) -> None:
    assert set(tool.example) == set(tool.check.names)
    result = ask(world, tool.definition.name, **tool.example)
    assert 2 <= len(result) <= 6
    assert not any(isinstance(value, dict | list) for value in result.values())
    assert len(json.dumps(result, ensure_ascii=False)) < 260


@every_tool
def test_writes_change_the_state_and_reads_do_not(world: Toolset, tool: Tool) -> None:
    state = world.new_state()
    before = world.digest(state)
    world.call(tool.definition.name, tool.example, state)
    assert (world.digest(state) != before) == (tool.access != "read")


@every_tool
def test_results_depend_on_seed_and_arguments_only(world: Toolset, tool: Tool) -> None:
    name = tool.definition.name
    again = load_toolset(world.name, seed=11)
    assert ask(world, name, **tool.example) == ask(again, name, **tool.example)


@every_tool
def test_the_documented_example_runs_whatever_the_seed(world: Toolset, tool: Tool) -> None:
    """Values drawn from the seed must not break the example."""
    for seed in (*range(25), 10**9, -1):
        state = world.new_state(seed)
        assert len(json.dumps(read(world, tool.definition.name, state, **tool.example), ensure_ascii=False)) < 260


@every_tool
def test_a_refused_call_does_not_change_the_state(world: Toolset, tool: Tool) -> None:
    state = world.new_state()
    before = world.digest(state)
    with pytest.raises(ToolError, match="unknown argument 'no_such'"):
        world.call(tool.definition.name, {**tool.example, "no_such": 1}, state)
    assert world.digest(state) == before


@every_tool
def test_a_state_can_be_stored_as_json_and_continued(world: Toolset, tool: Tool) -> None:
    state = world.new_state()
    kept = json.loads(json.dumps(state))
    assert world.digest(kept) == world.digest(state)
    assert read(world, tool.definition.name, kept, **tool.example) == read(
        world, tool.definition.name, state, **tool.example
    )
    assert world.digest(json.loads(json.dumps(state))) == world.digest(kept)


HOSTILE = (
    *(text for text in proof.HOSTILE if isinstance(text, str)),
    "{state}",
    "\u202e",
    "-1",
    "null",
    " " * 50_000,
    "e" * 200,
    "\ud800",
)


@every_tool
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_handlers_survive_hostile_strings(world: Toolset, tool: Tool, text: str) -> None:
    """In every argument at once, and in each alone, so that the checks behind the first are reached too."""
    strings = [key for key, value in tool.example.items() if isinstance(value, str)]
    for keys in (strings, *([key] for key in strings)):
        try:
            world.call(tool.definition.name, {**tool.example, **dict.fromkeys(keys, text)}, world.new_state())
        except ToolError as error:
            assert len(str(error)) < 300  # noqa: PT017  (both outcomes are fine; a crash is not)
            assert 400 <= error.status < 500  # noqa: PT017


# --- weather


def test_there_are_enough_cities_in_two_languages() -> None:
    assert len(CITIES) >= 1200
    names = [name.casefold() for name in CITIES] + [facts["zh"] for facts in CITIES.values() if "zh" in facts]
    assert len(names) == len(set(names))
    assert len(names) > 1.9 * len(CITIES)
    assert {facts["climate"] for facts in CITIES.values()} == set(WEATHER.new_state()["climates"])


@pytest.mark.parametrize("city", ["Beijing", "北京", "BEIJING", " beijing "])
def test_a_city_is_found_in_any_case_and_echoed_as_written(city: str) -> None:
    answer, plain = ask(WEATHER, "current_weather", city=city), ask(WEATHER, "current_weather", city="Beijing")
    assert answer == {**plain, "city": city}


@pytest.mark.parametrize(
    ("city", "message"),
    [
        ("Peking", "unknown city 'Peking'; did you mean 'Beijing'?"),
        ("bombay", "unknown city 'bombay'; did you mean 'Mumbai'?"),
        ("Pariss", "unknown city 'Pariss'; did you mean 'Paris'?"),
        ("Hong Kng", "unknown city 'Hong Kng'; did you mean 'Hong Kong'?"),
        ("北平", "unknown city '北平'; did you mean '北京'?"),
        ("北京市", "unknown city '北京市'; did you mean '北京'?"),
        ("Gondor", "unknown city 'Gondor'"),
        ("", "unknown city ''"),
    ],
)
def test_a_wrong_city_is_a_404_that_names_the_right_one(city: str, message: str) -> None:
    assert refusal(WEATHER, "current_weather", city=city) == (404, message)


def test_old_names_are_refused_with_the_current_one() -> None:
    old_names: dict[str, str] = WEATHER.new_state()["old_names"]
    assert len(old_names) >= 40
    for old, new in old_names.items():
        assert refusal(WEATHER, "air_quality", city=old)[1].endswith(f"did you mean {new!r}?")
        assert ask(WEATHER, "air_quality", city=new)["city"] == new


def test_weather_is_plausible_everywhere() -> None:
    for city, facts in CITIES.items():
        now = read(WEATHER, "current_weather", UNTOUCHED, city=city)
        assert -20 <= now["temperature"] <= 42
        assert 8 <= now["humidity"] <= 98
        week = read(WEATHER, "weather_forecast", UNTOUCHED, city=city, days=7)
        assert -25 <= week["low"] < week["high"] <= 46
        assert len(week["outlook"].split(", ")) == 7
        assert not ("snow" in week["outlook"] and facts["climate"] == "tropical")


def test_the_tropics_are_warmer_than_siberia() -> None:
    temperature = {city: ask(WEATHER, "current_weather", city=city)["temperature"] for city in ("Singapore", "Yakutsk")}
    assert temperature["Singapore"] > temperature["Yakutsk"] + 10


def test_a_longer_forecast_starts_like_a_shorter_one() -> None:
    short, long = (ask(WEATHER, "weather_forecast", city="Oslo", days=days)["outlook"] for days in (2, 5))
    assert long.startswith(short + ", ")
    assert re.fullmatch(r"Tue \w+, Wed \w+", short)


def test_fahrenheit_is_the_same_temperature() -> None:
    celsius, fahrenheit = (
        ask(WEATHER, "current_weather", city="Cairo", unit=unit) for unit in ("celsius", "fahrenheit")
    )
    assert fahrenheit["temperature"] == round(celsius["temperature"] * 9 / 5 + 32)
    assert fahrenheit["unit"] == "fahrenheit"


def test_another_seed_gives_other_weather() -> None:
    other = load_toolset("weather", seed=12)
    theirs = other.new_state()
    same = [
        read(WEATHER, "current_weather", UNTOUCHED, city=city) == read(other, "current_weather", theirs, city=city)
        for city in CITIES
    ]
    assert sum(same) < len(same) / 10


def test_an_aqi_has_its_level() -> None:
    limits = {"good": 50, "moderate": 100, "unhealthy for sensitive groups": 150, "unhealthy": 500}
    answers = [read(WEATHER, "air_quality", UNTOUCHED, city=city) for city in CITIES]
    assert all(answer["aqi"] <= limits[answer["level"]] for answer in answers)
    assert {answer["level"] for answer in answers} == set(limits)


def test_an_alert_in_another_language_is_the_same_alert() -> None:
    english, chinese = WEATHER.new_state(), WEATHER.new_state()
    first = WEATHER.call("set_weather_alert", {"city": "Oslo", "condition": "snow"}, english)
    WEATHER.call("set_weather_alert", {"city": "奥斯陆", "condition": "snow"}, chinese)
    assert first == {"alert": "a1", "city": "Oslo", "condition": "snow", "status": "set"}
    assert WEATHER.digest(english) == WEATHER.digest(chinese)
    with pytest.raises(ToolError, match="already set as 'a1'") as caught:
        WEATHER.call("set_weather_alert", {"city": "oslo", "condition": "snow"}, english)
    assert caught.value.status == 409
    second = WEATHER.call("set_weather_alert", {"city": "Oslo", "condition": "wind"}, english)
    assert isinstance(second, dict)
    assert second["alert"] == "a2"


# --- search

PAGES: dict[str, dict[str, str]] = SEARCH.new_state()["pages"]


def test_there_are_enough_pages_in_two_languages() -> None:
    assert len(PAGES) == 120
    assert sum("\u4e00" <= page["title"][0] <= "\u9fff" for page in PAGES.values()) == 25
    assert len({page["title"] for page in PAGES.values()}) == 120
    assert all(len(page[key]) < 140 for page in PAGES.values() for key in ("title", "snippet", "content"))


def test_every_page_is_found_by_its_title() -> None:
    assert [ask(SEARCH, "web_search", query=page["title"])["page"] for page in PAGES.values()] == list(PAGES)


@pytest.mark.parametrize(
    ("query", "title"),
    [
        ("honey bee", "How bees make honey"),
        ("what is the speed of light?", "The speed of light"),
        ("PIZZA dough", "Homemade pizza dough"),
        ("大熊猫吃什么", "大熊猫的生活习性"),
        ("绿茶", "如何泡绿茶"),
    ],
)
def test_a_query_finds_its_page(query: str, title: str) -> None:
    answer = ask(SEARCH, "web_search", query=query)
    assert (answer["query"], answer["title"]) == (query, title)
    opened = ask(SEARCH, "open_page", page=answer["page"])
    assert opened == {"page": answer["page"], "title": title, "content": PAGES[answer["page"]]["content"]}


def test_more_counts_the_other_hits() -> None:
    assert ask(SEARCH, "web_search", query="sourdough")["more"] == 0
    assert ask(SEARCH, "web_search", query="water")["more"] > 5


@pytest.mark.parametrize("query", ["quantum chromodynamics", "the of and", "", "!?", "狗"])
def test_no_hit_is_a_404_that_says_what_to_try(query: str) -> None:
    message = f"no result for {query!r}; try fewer or other words"
    assert refusal(SEARCH, "web_search", query=query) == (404, message)


def test_an_unknown_page_is_a_404() -> None:
    message = "there is no page 'p999'; use the page id of a search result: p and a number"
    assert refusal(SEARCH, "open_page", page="p999") == (404, message)
    assert refusal(SEARCH, "save_bookmark", page="p999", label="x") == (404, message)


def test_bookmarks_are_saved() -> None:
    state = SEARCH.new_state()
    SEARCH.call("save_bookmark", {"page": "P3", "label": " bread "}, state)
    SEARCH.call("save_bookmark", {"page": "p4", "label": "tea"}, state)
    assert SEARCH.call("save_bookmark", {"page": "p3", "label": "Bread"}, state)["bookmark"] == "b3"  # type: ignore[index, call-overload]
    assert state["bookmarks"] == {"p3: bread": 2, "p4: tea": 1}
    assert refusal(SEARCH, "save_bookmark", page="p3", label=" ")[0] == 422
