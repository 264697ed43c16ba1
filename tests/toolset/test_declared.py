"""A world may be a `tools.json`: canned and templated answers first, then values drawn from the seed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from agentft.errors import InputError, ToolError
from agentft.toolset import Toolset, load_toolset

ORDER: dict[str, Any] = {
    "type": "object",
    "required": ["id", "lines"],
    "properties": {
        "id": {"type": "integer"},
        "status": {"enum": ["open", "sent"]},
        "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}, "minItems": 1},
    },
    "$defs": {"Line": {"type": "object", "required": ["sku"], "properties": {"sku": {"type": "string"}}}},
}
CITY = {"type": "object", "properties": {"city": {"type": "string"}, "days": {"type": "integer"}}}
GREET: dict[str, Any] = {
    "name": "greet",
    "description": "Greet a city.",
    "parameters": CITY,
    "access": "read",
    "example": {"city": "Rome"},
    "answers": [
        {"when": {"city": "Oz"}, "status": 404, "body": {"error": "no city Oz", "code": 7}},
        {"when": {"city": "Rome", "days": 2}, "body": "two days in {city}"},
        {"when": {"city": "Bonn"}, "body": {"raw": "{city}"}, "template": False},
        {"when": {"city": "Linz"}, "body": "only Linz", "exact": True},
        {"body": {"text": "Hello {city}, {days} {x}", "days": "{days}"}},
    ],
}
FETCH: dict[str, Any] = {
    "name": "get_order",
    "description": "Fetch an order.",
    "parameters": {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]},
    "access": "read",
    "returns": ORDER,
    "route": {"method": "get", "path": "/orders/{id}", "places": {"id": ["path", "id"]}},
}
CANCEL: dict[str, Any] = {key: value for key, value in FETCH.items() if key != "route"} | {
    "name": "cancel_order",
    "access": "destructive",
    "returns": {},
}


def world(folder: Path, *tools: dict[str, Any], seed: int = 0, **more: Any) -> Toolset:
    folder.mkdir(exist_ok=True)
    text = json.dumps({"base_url": "http://shop.test/v1/", "tools": list(tools), **more})
    (folder / "tools.json").write_text(text, encoding="utf-8")
    return load_toolset(str(folder), seed)


def test_the_first_matching_answer_is_returned_with_its_placeholders_replaced(tmp_path: Path) -> None:
    shop = world(tmp_path / "shop", GREET)
    state = shop.new_state()
    assert shop.definitions[0].endpoints == ("http://shop.test/v1/greet",)
    assert shop.call("greet", {"city": "Rome", "days": 2.0}, state) == "two days in Rome"
    assert shop.call("greet", {"city": "Bonn"}, state) == {"raw": "{city}"}
    assert shop.call("greet", {"city": "Linz"}, state) == "only Linz"
    filled = {"text": "Hello Linz, 3 {x}", "days": 3}
    assert shop.call("greet", {"city": "Linz", "days": 3}, state) == filled
    hostile = "{days} {0.__class__} %s"
    answer: Any = shop.call("greet", {"city": hostile, "days": 1}, state)
    assert answer["text"] == f"Hello {hostile}, 1 {{x}}"


def test_an_error_status_is_a_refusal_with_its_body(tmp_path: Path) -> None:
    shop = world(tmp_path / "shop", GREET)
    with pytest.raises(ToolError, match="no city Oz") as caught:
        shop.call("greet", {"city": "Oz"}, shop.new_state())
    assert (caught.value.status, caught.value.details) == (404, {"error": "no city Oz", "code": 7})


def test_drawn_answers_satisfy_the_schema_and_echo(tmp_path: Path) -> None:
    shop = world(tmp_path / "shop", FETCH)
    answers: list[Any] = [shop.call("get_order", {"id": number}, shop.new_state()) for number in range(30)]
    assert [answer["id"] for answer in answers] == list(range(30))
    assert all(Draft202012Validator(ORDER).is_valid(answer) for answer in answers)
    assert len({json.dumps(answer) for answer in answers}) == 30
    other = world(tmp_path / "shop", FETCH, seed=5)
    assert other.call("get_order", {"id": 3}, other.new_state()) != answers[3]
    assert other.call("get_order", {"id": 3}, other.new_state(seed=0)) == answers[3]
    route = shop.tools["get_order"].route
    assert route is not None
    assert (route.method, route.path, route.places) == ("GET", "/orders/{id}", {"id": ("path", "id")})


def test_two_processes_draw_the_same(tmp_path: Path) -> None:
    world(tmp_path / "shop", FETCH)
    script = (
        "import sys; from agentft.toolset import load_toolset; t = load_toolset(sys.argv[1]);"
        "print([t.call('get_order', {'id': n}, t.new_state()) for n in range(5)])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "shop")]
    outputs = {
        subprocess.run(command, capture_output=True, check=True, env={"PYTHONHASHSEED": seed}).stdout for seed in "12"
    }
    assert len(outputs) == 1


def test_writes_change_the_state_and_reads_do_not(tmp_path: Path) -> None:
    shop = world(tmp_path / "shop", FETCH, CANCEL)
    state, again = shop.new_state(), shop.new_state()
    before = shop.digest(state)
    shop.call("get_order", {"id": 1}, state)
    assert shop.digest(state) == before
    digests = [before]
    for number in (1, 2, 2):
        assert shop.call("cancel_order", {"id": number}, state) == {"ok": True}
        digests.append(shop.digest(state))
    assert len(set(digests)) == 4
    for number in (2, 1, 2):
        shop.call("cancel_order", {"id": number}, again)
    assert shop.digest(again) == shop.digest(state)


def test_an_unsatisfiable_schema_gives_no_answer(tmp_path: Path) -> None:
    returns = {"type": "string", "pattern": "^a$", "minLength": 2}
    shop = world(tmp_path / "shop", {**FETCH, "returns": returns})
    with pytest.raises(ToolError, match=r"get_order has no answer for this: .*give it one in its world's") as caught:
        shop.call("get_order", {"id": 1}, shop.new_state())
    assert caught.value.status == 501


def test_arguments_may_have_any_name_and_schema(tmp_path: Path) -> None:
    schema = {
        "type": "object",
        "properties": {"self": {}, "state": True, "deep": {"$ref": "#/$defs/D"}},
        "required": ["state", "unlisted"],
        "$defs": {"D": {"type": "array", "items": {"$ref": "#/$defs/D"}}},
    }
    shop = world(
        tmp_path / "shop", {**CANCEL, "name": "get_order", "parameters": schema, "returns": {}, "access": "write"}
    )
    call: dict[str, Any] = {"self": 1, "state": [2], "unlisted": None, "more": 2.0, "deep": [[[]]]}
    assert shop.call("get_order", call, shop.new_state()) == {"ok": True}
    with pytest.raises(ToolError, match=r"missing arguments 'state' \(any value\), 'unlisted' \(any value\)"):
        shop.call("get_order", {}, shop.new_state())
    with pytest.raises(ToolError, match="argument 'deep/0' must be a list, not 1"):
        shop.call("get_order", {"state": 1, "unlisted": 1, "deep": [1]}, shop.new_state())


def test_a_reference_inside_an_example_is_data(tmp_path: Path) -> None:
    returns = {"properties": {"default": {"type": "object", "default": {"$ref": "#/gone"}}}, "required": ["default"]}
    shop = world(tmp_path / "shop", {**FETCH, "returns": returns})
    assert shop.call("get_order", {"id": 1}, shop.new_state()) == {"default": {"$ref": "#/gone"}}
    with pytest.raises(InputError, match="refers to '/gone'"):
        world(tmp_path / "shop", {**FETCH, "returns": {"properties": {"default": {"$ref": "#/gone"}}}})


def test_a_declared_world_may_have_a_state_but_no_key_writes(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "state.json").write_text('{"a": 1}', encoding="utf-8")
    assert world(tmp_path / "shop", FETCH).new_state() == {"a": 1, "seed": 0}
    (tmp_path / "shop" / "state.json").write_text('{"writes": 1}', encoding="utf-8")
    with pytest.raises(InputError, match="the key 'writes' is reserved for the writes of declared tools; rename it"):
        world(tmp_path / "shop", FETCH)
    (tmp_path / "shop" / "tools.py").write_text("", encoding="utf-8")
    with pytest.raises(InputError, match=r"both tools.py and tools.json"):
        load_toolset(str(tmp_path / "shop"))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "get order"}, "a tool's name must be unique and consist of letters"),
        ({"name": "x" * 65}, "a tool's name must be unique and consist of letters"),
        ({"access": "rw"}, "`access` is 'rw', which is not valid; known: read, write, destructive"),
        ({"acess": "read"}, "there is no key 'acess'; did you mean 'access'"),
        ({"parameters": {"type": 3}}, "get_order: tool get_order: its schema is not valid"),
        ({"parameters": {"$ref": "http://x.test/s.json"}}, "refers to 'http://x.test/s.json', which is not"),
        ({"returns": {"$ref": "#/$defs/Gone"}}, r"refers to '/\$defs/Gone', which is not in it"),
        ({"example": {"id": "one"}}, "get_order: argument 'id' must be an integer"),
        ({"answers": [{"status": 200}]}, "`body` is missing"),
        ({"answers": [{"body": 1, "status": 99}]}, "status must be from 100 to 599"),
        ({"route": {"method": "GET", "path": "/", "places": {"x": ["path", "x"]}}}, "route.places: 'x' must be"),
        ({"route": {"method": "GET", "path": "/", "places": {"id": ["url", "x"]}}}, "route.places: 'id' must be"),
        ({"route": {"method": "GET", "path": ":80/x"}}, "route: the path ':80/x' must begin with one `/`"),
        ({"route": {"method": "GET", "path": "/a/../../x"}}, "route: the path '/a/../../x' must begin with one `/`"),
        ({"route": {"method": "CONNECT", "path": "/x"}}, "route: the method 'CONNECT' must be one of GET"),
    ],
)
def test_a_broken_file_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        world(tmp_path / "shop", {**FETCH, **change})
    assert "tools.json" in str(caught.value)


def test_a_file_without_tools_or_with_one_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tools; declare"):
        world(tmp_path / "shop")
    with pytest.raises(InputError, match="must be unique"):
        world(tmp_path / "shop", FETCH, FETCH)
    with pytest.raises(InputError, match="BASE_URL 'ftp://x' is not an http address"):
        world(tmp_path / "shop", FETCH, base_url="ftp://x")
