"""Building data from recipes: reproducible, with correct counts, and with real results of the worlds."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.content import content_root
from agentft.errors import InputError, ToolError
from agentft.evaluation.plan import make_plan
from agentft.evaluation.suites import load_suite
from agentft.rows.ledger import Ledger
from agentft.rows.reading import read_conversations
from agentft.synthesis.build import BuildReport, build
from agentft.synthesis.compose import Retag, wrap
from agentft.synthesis.recipe import CallPattern, Round, Slot, read_build_recipe
from agentft.synthesis.slots import REFERENCE, Decks, Filler
from agentft.toolserver import ToolServer
from agentft.toolset import load_toolset, load_toolsets
from agentft.types import Conversation, Json, ToolCall, ToolResult

DATASETS = content_root() / "datasets"
QUICKSTART = DATASETS / "quickstart.toml"

WORLDS = ("weather", "search", "calculator")

SMALL = """
name = "small"
seed = 3
[counts]
single = 6
multi_round = 4
irrelevance = 2
[composed]
multi_round = 1.0
[personas]
plain = "You help."
[[systems]]
persona = "plain"
worlds = ["weather"]
[slots.en]
city = ["Paris", "Oslo", "Lima", "Cairo", "Rome"]
[phrases.en]
wraps = ["Please {do}."]
joins = ["{Do:1} and {do:2}."]
[[intents]]
id = "air"
say = ["How is the air in {city}?"]
do = ["check the air in {city}"]
follow = ["And in {city}?"]
calls = [{ tool = "air_quality", arguments = { city = "{city}" } }]
answer = ["The AQI of {city} is {1.aqi}."]
[[talks]]
pairs = [["Hi", "Hello!"]]
"""


@pytest.fixture(
    scope="module", params=[pytest.param(name, marks=pytest.mark.slow) for name in ("quickstart", "worlds")]
)
def shipped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BuildReport]:
    """The rows of a shipped recipe."""
    out = tmp_path_factory.mktemp("built") / f"{request.param}.jsonl"
    return out, build(DATASETS / f"{request.param}.toml", out, ToolServer)


@pytest.fixture(scope="module")
def conversations(shipped: tuple[Path, BuildReport]) -> list[Conversation]:
    return [conversation for _, conversation in read_conversations(shipped[0], Ledger())]


def small(tmp_path: Path, old: str = "", new: str = "") -> Path:
    assert old in SMALL
    (tmp_path / "small.toml").write_text(SMALL.replace(old, new) if old else SMALL, encoding="utf-8")
    return tmp_path / "small.toml"


def build_elsewhere(recipe: Path, out: Path, hash_seed: str) -> str:
    code = (
        "import sys; from pathlib import Path; from agentft.synthesis.build import build; "
        "from agentft.toolserver import ToolServer; "
        "print(build(Path(sys.argv[1]), Path(sys.argv[2]), ToolServer).sha256)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, str(recipe), str(out)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return run.stdout.strip()


@pytest.mark.slow
def test_two_processes_build_the_same_bytes_from_any_folder(tmp_path: Path) -> None:
    here = build(QUICKSTART, tmp_path / "here.jsonl", ToolServer).sha256
    copy = shutil.copytree(DATASETS, tmp_path / "copied") / QUICKSTART.name
    recipes = {"1": QUICKSTART, "4242": copy}
    digests = {build_elsewhere(recipe, tmp_path / f"{seed}.jsonl", seed) for seed, recipe in recipes.items()}
    assert digests == {here}
    assert hashlib.sha256((tmp_path / "1.jsonl").read_bytes()).hexdigest() == here


def test_another_seed_builds_other_rows(tmp_path: Path) -> None:
    reports = [build(small(tmp_path), tmp_path / "x.jsonl", ToolServer, seed=seed) for seed in (1, 2)]
    assert reports[0].sha256 != reports[1].sha256
    assert reports[0].seed == 1


def test_every_shipped_row_can_be_parsed(shipped: tuple[Path, BuildReport]) -> None:
    ledger = Ledger()
    read = [conversation for _, conversation in read_conversations(shipped[0], ledger)]
    assert ledger.rejected == 0
    assert ledger.rows == ledger.kept == len(read) == shipped[1].rows
    assert len({conversation.id for conversation in read}) == len(read)


def test_the_report_matches_the_file(shipped: tuple[Path, BuildReport], conversations: list[Conversation]) -> None:
    report = shipped[1]
    recipe = read_build_recipe(DATASETS / f"{shipped[0].stem}.toml")
    assert dict(report.categories) == dict(recipe.counts)
    assistant = [turn for one in conversations for turn in one.turns if turn.role == "assistant"]
    calls = Counter(part.name for turn in assistant for part in turn.parts if isinstance(part, ToolCall))
    assert dict(calls) == dict(report.tools)
    assert len(assistant) == report.turns
    assert sum(not any(isinstance(part, ToolCall) for part in turn.parts) for turn in assistant) == report.quiet_turns


def test_the_shipped_data_has_the_mix_that_it_needs(shipped: tuple[Path, BuildReport]) -> None:
    report = shipped[1]
    assert 400 <= report.rows <= 1000
    assert 0.15 <= report.languages["zh"] / report.rows <= 0.25
    assert 0.2 <= report.quiet_turns / report.turns <= 0.35
    assert report.systems == {"quickstart": 1, "worlds": 3}[shipped[0].stem]
    assert min(report.tools.values()) >= 10


def test_system_texts_equal_those_of_an_evaluation(
    shipped: tuple[Path, BuildReport], conversations: list[Conversation]
) -> None:
    """Like an evaluation, the rows list the suite's tools in the worlds' order."""
    suites = [load_suite(name) for name in {"quickstart": ["basics"], "worlds": list(WORLDS)}[shipped[0].stem]]
    plans = [make_plan([suite], load_toolsets(suite.worlds)) for suite in suites]
    shown = Counter(tuple(tool.name for tool in one.tools) for one in conversations)
    assert set(shown) == {tuple(tool.name for tool in plan.tools(plan.cases[0])) for plan in plans}
    assert min(shown.values()) > len(conversations) / 6


def test_calls_and_results_alternate_and_turns_end_with_an_answer(conversations: list[Conversation]) -> None:
    for one in conversations:
        for turn in (turn for turn in one.turns if turn.role == "assistant"):
            kinds = [type(part) for part in turn.parts if isinstance(part, ToolCall | ToolResult)]
            assert kinds == [ToolCall, ToolResult] * (len(kinds) // 2)
            assert not isinstance(turn.parts[-1], ToolCall | ToolResult)
            calls = [part for part in turn.parts if isinstance(part, ToolCall)]
            assert all(call.parse_error is None and call.endpoint for call in calls)


def test_arguments_of_shipped_rows_occur_earlier_in_the_conversation(conversations: list[Conversation]) -> None:
    """A model is not trained to guess: names and texts in a call come from the conversation before it."""
    copied = {"city", "query", "page", "label", "name", "from_unit", "to_unit"}
    for one in conversations:
        heard = ""
        for turn in one.turns[1:]:
            for part in turn.parts:
                if isinstance(part, ToolCall):
                    for key, value in part.arguments.items():
                        ways = {str(value), re.sub(r"^p(?=\d+$)", "", str(value))}
                        assert key not in copied or any(way in heard for way in ways), (one.id, key, value)
                else:
                    heard += getattr(part, "text", "") or getattr(part, "content", "")


@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param("datasets/quickstart.toml", marks=pytest.mark.slow),
        "evals/weather/build.toml",
        "evals/calculator/build.toml",
    ],
)
def test_the_error_for_a_wrong_name_suggests_the_right_one(recipe: str) -> None:
    slots = read_build_recipe(content_root() / recipe).values
    wrong: list[tuple[str, str, dict[str, Json], Slot]] = [
        ("weather", "current_weather", {"city": slot.say}, slot)
        for lang in slots.values()
        for slot in lang.get("old", ())
    ]
    wrong += [
        ("calculator", "convert_units", {"value": 3, "from_unit": slot.say, "to_unit": str(slot.fields["to"])}, slot)
        for lang in slots.values()
        for slot in lang.get("bad", ())
    ]
    assert wrong
    for world, tool, arguments, slot in wrong:
        toolset = load_toolset(world)
        with pytest.raises(ToolError, match=f"did you mean {str(slot.fields['right'])!r}"):
            toolset.call(tool, arguments, toolset.new_state())


def test_numbers_in_expressions_occur_in_the_request(conversations: list[Conversation]) -> None:
    for one in conversations:
        heard = "".join(turn.raw for turn in one.turns if turn.role == "user")
        for turn in one.turns:
            for part in (part for part in turn.parts if isinstance(part, ToolCall) and part.name == "calculate"):
                expression = str(part.arguments["expression"])
                assert set(re.findall(r"\d+(?:\.\d+)?", expression)) - {"2"} <= set(re.findall(r"\d+(?:\.\d+)?", heard))
                assert not re.search(r"\d[-+*/%]|[-+*/%]\d", expression), "single spaces around operators"


def test_follow_ups_ask_for_the_slot_that_they_name(tmp_path: Path) -> None:
    out = tmp_path / "small.jsonl"
    build(small(tmp_path), out, ToolServer)
    for line in out.read_text(encoding="utf-8").splitlines():
        turns = json.loads(line)["conversations"][1:]
        for user, assistant in zip(turns[::2], turns[1::2], strict=True):
            named = re.search(r"\b(Paris|Oslo|Lima|Cairo|Rome)\b", user["value"])
            assert named is None or f'"city": "{named[1]}"' in assistant["value"]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("seed = 3", "sede = 3", "no key 'sede'; did you mean 'seed'"),
        ("single = 6", "singel = 6", "did you mean 'single'"),
        ('id = "air"', 'idd = "air"', "intents[0]: there is no key 'idd'"),
        ('tool = "air_quality", ', 'tool = "air_qualty", ', "no world of this recipe has a tool 'air_qualty'"),
        ('worlds = ["weather"]', 'worldz = ["weather"]', "did you mean 'worlds'"),
        ('worlds = ["weather"]', 'worlds = ["weather"]\ntools = ["air"]', "no world of this recipe has a tool 'air'"),
        ('worlds = ["weather"]', 'worlds = ["weather"]\ntools = ["current_weather"]', "no intent gives a single row"),
        ('persona = "plain"', 'persona = "plan"', "did you mean 'plain'"),
        ('"Oslo"', '"Atlantis"', "should succeed, but the world answered"),
        ("{1.aqi}", "{1.smog}", "result 1 has no 'smog'"),
        ("{1.aqi}", "{2.aqi}", "no result 2 (results so far: 1)"),
        ('say = ["How is the air in {city}?"]', 'say = ["How is {town}?"]', "there is no slot {town}"),
        ("irrelevance = 2", "tool_error = 2", "no intent gives a tool_error row in 'en'"),
        ('answer = ["The AQI of {city} is {1.aqi}."]', "", "has no `answer`"),
        ('pairs = [["Hi", "Hello!"]]', "pairs = [[]]", "pairs[0]"),
        ("[counts]", "[counts", "it is not TOML"),
        ("multi_round = 1.0", "missing_parameter = 1.0\n[languages]\nen = -1", "`en` is -1.0; it must be at least 0"),
    ],
)
def test_invalid_recipes_are_refused_with_place_and_remedy(tmp_path: Path, old: str, new: str, message: str) -> None:
    out = tmp_path / "small.jsonl"
    out.write_text("what was there before")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        build(small(tmp_path, old, new), out, ToolServer)
    assert caught.value.exit_code == 2
    assert out.read_text() == "what was there before"
    assert [path.name for path in tmp_path.iterdir() if "partial" in path.name] == []


def test_a_missing_recipe_or_include_is_an_error_with_its_path(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.toml: cannot be read"):
        build(tmp_path / "nowhere.toml", tmp_path / "x.jsonl", ToolServer)
    with pytest.raises(InputError, match=r"gone\.toml: cannot be read"):
        build(small(tmp_path, "seed = 3", 'seed = 3\ninclude = ["gone.toml"]'), tmp_path / "x.jsonl", ToolServer)


def test_a_call_that_should_fail_must_fail(tmp_path: Path) -> None:
    recipe = small(tmp_path, "arguments = { city", "fails = true, arguments = { city")
    with pytest.raises(InputError, match="should fail, but the world answered"):
        build(recipe, tmp_path / "x.jsonl", ToolServer)


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 4))
def test_a_deck_uses_every_item_once_before_it_repeats_any(seed: int, size: int, rounds: int) -> None:
    decks = Decks(seed)
    dealt = [decks.draw("x", range(size)) for _ in range(size * rounds)]
    for start in range(0, len(dealt), size):
        assert sorted(dealt[start : start + size]) == list(range(size))


NAMES = st.from_regex(r"[a-z]{1,6}(:[a-z0-9]{1,2})?(\.[a-z]{1,4})?", fullmatch=True)


@given(st.lists(st.one_of(NAMES.map(lambda name: f"{{{name}}}"), st.text("abc ?", max_size=5))), st.integers(0, 9))
def test_retagging_renames_slots_and_keeps_text(pieces: list[str], offset: int) -> None:
    template = "".join(pieces)
    renamed = Retag("q", offset).text(template)
    assert REFERENCE.sub("", renamed) == REFERENCE.sub("", template)
    before, after = list(REFERENCE.finditer(template)), list(REFERENCE.finditer(renamed))
    assert [(m["slot"], m["field"]) for m in after] == [(m["slot"], m["field"]) for m in before]
    assert all(new["tag"] == f"{old['tag'] or ''}q" for old, new in zip(before, after, strict=True))


def test_retagging_renumbers_results_in_every_argument() -> None:
    call = CallPattern("t", {"page": "{1.page}", "all": ["{x}", 3]}, {"o": "{x}"}, {"a": ["{x:b}"]}, fails=False)
    moved = Retag("k", 2).round(Round(("Open {1.page} for {x}.",), (call,), ("{1.page}",), ("{x}",)))
    assert moved.say == ("Open {3.page} for {x:k}.",)
    assert moved.calls[0].arguments == {"page": "{3.page}", "all": ["{x:k}", 3]}
    assert moved.calls[0].optional == {"o": "{x:k}"}
    assert moved.calls[0].alternatives == {"a": ["{x:bk}"]}
    assert (moved.answer, moved.holds) == (("{3.page}",), ("{x:k}",))


def test_a_slots_wording_can_differ_from_its_value() -> None:
    recipe = read_build_recipe(QUICKSTART)
    filler = Filler(Decks(1), recipe.values, "en", "here")
    said = filler.text("{days} days, {old} is {old.right}, {expression}")
    assert isinstance(filler.value("{days}"), int)
    assert filler.value("about {days}") == f"about {filler.value('{days}')}"
    assert str(filler.value("{old}")) in said
    assert re.search(r"\d [-+*/%]+ ", str(filler.value("{expression}")))
    assert filler.text("{days} days, {old} is {old.right}, {expression}") == said
    with pytest.raises(InputError, match="has no field 'nothing'"):
        filler.text("{old.nothing}")


def test_wrapping_starts_sentences_with_a_capital() -> None:
    assert wrap("open {page}", "Please {do}.") == "Please open {page}."
    assert wrap("open {page}", "{Do:1}, then wait.", "1") == "Open {page}, then wait."
    assert wrap("{expression}", "{Do}") == "{expression}"


def test_cases_contain_real_answers_and_alternatives(tmp_path: Path) -> None:
    recipe = SMALL.replace("[personas]", "[unused]").replace('plain = "You help."', "")
    recipe = recipe[: recipe.index("[unused]")] + recipe[recipe.index("[slots.en]") :]
    recipe = recipe.replace("seed = 3", 'seed = 3\nform = "cases"\nworlds = ["weather"]')
    recipe = recipe.replace("answer = [", 'holds = ["{1.aqi}"]\nanswer = [')
    recipe = recipe.replace(
        'arguments = { city = "{city}" } }',
        'arguments = { city = "{city}" }, alternatives = { city = ["{city} city"] } }',
    )
    (tmp_path / "cases.toml").write_text(recipe, encoding="utf-8")
    report = build(tmp_path / "cases.toml", tmp_path / "cases.jsonl", ToolServer)
    cases = [json.loads(line) for line in (tmp_path / "cases.jsonl").read_text(encoding="utf-8").splitlines()]
    assert report.form == "cases"
    assert [case["id"] for case in cases[:2]] == ["small-single-01", "small-single-02"]
    first = cases[0]["turns"][0]
    city = first["calls"][0]["arguments"]["city"]
    assert first["calls"][0]["alternatives"] == {"city": [f"{city} city"]}
    assert first["reference"] == f"The AQI of {city} is {first['answer'][0]}."
    assert cases[-1]["turns"] == [{"user": "Hi", "reference": "Hello!"}]
