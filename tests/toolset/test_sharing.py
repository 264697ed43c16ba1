"""Frozen states cannot be changed, and a draft behaves as a copy would, whatever a handler does with it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentft.toolset.state import copy_json, draft, freeze

STATE: dict[str, Any] = {
    "orders": {"o1": {"items": [{"n": 1}, {"n": 2}], "paid": False}, "o2": {}},
    "log": [[1], [2]],
    "n": 1,
}


@pytest.mark.parametrize(
    "change",
    [
        lambda state: state.update(n=2),
        lambda state: state["orders"].pop("o1"),
        lambda state: state["orders"].clear(),
        lambda state: state["orders"].setdefault("o3", {}),
        lambda state: state["orders"].popitem(),
        lambda state: state["orders"]["o1"].__setitem__("paid", True),
        lambda state: state["orders"]["o1"]["items"][0].__delitem__("n"),
        lambda state: state["log"].append([3]),
        lambda state: state["log"][0].extend([3]),
        lambda state: state["log"].sort(),
        lambda state: state["log"].insert(0, []),
        lambda state: state["log"].__iadd__([1]),
        lambda state: [entry.pop() for entry in state["log"]],
        lambda state: [order.update(x=1) for order in state["orders"].values()],
    ],
)
def test_nothing_in_a_frozen_state_can_be_changed(change: Any) -> None:
    frozen = freeze(copy_json(STATE))
    with pytest.raises(RuntimeError, match="a tool marked @read changed the state"):
        change(frozen)
    assert frozen == STATE


def test_copies_of_frozen_values_are_plain_and_independent() -> None:
    frozen = freeze(copy_json(STATE))
    copied = copy.deepcopy(frozen)
    copied["orders"]["o1"]["paid"] = True
    plain = copy_json(frozen)
    plain["log"][0].append(9)
    assert frozen == STATE
    assert type(copied["orders"]) is type(plain["orders"]) is dict
    assert json.dumps(frozen) == json.dumps(STATE)


def test_records_that_were_not_changed_are_shared() -> None:
    frozen = freeze(copy_json(STATE))
    working = draft(frozen)
    working["orders"]["o1"]["paid"] = True
    assert working["orders"]["o2"] == {}
    kept = freeze(working)
    assert kept["log"] is frozen["log"]
    assert kept["orders"]["o2"] is frozen["orders"]["o2"]
    assert (kept["orders"]["o1"]["paid"], frozen["orders"]["o1"]["paid"]) == (True, False)
    assert freeze(draft(frozen)) is frozen


@pytest.mark.parametrize(("old", "new"), [(1, True), (1, 1.0), (0.0, False)])
def test_equal_values_of_another_type_are_a_change(old: Any, new: Any) -> None:
    frozen = freeze({"a": {"b": old}})
    working = draft(frozen)
    working["a"]["b"] = new
    assert type(freeze(working)["a"]["b"]) is type(new)


@pytest.mark.parametrize("value", [{1: 2}, {"a": {1: 2}}, {"a": {1, 2}}, {"a": (1,)}, [object()]])
def test_values_that_are_not_json_are_refused(value: Any) -> None:
    with pytest.raises(TypeError):
        freeze(value)


def _act(state: Any, random: Random) -> list[Any]:
    """A handler that walks the state in one of the ways that Python has, and reads or changes it."""
    seen: list[Any] = []
    for _ in range(random.randint(1, 8)):
        place = state
        while isinstance(place, dict | list) and place and random.random() < 0.8:
            place = _step(place, random)
        seen.append(copy_json(place))
        _change(place, random)
    return seen


def _step(place: Any, random: Random) -> Any:
    if isinstance(place, list):
        return random.choice([place[random.randrange(len(place))], next(iter(place)), sorted(place, key=str)[-1]])
    key = random.choice(sorted(place))
    ways: list[Callable[[], Any]] = [
        lambda: place[key],
        lambda: place.get(key),
        lambda: dict(place.items())[key],
        lambda: {**place}[key],
        lambda: dict(place)[key],
        lambda: place.copy()[key],
        lambda: place.setdefault(key, None),
        lambda: next(value for name, value in place.items() if name == key),
        lambda: list(place.values())[sorted(place).index(key)] if list(place) == sorted(place) else place[key],
    ]
    return random.choice(ways)()


def _change(place: Any, random: Random) -> None:
    value = random.choice([1, True, None, "x", {"new": [1]}, [{"deep": 1}]])
    if isinstance(place, list):
        random.choice([lambda: place.append(value), lambda: place.extend([value]), place.reverse, place.clear])()
    elif isinstance(place, dict):
        keys = sorted(place) or ["k"]
        key = random.choice([*keys, "fresh"])
        ways: list[Callable[[], Any]]
        ways = [lambda: place.update({key: value}), lambda: place.pop(key, None), lambda: place.__setitem__(key, value)]
        ways += [lambda: place.setdefault(key, value), lambda: place.popitem() if place else None]
        random.choice(ways)()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", max_size=2), inner, max_size=3),
    max_leaves=12,
)


@given(state=st.dictionaries(st.text("abc", max_size=2), json_values, max_size=4), seed=st.integers(0, 10**9))
def test_a_handler_cannot_tell_a_draft_from_a_copy(state: dict[str, Any], seed: int) -> None:
    frozen, plain = freeze(copy_json(state)), copy_json(state)
    working = draft(frozen)
    assert _act(working, Random(seed)) == _act(plain, Random(seed))
    assert json.dumps(freeze(working)) == json.dumps(plain)
    assert json.dumps(frozen) == json.dumps(state)
