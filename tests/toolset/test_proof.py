"""`prove` finds no broken promise in good worlds, and exactly the broken one in a bad world."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

from agentft.errors import InputError
from agentft.toolset import proof
from agentft.toolset.proof import PROMISES, prove

GOOD = '''
import itertools, random
from agentft.errors import ToolError
from agentft.toolset import State, destructive, read, write

BASE_URL = "http://notes.test"
_counter = itertools.count()


@read
def note(state: State, key: str, times: int = 1):
    """A note.

    Args:
        key: which one.
        times: how often.

    Example:
        {"key": "a", "times": 2}
    """
    if key not in state["notes"]:
        raise ToolError(f"no note {key[:40]!r}", status=404)
    return {"text": state["notes"][key] * max(0, min(times, 5))}


@write
def keep(state: State, key: str, text: str):
    """Keep a note.

    Args:
        key: which one.
        text: what it says.

    Example:
        {"key": "b", "text": "milk"}
    """
    state["notes"][key] = text
    return {"kept": len(state["notes"])}
'''


def world(folder: Path, *changes: tuple[str, str]) -> str:
    code = GOOD
    for old, new in changes:
        assert old in code
        code = code.replace(old, new)
    folder = folder / "notes"
    folder.mkdir()
    (folder / "tools.py").write_text(code)
    (folder / "state.json").write_text('{"notes": {"a": "tea "}}')
    return str(folder)


@pytest.mark.parametrize("name", ["search", "calculator", pytest.param("weather", marks=pytest.mark.slow)])
def test_the_shipped_worlds_keep_every_promise(name: str) -> None:
    assert prove(name, seed=3) == []


def test_a_users_good_world_keeps_every_promise(tmp_path: Path) -> None:
    assert prove(world(tmp_path)) == []


@pytest.mark.parametrize(
    ("old", "new", "promise", "tool", "problem"),
    [
        ("BASE_URL =", "BASE =", "loads", "", "no BASE_URL"),
        ('{"key": "a", "times": 2}', '{"key": "zzz", "times": 2}', "example", "note", "returns 404: no note 'zzz'"),
        ('return {"text"', 'state["n"] = 1\n    return {"text"', "read", "note", "marked @read changed the state"),
        ('    state["notes"][key] = text\n', "", "write", "keep", "does not change the state"),
        ("{key[:40]!r}", "{key!r}", "errors", "note", "is refused with a message of 10"),
        ("key not in", "len(key) and key not in", "answers", "note", "KeyError: ''"),
        ('return {"text"', 'return {"n": random.random(), "text"', "repeats", "note", "gives two different results"),
        ('return {"kept"', 'return {"n": next(_counter), "kept"', "snapshot", "", "keep gives another result"),
        ("min(times, 5)", "times * 50", "answers", "note", " characters"),
        ('return {"text": ', 'return {"x": float("nan"), "text": ', "answers", "note", "ValueError: Out of range"),
        ('return {"text": ', 'return {"x": {1, 2}, "text": ', "answers", "note", "TypeError: set is not a JSON value"),
        ('return {"text": ', 'raise ToolError("x" * 400)\n    return {"text": ', "errors", "note", "400 characters"),
    ],
)
def test_each_broken_promise_is_found_with_its_tool(  # noqa: PLR0917
    tmp_path: Path, old: str, new: str, promise: str, tool: str, problem: str
) -> None:
    found = [finding for finding in prove(world(tmp_path, (old, new))) if finding.promise == promise]
    assert found, promise
    assert found[0].tool == tool
    assert problem in found[0].problem
    assert len(found[0].problem) < 400
    assert promise in PROMISES


def test_a_handler_that_hangs_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "SECONDS", 0.05)
    hanging = world(tmp_path, ('return {"text"', 'while times == 2:\n        pass\n    return {"text"'))
    found = {finding.promise: finding.problem for finding in prove(hanging)}
    assert "returns 500: TimeoutError: it did not return within 0.05 seconds" in found["example"]


def test_a_world_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no tool world"):
        prove(str(tmp_path / "nowhere"))


def test_equal_calls_are_made_a_few_times_and_still_find_a_random_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    monkeypatch.setattr("itertools.agentft_calls", calls, raising=False)
    pick = '''
@read
def pick(state: State):
    """A number."""
    itertools.agentft_calls.append(1)
    return {"number": random.randrange(4)}


@read
def note('''
    name = world(tmp_path, ("@read\ndef note(", pick.lstrip()))
    assert [(found.tool, found.promise) for found in prove(name) if found.promise == "repeats"] == [("pick", "repeats")]
    assert len(calls) < 40


def test_signal_handlers_are_not_set_for_each_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    usual = signal.signal

    def counted(number: int, handler: Any) -> Any:
        made.append(number)
        return usual(number, handler)

    monkeypatch.setattr(signal, "signal", counted)
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
    assert prove(world(tmp_path)) == []
    assert len(made) < 20
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers
