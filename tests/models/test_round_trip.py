"""The probes of `doctor --endpoint`: faults of a parser are told from a weak model."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from agentft.commands import run
from agentft.errors import InputError
from agentft.models.round_trip import AWKWARD, Check, round_trip
from agentft.models.scripted import ScriptedModel
from agentft.types import Json
from tests.models.served import Answer, Spoken, completion, tool_call
from tests.models.test_endpoint import no_key, serving

__all__ = ["no_key"]


def able(asked: Spoken, spoil: Callable[[str], str] = lambda text: text) -> Answer:
    """A model that does what is asked. `spoil` is what the server's parser does to the arguments."""
    text = asked.body["messages"][-1]["content"]
    if asked.body["messages"][-1]["role"] == "tool":
        return completion({"content": "It is 17 degrees."})
    if "exactly this JSON" in text:
        return completion({"tool_calls": [tool_call("echo", spoil(text.partition("arguments: ")[2]))]})
    cities = [city for city in ("Oslo", "Rome") if city in text]
    calls: list[Json] = [tool_call("get_weather", {"city": city}, city) for city in cities]
    return completion({"tool_calls": calls} if calls else {"content": "OK"})


def trips(answer: Callable[[Spoken], Answer]) -> dict[str, Check]:
    with serving(answer) as (_, model):
        return {trip.name: trip for trip in round_trip(model)}


def test_an_able_model_behind_a_faithful_server_passes_every_probe() -> None:
    assert len(AWKWARD) == 20
    found = trips(able)
    assert [trip for trip in found.values() if not trip.good] == []
    assert list(found) == ["a call", "two calls", "a result", "a stop", "history", *AWKWARD]


def test_arguments_that_a_parser_changes_are_named() -> None:
    def spoil(text: str) -> str:
        return json.dumps(json.loads(text, parse_int=float))

    bad = {name: trip for name, trip in trips(lambda asked: able(asked, spoil)).items() if not trip.good}
    assert set(bad) == {"big integer", "negative", "nested object", "deep list", "mixed list"}
    assert bad["big integer"].found == '9007199254740993 came back as {"value": 9007199254740992.0}'


def test_a_call_left_in_the_text_is_a_fault_of_the_parser() -> None:
    def raw(asked: Spoken) -> Answer:
        if "exactly" in asked.body["messages"][-1]["content"]:
            return able(asked)
        return completion({"content": '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}'})

    found = trips(raw)
    assert "left in the text" in found["a call"].found
    assert "fault of the parser" in found["a call"].remedy
    assert "control tokens in the text: <tool_call" in found["a stop"].remedy


def test_an_unreadable_call_shows_its_class() -> None:
    found = trips(lambda asked: able(asked, lambda text: text[:-1]))
    assert found["negative"].found.startswith("an unreadable call (content): arguments: not JSON")


def test_a_weak_model_is_named_weak() -> None:
    found = trips(lambda _: completion({"content": "I like tea."}))
    assert list(found)[5:] == ["unicode", "quotes", "newlines", "calls"]
    assert found["calls"].found == "no call in 5 requests; 17 more are left out"
    assert "stronger model" in found["calls"].remedy


def test_a_refused_conversation_is_one_failed_probe_and_a_refused_key_ends_the_command() -> None:
    def strict(asked: Spoken) -> Answer:
        return Answer(400, "too awkward") if len(asked.body["messages"]) > 10 else able(asked)

    found = trips(strict)
    assert [trip.name for trip in found.values() if not trip.good] == ["history"]
    assert "answered 400: too awkward" in found["history"].found
    with pytest.raises(InputError, match="refuses the key"):
        trips(lambda _: Answer(401, ""))


@pytest.mark.parametrize("fmt", ["hermes", "msagent"])
def test_call_formats_read_what_they_wrote(fmt: str) -> None:
    trip = next(round_trip(ScriptedModel({"*": "Hm."}, fmt=fmt)))
    assert trip == Check("call format", True, f"{fmt}: 20 of 20 arguments are read as they were written", trip.remedy)


def test_the_command_shows_the_probes(capsys: pytest.CaptureFixture[str]) -> None:
    with serving(able) as (served, _):
        assert run(["doctor", "--endpoint", served.url]) == 0
        shown = capsys.readouterr().out
        assert f"ok  endpoint      tiny at {served.url}, native tools" in shown
        assert 'ok  two calls     get_weather({"city": "Oslo"}), get_weather({"city": "Rome"})' in shown
        assert run(["doctor", "--endpoint", served.url, "--json"]) == 0
    assert {check["good"] for check in json.loads(capsys.readouterr().out)["checks"]} == {True}
