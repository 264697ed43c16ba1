"""Slots inside lists and objects, and the checks of every built row."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.rows.ledger import Ledger
from agentft.rows.reading import read_conversations
from agentft.synthesis.build import build
from agentft.synthesis.slots import Decks, Filler
from agentft.toolserver import ToolServer
from agentft.types import ToolCall
from tests.synthesis.test_build import DATASETS, small

NESTED = """
name = "nested"
[counts]
single = 2
[personas]
plain = "You help."
[[systems]]
persona = "plain"
worlds = ["./orders"]
[slots.en]
sku = ["B2", "C3"]
[[intents]]
id = "order"
say = ["Order {sku}."]
do = ["order {sku}"]
calls = [{ tool = "create_order", arguments = { lines = [{ sku = "{sku}", tags = ["x {sku}"] }] } }]
answer = ["Done."]
[phrases.en]
joins = ["{do:1} and {do:2}"]
"""

ORDERS = {
    "base_url": "http://orders.test",
    "tools": [
        {
            "name": "create_order",
            "description": "Create an order.",
            "access": "write",
            "parameters": {"type": "object", "properties": {"lines": {"type": "array", "items": {"type": "object"}}}},
            "example": {"lines": []},
            "returns": {},
        }
    ],
}


def build_nested(folder: Path, recipe: str) -> list[list[ToolCall]]:
    (folder / "orders").mkdir(exist_ok=True)
    (folder / "orders" / "tools.json").write_text(json.dumps(ORDERS), encoding="utf-8")
    (folder / "nested.toml").write_text(recipe.replace("./orders", str(folder / "orders")), encoding="utf-8")
    build(folder / "nested.toml", folder / "rows.jsonl", ToolServer)
    found = [conversation for _, conversation in read_conversations(folder / "rows.jsonl", Ledger())]
    return [[part for turn in one.turns for part in turn.parts if isinstance(part, ToolCall)] for one in found]


def test_slots_inside_lists_and_objects_are_filled(tmp_path: Path) -> None:
    values = {json.dumps(dict(call.arguments)) for (call,) in build_nested(tmp_path, NESTED)}
    assert values == {f'{{"lines": [{{"sku": "{sku}", "tags": ["x {sku}"]}}]}}' for sku in ("B2", "C3")}


def test_slots_inside_objects_are_renamed_when_requests_are_joined(tmp_path: Path) -> None:
    recipe = NESTED.replace("single = 2", "parallel = 2\n[composed]\nparallel = 1.0")
    for first, second in build_nested(tmp_path, recipe):
        assert {str(first.arguments)[20:22], str(second.arguments)[20:22]} == {"B2", "C3"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("{ sku =", '{ "{sku}" ='),
        ('["B2", "C3"]', '[{ say = "B2", value = "B2", more = "{1.id}" }]\nq = ["{sku.more}"]'),
    ],
)
def test_a_reference_that_stays_unfilled_is_an_error(tmp_path: Path, old: str, new: str) -> None:
    recipe = NESTED.replace(old, new).replace('"x {sku}"', '"x {sku.more}"' if "more" in new else '"x"')
    with pytest.raises(InputError, match=r"still unfilled|no result 1"):
        build_nested(tmp_path, recipe)


def test_a_text_with_markers_of_a_call_is_an_error(tmp_path: Path) -> None:
    recipe = NESTED.replace("Done.", '<|startofthink|>{\\"api_name\\": \\"f\\"}<|endofthink|>')
    with pytest.raises(InputError, match="reads back with other calls than were executed \\(calls: 2 instead of 1\\)"):
        build_nested(tmp_path, recipe)


def test_systems_with_different_tools_of_one_world_share_a_recipe(tmp_path: Path) -> None:
    """Their decks once had one name, and the longer one ran over the end of the shorter one."""
    systems = '[[systems]]\npersona = "plain"\nworlds = ["weather"]\ntools = ["air_quality"]\n'
    more = "".join(
        f'[[intents]]\nid = "now{number}"\nsay = ["Now in {{city}}?"]\nfollow = ["{{city}}?"]\n'
        'calls = [{ tool = "current_weather", arguments = { city = "{city}" } }]\nanswer = ["Well."]\n'
        for number in range(3)
    )
    recipe = small(tmp_path, "[slots.en]", f"{systems}[slots.en]")
    recipe.write_text(recipe.read_text(encoding="utf-8").replace("[[talks]]", f"{more}[[talks]]"), encoding="utf-8")
    for seed in range(5):
        assert build(recipe, tmp_path / "rows.jsonl", ToolServer, seed=seed).rows == 12


def test_the_recipe_that_the_documentation_prints_can_be_built(tmp_path: Path) -> None:
    printed = re.search(r"```toml\n(.*?)```", (DATASETS / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert printed
    (tmp_path / "printed.toml").write_text(printed[1], encoding="utf-8")
    report = build(tmp_path / "printed.toml", tmp_path / "rows.jsonl", ToolServer)
    assert report.rows == 12
    assert report.categories == {"single": 6, "several_tools": 2, "multi_round": 4}


@pytest.mark.parametrize(("template", "message"), [("{1.²}", "result 1 has no '²'"), ("{²}", "there is no slot {²}")])
def test_a_digit_that_is_no_number_is_refused(template: str, message: str) -> None:
    filler = Filler(Decks(1), {}, "en", "here")
    filler.results = [[1]]
    with pytest.raises(InputError, match=re.escape(message)):
        filler.value(template)
