"""The schedule of faults without sockets: kinds, bounds, and the draws that stored evaluations rely on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agentft.errors import InputError
from agentft.toolserver import Schedule, read_faults
from agentft.toolserver.faults import FAULT_KINDS, Fault, is_ours
from agentft.toolset import load_toolsets
from agentft.types import Exchange, Span, ToolCall

WORLDS = load_toolsets(["calculator"])
KINDS = {  # status, takes effect whatever `after` is, default seconds, has a message
    **{str(status): (status, False, 0, True) for status in (400, 401, 404, 409, 500, 502, 503, 504)},
    "429": (429, False, 2, True),
    "html": (502, False, 0, True),
    "reset": (None, False, 0, False),
    "timeout": (None, False, 30, False),
    "truncated": (None, True, 0, False),
    "drip": (None, True, 2, False),
    "empty": (200, False, 0, False),
    **dict.fromkeys(("wrong-type", "schema", "huge", "stale"), (200, True, 0, False)),
    "injection": (200, True, 0, True),
}


def from_file(folder: Path, text: str) -> Schedule:
    (folder / "f.toml").write_text(text, encoding="utf-8")
    return read_faults(str(folder / "f.toml"), WORLDS)


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        from_file(folder, text)
    return str(caught.value)


def test_the_definition_of_each_kind() -> None:
    assert {
        name: (kind.status, kind.effect, kind.seconds, bool(kind.text)) for name, kind in FAULT_KINDS.items()
    } == KINDS


def test_draws_stay_the_same_between_releases() -> None:
    schedule = read_faults("429=0.3,500=0.2,seed=7", WORLDS)
    found = [(nth, fault.kind) for nth in range(1, 31) if (fault := schedule.at("run.a", "calculate", nth))]
    assert found == [
        (1, "500"),
        (4, "429"),
        (6, "429"),
        (7, "429"),
        (8, "429"),
        (9, "429"),
        (10, "500"),
        (12, "500"),
        (13, "500"),
        (17, "429"),
        (19, "429"),
        (20, "500"),
        (21, "429"),
        (30, "429"),
    ]
    assert schedule.digest == "1342508ff54b0cd160642e19457547490be9d484d168ef812be9469f6a61d5c5"
    assert [schedule.at("other.run.a", "calculate", nth) for nth in (1, 2, 3)] == [
        schedule.at("a", "calculate", nth) for nth in (1, 2, 3)
    ]


def test_rates_of_one_and_of_almost_zero() -> None:
    always, never = read_faults("500=1", WORLDS), read_faults("500=1e-18", WORLDS)
    assert all(always.at("s", "calculate", nth) for nth in range(1, 200))
    assert not any(never.at("s", "calculate", nth) for nth in range(1, 200))
    assert always.at("s", "forecast", 1) is None


def test_the_defaults_and_the_settings_of_a_file(tmp_path: Path) -> None:
    assert (read_faults("500=1", WORLDS).seed, read_faults("500=1", WORLDS).client_seconds) == (0, 10.0)
    assert from_file(tmp_path, 'client_seconds = 0.5\n[[fault]]\nkind = "500"\nrate = 1\n').client_seconds == 0.5
    made = from_file(tmp_path, 'seed = 3\nclient_seconds = 600\n[[fault]]\nkind = "500"\ncalls = [2, 4]\n')
    assert (made.seed, made.client_seconds, made.stale) == (3, 600, False)
    assert [nth for nth in range(1, 9) if made.at("s", "calculate", nth)] == [2, 4]


def test_the_first_rule_that_applies_wins_and_a_first_call_is_never_stale(tmp_path: Path) -> None:
    both = '[[fault]]\nkind = "stale"\nrate = 1\n[[fault]]\nkind = "500"\nrate = 1\n'
    schedule = from_file(tmp_path, both)
    assert schedule.stale
    kinds = [fault.kind for nth in (1, 2, 3) if (fault := schedule.at("s", "calculate", nth))]
    assert kinds == ["500", "stale", "stale"]


def test_seconds_and_text_default_to_those_of_the_kind(tmp_path: Path) -> None:
    assert (Fault("429", rate=1).delay, Fault("429", rate=1, seconds=600).delay) == (2, 600)
    assert Fault("timeout", rate=1).delay == 30
    assert Fault("500", rate=1, text="x").text == "x"
    assert Fault("drip", rate=1, seconds=0.1).delay == 0.1
    for bad in ("seconds = 600.5", "seconds = -0.5"):
        assert "at most 600" in refusal(tmp_path, f'[[fault]]\nkind = "drip"\nrate = 1\n{bad}\n')


@pytest.mark.parametrize("seconds", ["0", "-1", "600.5", "nan"])
def test_the_clients_seconds_have_bounds(tmp_path: Path, seconds: str) -> None:
    message = refusal(tmp_path, f'client_seconds = {seconds}\n[[fault]]\nkind = "500"\nrate = 1\n')
    assert "it must be above 0 and at most 600" in message


def test_a_timeout_must_outlast_the_client(tmp_path: Path) -> None:
    rule = '[[fault]]\nkind = "timeout"\nrate = 1\nseconds = {}\n'
    ok = '[[fault]]\nkind = "500"\nrate = 1\n'
    assert "fault[1]: `seconds` is 10, and the client waits 10" in refusal(tmp_path, ok + rule.format(10))
    assert from_file(tmp_path, rule.format(10.5)).client_seconds == 10


def test_bounds_of_rates_and_calls(tmp_path: Path) -> None:
    assert "`rate` is -0.1; it must be above 0 and at most 1" in refusal(
        tmp_path, '[[fault]]\nkind = "500"\nrate = -0.1'
    )
    assert "`calls` contains -1; calls are counted from 1" in refusal(
        tmp_path, '[[fault]]\nkind = "500"\ncalls = [3, -1]'
    )
    assert "`rate` is 1.01; it must be" in refusal(tmp_path, '[[fault]]\nkind = "500"\nrate = 1.01')
    assert "`calls` contains 0; calls are counted from 1" in refusal(tmp_path, '[[fault]]\nkind = "500"\ncalls = [0]')
    assert Fault("500", calls=(1,)).calls == (1,)
    assert "it has no faults" in refusal(tmp_path, "fault = []")


def test_patterns_name_tools_with_and_without_their_world(tmp_path: Path) -> None:
    for pattern in ("calculator.calculate", "calculate", "calc*.calc?late", "*"):
        made = from_file(tmp_path, f'[[fault]]\nkind = "500"\nrate = 1\ntools = ["{pattern}"]\n')
        assert made.at("s", "calculate", 1) is not None
        assert (made.at("s", "convert_units", 1) is not None) == (pattern == "*")


def test_a_file_whose_name_has_an_equals_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("429=0.5").write_text('[[fault]]\nkind = "500"\nrate = 1\n', encoding="utf-8")
    assert read_faults("429=0.5", WORLDS).at("s", "calculate", 1) == Fault("500", rate=1)
    with pytest.raises(InputError, match=r"--faults 429=0.1,seed=x: 'seed=x' is not KIND=RATE"):
        read_faults("429=0.1,seed=x", WORLDS)


def test_a_failure_without_a_matching_fault_is_the_servers_own() -> None:
    call = ToolCall("c", "calculate", {}, Span(0, 0))
    sent = Exchange(call, "POST", "/tools/calculate", {}, 500, "{}", is_error=True)
    assert is_ours(sent)
    assert is_ours(replace(sent, status=None))
    assert is_ours(replace(sent, status=504, fault="503"))
    assert is_ours(replace(sent, status=None, fault="500"))
    for other in (
        replace(sent, status=499),
        replace(sent, status=200),
        replace(sent, sent=None),
        replace(sent, fault="500"),
        replace(sent, status=None, fault="timeout"),
    ):
        assert not is_ours(other)
