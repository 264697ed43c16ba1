"""Calls work on a copy of the state, and whatever a handler raises becomes a ToolError or a HandlerError."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentft.errors import ToolError
from agentft.toolset import HandlerError, Toolset, load_toolset

TOOLS = '''
from agentft.errors import ToolError
from agentft.toolset import read, write
BASE_URL = "http://x.test"

@read
def count(state):
    """Count."""
    return {"n": len(state["items"])}

@write
def add(state, item: str):
    """Add."""
    state["items"].append(item)
    if item == "refused":
        raise ToolError("not this one", status=409)
    if item == "broken":
        raise KeyError(item)
    if item == "exit":
        raise SystemExit(0)
    if item == "strange":
        return {"n": {1, 2}}
    return {"n": len(state["items"])}

@write
def hoard(state):
    """Put something into the state that is not JSON."""
    state["x"] = object()
    return {}

@read
def sneak(state):
    """Write in a read."""
    state["items"].append("x")
    return {}
'''


@pytest.fixture
def world(tmp_path: Path) -> Toolset:
    (tmp_path / "tools.py").write_text(TOOLS, encoding="utf-8")
    (tmp_path / "state.json").write_text('{"items": []}', encoding="utf-8")
    return load_toolset(str(tmp_path))


def test_a_write_changes_only_the_state_that_it_was_called_with(world: Toolset) -> None:
    one, two = world.new_state(), world.new_state()
    assert world.call("add", {"item": "a"}, one) == {"n": 1}
    assert world.call("count", {}, one) == {"n": 1}
    assert world.call("count", {}, two) == {"n": 0}
    assert world.digest(one) != world.digest(two) == world.digest(world.new_state())


def test_is_write_knows_reads_from_writes(world: Toolset) -> None:
    assert (world.is_write("add"), world.is_write("count"), world.is_write("nothing")) == (True, False, False)


def test_a_refusal_is_raised_unchanged_and_does_not_change_the_state(world: Toolset) -> None:
    state = world.new_state()
    with pytest.raises(ToolError, match="not this one") as caught:
        world.call("add", {"item": "refused"}, state)
    assert caught.value.status == 409
    assert state == world.new_state()


@pytest.mark.parametrize(
    ("name", "item", "cause"),
    [
        ("add", "broken", KeyError),
        ("add", "exit", SystemExit),
        ("add", "strange", TypeError),
        ("hoard", None, TypeError),
        ("sneak", None, RuntimeError),
    ],
)
def test_a_handlers_bug_is_kept_as_the_cause(
    world: Toolset, name: str, item: str | None, cause: type[BaseException]
) -> None:
    state = world.new_state()
    with pytest.raises(HandlerError, match=f"^internal error in tool {name}$") as caught:
        world.call(name, {} if item is None else {"item": item}, state)
    assert isinstance(caught.value.__cause__, cause)
    assert state == world.new_state()


def test_an_unknown_tool_names_a_near_one(world: Toolset) -> None:
    with pytest.raises(ToolError, match=r"there is no tool 'counts'; did you mean 'count'\?") as caught:
        world.call("counts", {}, world.new_state())
    assert caught.value.status == 404


def test_the_result_shares_nothing_with_the_state(world: Toolset) -> None:
    state = world.new_state()
    result = world.call("add", {"item": "a"}, state)
    assert isinstance(result, dict)
    result["n"] = 99
    assert world.call("count", {}, state) == {"n": 1}
