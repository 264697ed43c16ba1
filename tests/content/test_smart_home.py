"""The house: settings are read back, doors stay locked without the PIN, and scenes set what they can."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from agentft.commands import app
from agentft.errors import ToolError
from agentft.toolset import State, load_toolset, load_toolsets
from agentft.toolset.state import copy_json
from agentft.types import Json

HOME = load_toolset("smart-home", seed=11)
FRESH = HOME.new_state()
ROOMS = sorted({device["room"] for device in FRESH["devices"].values()})


def fresh() -> State:
    """A mutable state."""
    state: State = copy_json(HOME.new_state())
    return state


def ask(state: State, tool: str, /, **arguments: Json) -> dict[str, Any]:
    result = HOME.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(state: State, tool: str, /, **arguments: Json) -> tuple[int, str]:
    before = HOME.digest(state)
    with pytest.raises(ToolError) as caught:
        HOME.call(tool, arguments, state)
    assert HOME.digest(state) == before
    return caught.value.status, str(caught.value)


def test_the_tools_and_their_marks() -> None:
    marks = {name: tool.access for name, tool in HOME.tools.items()}
    assert [name for name, access in marks.items() if access == "read"] == [
        "home_status",
        "list_devices",
        "read_sensor",
        "list_schedules",
    ]
    assert [name for name, access in marks.items() if access == "destructive"] == ["delete_scene", "delete_schedule"]
    assert len(marks) == 14


def test_a_name_with_a_hyphen_is_a_world_like_any_other() -> None:
    assert (HOME.name, HOME.base_url) == ("smart-home", "http://smart-home.test")
    one, other = load_toolsets(["smart-home.set_light", "weather"])
    assert list(one.tools) == ["set_light"]
    assert other.name == "weather"
    shown = CliRunner().invoke(app, ["tools", "show", "smart-home", "--json"])
    assert shown.exit_code == 0
    assert '"http://smart-home.test/unlock_door"' in shown.output


@pytest.mark.parametrize("seed", range(20))
def test_every_example_runs_with_every_seed(seed: int) -> None:
    for name, tool in HOME.tools.items():
        HOME.call(name, tool.example, HOME.new_state(seed))


def test_every_device_is_in_the_list_of_its_room_once() -> None:
    counts = [ask(FRESH, "list_devices", room=room)["count"] for room in ROOMS]
    assert sum(counts) == len(FRESH["devices"]) == 33
    assert len(ROOMS) == 9
    kinds = [
        ask(FRESH, "list_devices", room=room, kind=kind)["count"]
        for room in ROOMS
        for kind in ("light", "thermostat", "blind", "lock", "sensor")
    ]
    assert sum(kinds) == 33
    none = ask(FRESH, "list_devices", room="kitchen", kind="lock")
    assert none == {"room": "kitchen", "kind": "lock", "count": 0, "devices": "none"}


def test_a_list_shows_the_settings_of_devices() -> None:
    assert ask(FRESH, "list_devices", room="The Garage")["devices"] == "garage light: offline; garage door: open"
    locks = [ask(FRESH, "list_devices", room=room, kind="lock")["devices"] for room in ("hallway", "garden")]
    assert locks == ["front door: locked", "back door: unlocked"]
    assert ask(FRESH, "list_devices", room="office", kind="light")["devices"] == "office desk lamp: on 90%"


@pytest.mark.parametrize(
    ("tool", "arguments", "status", "message"),
    [
        (
            "set_light",
            {"light": "kitchen lihgt", "on": True},
            404,
            "there is no light 'kitchen lihgt'; did you mean 'kitchen light'?",
        ),
        ("set_light", {"light": "front door", "on": True}, 422, "'front door' is a lock, not a light"),
        (
            "lock_door",
            {"door": "cellar hatch"},
            404,
            "there is no lock 'cellar hatch'; known: front door, garage door, back door",
        ),
        (
            "run_scene",
            {"scene": "party"},
            404,
            "there is no scene 'party'; known: good night, good morning, movie night, away",
        ),
        ("list_devices", {"room": "bed room"}, 404, "there is no room 'bed room'; did you mean 'bedroom'?"),
        ("delete_schedule", {"schedule": "s9"}, 404, "there is no schedule 's9'; known: s1, s2"),
        (
            "set_thermostat",
            {"room": "garage", "mode": "heat", "target": 20},
            422,
            "the garage has no thermostat; rooms with one: living room, bedroom, nursery, bathroom, office",
        ),
    ],
)
def test_a_wrong_name_is_refused_with_the_right_one(
    tool: str, arguments: dict[str, Json], status: int, message: str
) -> None:
    assert refusal(fresh(), tool, **arguments) == (status, message)


# --- lights, blinds, heating, sensors


def test_a_light_keeps_its_setting_and_counts_on_the_meter() -> None:
    state = fresh()
    before = ask(state, "home_status")
    lit = ask(state, "set_light", light="THE kitchen light", on=True, brightness=50)
    assert lit == {"light": "kitchen light", "status": "on", "brightness": 50}
    after = ask(state, "home_status")
    assert (after["lights_on"], after["watts"]) == (before["lights_on"] + 1, before["watts"] + 9)
    assert ask(state, "read_sensor", sensor="house power meter")["value"] == after["watts"]
    dark = ask(state, "set_light", light="kitchen light", on=False)
    assert dark == {"light": "kitchen light", "status": "off", "brightness": 0}
    assert state["devices"]["kitchen light"]["brightness"] == 50
    assert ask(state, "home_status") == before


def test_an_offline_device_is_a_409() -> None:
    message = "the garage light does not answer; ask someone to check its power, or use another one"
    assert refusal(fresh(), "set_light", light="garage light", on=True) == (409, message)


@pytest.mark.parametrize("brightness", [0, 101, -1])
def test_brightness_is_a_percentage(brightness: int) -> None:
    assert refusal(fresh(), "set_light", light="kitchen light", on=True, brightness=brightness)[0] == 422


def test_blinds_move() -> None:
    state = fresh()
    assert ask(state, "set_blind", blind="Bedroom Blinds", position=35) == {"blind": "bedroom blinds", "position": 35}
    assert ask(state, "list_devices", room="bedroom", kind="blind")["devices"] == "bedroom blinds: 35% open"


def test_a_heated_room_gets_warm_and_eco_is_two_degrees_less() -> None:
    state = fresh()
    read: dict[str, float] = {}
    for mode in ("heat", "eco", "off"):
        ask(state, "set_thermostat", room="nursery thermostat", mode=mode, target=25)
        read[mode] = ask(state, "read_sensor", sensor="nursery temperature")["value"]
    assert abs(read["heat"] - 25) <= 0.5
    assert read["heat"] - read["eco"] == pytest.approx(2)
    assert 15 <= read["off"] <= 19.5


def test_a_room_with_an_open_window_is_not_heated() -> None:
    state = fresh()
    message = "a window in the bedroom is open; ask someone to close it before heating, or set mode off"
    assert refusal(state, "set_thermostat", room="bedroom", mode="eco", target=20) == (409, message)
    ask(state, "set_thermostat", room="bedroom", mode="off", target=16)
    state = copy_json(state)
    state["devices"]["bedroom window"]["open"] = False
    assert ask(state, "home_status")["open_windows"] == "none"
    ask(state, "set_thermostat", room="bedroom", mode="heat", target=20.5)


@pytest.mark.parametrize("target", [4.5, 28.5, 20.3])
def test_a_target_is_in_half_degrees_and_in_range(target: float) -> None:
    assert refusal(fresh(), "set_thermostat", room="office", mode="heat", target=target)[0] == 422


def test_sensor_values_are_plausible() -> None:
    units: dict[str, set[str]] = {}
    for seed in range(10):
        state = HOME.new_state(seed)
        for name, device in state["devices"].items():
            if device["kind"] != "sensor":
                continue
            answer = ask(state, "read_sensor", sensor=name)
            units.setdefault(device["measures"], set()).add(answer["unit"])
            if answer["unit"] == "celsius":
                assert 5 <= answer["value"] <= 24
    assert units == {
        "temperature": {"celsius"},
        "humidity": {"percent"},
        "co2": {"ppm"},
        "power": {"watt"},
        "motion": {"state"},
        "window": {"state"},
        "smoke": {"state"},
    }
    values = {ask(HOME.new_state(seed), "read_sensor", sensor="office air")["value"] for seed in range(10)}
    assert len(values) > 5


# --- doors


def test_a_door_is_locked_and_unlocked_once() -> None:
    state = fresh()
    assert ask(state, "lock_door", door="back door") == {"door": "back door", "status": "locked"}
    assert refusal(state, "lock_door", door="back door") == (409, "the back door is locked already")
    assert ask(state, "unlock_door", door="back door", pin=" 4271 ") == {"door": "back door", "status": "unlocked"}
    assert refusal(state, "unlock_door", door="back door", pin="4271") == (409, "the back door is not locked")


@pytest.mark.parametrize("pin", ["", "0000", "42710", "４２７１", "4271\x00", "x" * 100_000])
def test_without_the_pin_a_door_stays_locked(pin: str) -> None:
    message = "the PIN is wrong; ask the user for it and do not guess"
    assert refusal(fresh(), "unlock_door", door="front door", pin=pin) == (403, message)


def test_an_open_door_cannot_be_locked() -> None:
    message = "the garage door stands open; ask someone to close it, then lock it"
    assert refusal(fresh(), "lock_door", door="garage door") == (409, message)


# --- scenes and schedules


def test_a_scene_sets_what_it_can_and_says_what_it_skipped() -> None:
    state = fresh()
    assert ask(state, "run_scene", scene="Good Night") == {
        "scene": "good night",
        "devices_set": 9,
        "skipped": "garage door",
    }
    assert ask(state, "home_status")["unlocked"] == "garage door"
    assert state["devices"]["hallway light"]["brightness"] == 5
    assert ask(fresh(), "run_scene", scene="away")["skipped"] == "garage light"


def test_a_saved_scene_restores_the_room() -> None:
    state = fresh()
    saved = ask(state, "save_scene", scene=" Evening  READING ", room="living room")
    assert saved == {"scene": "evening reading", "room": "living room", "devices": 4, "status": "saved"}
    before = ask(state, "list_devices", room="living room")
    ask(state, "run_scene", scene="movie night")
    assert ask(state, "list_devices", room="living room") != before
    ask(state, "run_scene", scene="evening reading")
    assert ask(state, "list_devices", room="living room") == before


def test_a_scene_needs_a_new_name_and_something_to_save() -> None:
    state = fresh()
    assert refusal(state, "save_scene", scene="Away", room="office") == (
        409,
        "there is a scene 'away' already; delete it first or choose another name",
    )
    assert refusal(state, "save_scene", scene=" ", room="office")[0] == 422
    assert refusal(state, "save_scene", scene="a\x00b", room="office")[0] == 422
    for number in range(8):
        ask(state, "save_scene", scene=f"scene {number}", room="office")
    assert refusal(state, "save_scene", scene="one more", room="office")[0] == 409


def test_a_scheduled_scene_cannot_be_deleted() -> None:
    state = fresh()
    message = "schedule s1 runs the scene 'good night'; delete the schedule first"
    assert refusal(state, "delete_scene", scene="good night") == (409, message)
    ask(state, "delete_schedule", schedule="S1")
    ask(state, "delete_scene", scene="good night")
    assert refusal(state, "run_scene", scene="good night")[0] == 404


def test_schedules_are_kept_and_an_id_is_never_used_again() -> None:
    state = fresh()
    added = ask(state, "add_schedule", scene="away", time="08:15", days="weekends")
    assert added == {"schedule": "s3", "scene": "away", "time": "08:15", "days": "weekends"}
    again = refusal(state, "add_schedule", scene="AWAY", time=" 08:15", days="weekends")
    assert again == (409, "this schedule is there already as s3")
    ask(state, "delete_schedule", schedule="s3")
    assert ask(state, "add_schedule", scene="away", time="08:15", days="weekends")["schedule"] == "s4"
    told = ask(state, "list_schedules")
    assert told["count"] == 3
    assert told["schedules"].endswith("; s4 away 08:15 weekends")
    for minute in range(9):
        ask(state, "add_schedule", scene="away", time=f"09:0{minute}", days="weekdays")
    assert refusal(state, "add_schedule", scene="away", time="10:00", days="weekdays")[0] == 409


@pytest.mark.parametrize("time", ["", "24:00", "7:30", "07:60", "０７:３０", "07:30 pm", "07:30:00", "morning"])
def test_a_time_is_hours_and_minutes(time: str) -> None:
    status, message = refusal(fresh(), "add_schedule", scene="away", time=time, days="weekdays")
    assert status == 422
    assert message.endswith("is no time; write HH:MM, such as 07:30 or 22:00")


calls = st.one_of(
    st.tuples(st.just("run_scene"), st.fixed_dictionaries({"scene": st.sampled_from([*FRESH["scenes"], "mine"])})),
    st.tuples(
        st.just("save_scene"),
        st.fixed_dictionaries({"scene": st.sampled_from(["mine", "away"]), "room": st.sampled_from(ROOMS)}),
    ),
    st.tuples(st.just("delete_scene"), st.fixed_dictionaries({"scene": st.sampled_from([*FRESH["scenes"], "mine"])})),
    st.tuples(st.just("lock_door"), st.fixed_dictionaries({"door": st.sampled_from(["back door", "garage door"])})),
    st.tuples(
        st.just("set_thermostat"),
        st.fixed_dictionaries(
            {"room": st.sampled_from(ROOMS), "mode": st.sampled_from(["heat", "eco", "off"]), "target": st.just(21)}
        ),
    ),
    st.tuples(
        st.just("unlock_door"),
        st.fixed_dictionaries({"door": st.just("front door"), "pin": st.text("0123456789", max_size=4)}),
    ),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(calls, max_size=15))
def test_no_walk_unlocks_a_door_or_heats_an_open_room(walk: list[tuple[str, dict[str, Json]]]) -> None:
    state = fresh()
    for tool, arguments in walk:
        if arguments.get("pin") == state["pin"]:
            continue
        try:
            ask(state, tool, **arguments)
        except ToolError as error:
            assert error.status in {403, 404, 409, 422}  # noqa: PT017  (refusals are part of the walk)
    devices = state["devices"]
    assert devices["front door"]["locked"]
    assert not devices["garage door"]["locked"]
    assert devices["bedroom thermostat"]["mode"] == "off"
    assert devices["garage light"] == FRESH["devices"]["garage light"]
    assert {schedule["scene"] for schedule in state["schedules"].values()} <= set(state["scenes"])
    assert list(devices) == list(FRESH["devices"])
