"""A house: lights, thermostats, blinds, locks and sensors, with scenes that set several of them and schedules."""

from __future__ import annotations

import difflib
import re
from random import Random
from typing import Annotated, Any, Literal

from agentft.errors import ToolError
from agentft.toolset import Range, State, destructive, read, write
from agentft.types import Json

BASE_URL = "http://smart-home.test"

_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_UNITS = {"temperature": "celsius", "humidity": "percent", "co2": "ppm", "power": "watt"}
_SETTINGS = {"light": ("on", "brightness"), "thermostat": ("mode", "target"), "blind": ("position",)}
_MOST = 12  # scenes, and schedules


@read
def home_status(state: State) -> dict[str, Json]:
    """Get an overview of the house: lights that are on, doors that are not locked, open windows, power in watt.

    Example:
        {}
    """
    devices: dict[str, dict[str, Any]] = state["devices"]
    unlocked = [name for name, facts in devices.items() if facts["kind"] == "lock" and not facts["locked"]]
    windows = [name for name, facts in devices.items() if facts.get("measures") == "window" and facts["open"]]
    return {
        "lights_on": sum(facts["kind"] == "light" and facts["on"] for facts in devices.values()),
        "unlocked": ", ".join(unlocked) or "none",
        "open_windows": ", ".join(windows) or "none",
        "watts": _measure(state, "house power meter"),
    }


@read
def list_devices(
    state: State, room: str, kind: Literal["any", "light", "thermostat", "blind", "lock", "sensor"] = "any"
) -> dict[str, Json]:
    """List the devices of a room, and how they are set.

    Args:
        room: Room of the house.
        kind: Kind of device.

    Example:
        {"room": "living room", "kind": "any"}
    """
    place = _find_room(state, room)
    shown = [
        f"{name}: {_describe(state, name)}"
        for name, facts in state["devices"].items()
        if facts["room"] == place and kind in {"any", facts["kind"]}
    ]
    return {"room": place, "kind": kind, "count": len(shown), "devices": "; ".join(shown) or "none"}


@read
def read_sensor(state: State, sensor: str) -> dict[str, Json]:
    """Read a sensor, such as a room's temperature or whether a window is open.

    Args:
        sensor: Name of the sensor.

    Example:
        {"sensor": "living room temperature"}
    """
    name = _find(state, "sensor", sensor)
    facts = state["devices"][name]
    unit = _UNITS.get(facts["measures"], "state")
    return {"sensor": name, "room": facts["room"], "value": _measure(state, name), "unit": unit}


@write
def set_light(state: State, light: str, on: bool, brightness: Annotated[int, Range(1, 100)] = 100) -> dict[str, Json]:
    """Switch a light on or off, or dim it.

    Args:
        light: Name of the light.
        on: True for on, false for off.
        brightness: Percent, 1 to 100, for a light that is on.

    Example:
        {"light": "kitchen light", "on": true, "brightness": 60}
    """
    name = _find(state, "light", light)
    _set(state, name, {"on": True, "brightness": brightness} if on else {"on": False})
    return {"light": name, "status": "on" if on else "off", "brightness": brightness if on else 0}


@write
def set_thermostat(
    state: State, room: str, mode: Literal["heat", "eco", "off"], target: Annotated[float, Range(5, 28)]
) -> dict[str, Json]:
    """Set the heating of a room.

    Args:
        room: Room with a thermostat.
        mode: Heat to the target, eco to 2 degrees less, or off.
        target: Temperature in celsius, 5 to 28.

    Example:
        {"room": "living room", "mode": "heat", "target": 22.5}
    """
    place = _find_room(state, room.casefold().strip().removesuffix(" thermostat"))
    name = f"{place} thermostat"
    if name not in state["devices"]:
        heated = ", ".join(facts["room"] for facts in state["devices"].values() if facts["kind"] == "thermostat")
        raise ToolError(f"the {place} has no thermostat; rooms with one: {heated}", status=422)
    if (target * 2) % 1:
        raise ToolError(f"{target} is not a step of the thermostat; use whole or half degrees", status=422)
    _set(state, name, {"mode": mode, "target": target})
    return {"room": place, "mode": mode, "target": target, "unit": "celsius"}


@write
def set_blind(state: State, blind: str, position: Annotated[int, Range(0, 100)]) -> dict[str, Json]:
    """Move a blind.

    Args:
        blind: Name of the blinds.
        position: 0 is closed, 100 is open.

    Example:
        {"blind": "bedroom blinds", "position": 100}
    """
    name = _find(state, "blind", blind)
    _set(state, name, {"position": position})
    return {"blind": name, "position": position}


@write
def lock_door(state: State, door: str) -> dict[str, Json]:
    """Lock a door.

    Args:
        door: Name of the door.

    Example:
        {"door": "back door"}
    """
    name = _find(state, "lock", door)
    if state["devices"][name]["locked"]:
        raise ToolError(f"the {name} is locked already", status=409)
    _set(state, name, {"locked": True})
    return {"door": name, "status": "locked"}


@write
def unlock_door(state: State, door: str, pin: str) -> dict[str, Json]:
    """Unlock a door with the user's PIN.

    Args:
        door: Name of the door.
        pin: Four-digit PIN that the user says.

    Example:
        {"door": "front door", "pin": "4271"}
    """
    name = _find(state, "lock", door)
    if pin.strip() != state["pin"]:
        raise ToolError("the PIN is wrong; ask the user for it and do not guess", status=403)
    if not state["devices"][name]["locked"]:
        raise ToolError(f"the {name} is not locked", status=409)
    _set(state, name, {"locked": False})
    return {"door": name, "status": "unlocked"}


@write
def run_scene(state: State, scene: str) -> dict[str, Json]:
    """Set all devices of a scene at once; what cannot be set is skipped.

    Args:
        scene: Name of the scene.

    Example:
        {"scene": "movie night"}
    """
    name = _find_scene(state, scene)
    skipped: list[str] = []
    for device, settings in state["scenes"][name].items():
        if _obstacle(state, device, settings):
            skipped.append(device)
        else:
            _set(state, device, settings)
    done = len(state["scenes"][name]) - len(skipped)
    return {"scene": name, "devices_set": done, "skipped": ", ".join(skipped) or "none"}


@write
def save_scene(state: State, scene: str, room: str) -> dict[str, Json]:
    """Save how the lights, blinds and heating of a room are set now, as a new scene.

    Args:
        scene: Name for the scene.
        room: Room to save.

    Example:
        {"scene": "reading", "room": "living room"}
    """
    name, place = " ".join(scene.casefold().split()), _find_room(state, room)
    if not 1 <= len(name) <= 40 or not name.isprintable():
        raise ToolError("the scene's name must have 1 to 40 printable characters", status=422)
    if name in state["scenes"]:
        raise ToolError(f"there is a scene {name!r} already; delete it first or choose another name", status=409)
    if len(state["scenes"]) >= _MOST:
        raise ToolError(f"there are {_MOST} scenes already; delete one first", status=409)
    saved = {
        device: {key: facts[key] for key in _SETTINGS[facts["kind"]]}
        for device, facts in state["devices"].items()
        if facts["room"] == place and facts["kind"] in _SETTINGS
    }
    if not saved:
        raise ToolError(f"the {place} has no lights, blinds or heating to save", status=422)
    state["scenes"][name] = saved
    return {"scene": name, "room": place, "devices": len(saved), "status": "saved"}


@destructive
def delete_scene(state: State, scene: str) -> dict[str, Json]:
    """Delete a scene.

    Args:
        scene: Name of the scene.

    Example:
        {"scene": "movie night"}
    """
    name = _find_scene(state, scene)
    users = [key for key, schedule in state["schedules"].items() if schedule["scene"] == name]
    if users:
        raise ToolError(f"schedule {users[0]} runs the scene {name!r}; delete the schedule first", status=409)
    del state["scenes"][name]
    return {"scene": name, "status": "deleted"}


@read
def list_schedules(state: State) -> dict[str, Json]:
    """List which scenes run at which times.

    Example:
        {}
    """
    shown = [f"{key} {facts['scene']} {facts['time']} {facts['days']}" for key, facts in state["schedules"].items()]
    return {"count": len(shown), "schedules": "; ".join(shown) or "none"}


@write
def add_schedule(
    state: State, scene: str, time: str, days: Literal["every day", "weekdays", "weekends"]
) -> dict[str, Json]:
    """Run a scene at a time of day.

    Args:
        scene: Name of the scene.
        time: Time of day, HH:MM from 00:00 to 23:59.
        days: Days to run it on.

    Example:
        {"scene": "away", "time": "08:15", "days": "weekdays"}
    """
    name, at = _find_scene(state, scene), time.strip()
    if not _TIME.fullmatch(at):
        raise ToolError(f"{time[:20]!r} is no time; write HH:MM, such as 07:30 or 22:00", status=422)
    wanted = {"scene": name, "time": at, "days": days}
    for key, known in state["schedules"].items():
        if known == wanted:
            raise ToolError(f"this schedule is there already as {key}", status=409)
    if len(state["schedules"]) >= _MOST:
        raise ToolError(f"there are {_MOST} schedules already; delete one first", status=409)
    key = f"s{state['next_schedule']}"
    state["next_schedule"] += 1
    state["schedules"][key] = wanted
    return {"schedule": key, "scene": name, "time": at, "days": days}


@destructive
def delete_schedule(state: State, schedule: str) -> dict[str, Json]:
    """Delete a schedule.

    Args:
        schedule: Id of the schedule.

    Example:
        {"schedule": "s2"}
    """
    key = schedule.strip().casefold()
    if key not in state["schedules"]:
        known = ", ".join(list(state["schedules"])[:12]) or "none"
        raise ToolError(f"there is no schedule {schedule[:40]!r}; known: {known}", status=404)
    scene = state["schedules"].pop(key)["scene"]
    return {"schedule": key, "scene": scene, "status": "deleted"}


def _find(state: State, kind: str, wanted: str) -> str:
    """The name of a device of a kind, whatever the case."""
    devices: dict[str, dict[str, Any]] = state["devices"]
    asked = " ".join(wanted.casefold().split()).removeprefix("the ")
    if asked in devices:
        if devices[asked]["kind"] == kind:
            return asked
        raise ToolError(f"{asked!r} is a {devices[asked]['kind']}, not a {kind}", status=422)
    raise _unknown(kind, wanted, [name for name, facts in devices.items() if facts["kind"] == kind])


def _find_room(state: State, wanted: str) -> str:
    rooms = list(dict.fromkeys(str(facts["room"]) for facts in state["devices"].values()))
    asked = " ".join(wanted.casefold().split()).removeprefix("the ")
    if asked in rooms:
        return asked
    raise _unknown("room", wanted, rooms)


def _find_scene(state: State, wanted: str) -> str:
    asked = " ".join(wanted.casefold().split())
    if asked in state["scenes"]:
        return asked
    raise _unknown("scene", wanted, list(state["scenes"]))


def _unknown(noun: str, wanted: str, known: list[str]) -> ToolError:
    close = difflib.get_close_matches(wanted[:60].casefold(), known, n=1, cutoff=0.7)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)[:200]}"
    return ToolError(f"there is no {noun} {wanted[:40]!r}; {hint}", status=404)


def _set(state: State, device: str, settings: dict[str, Any]) -> None:
    if obstacle := _obstacle(state, device, settings):
        raise ToolError(obstacle, status=409)
    state["devices"][device] |= settings


def _obstacle(state: State, device: str, settings: dict[str, Any]) -> str:
    """Why a device cannot be set so; nothing when it can."""
    devices: dict[str, dict[str, Any]] = state["devices"]
    facts = devices[device]
    if facts.get("offline"):
        return f"the {device} does not answer; ask someone to check its power, or use another one"
    if facts["kind"] == "lock" and settings["locked"] and facts["open"]:
        return f"the {device} stands open; ask someone to close it, then lock it"
    if facts["kind"] == "thermostat" and settings["mode"] != "off" and _window_open(state, facts["room"]):
        return f"a window in the {facts['room']} is open; ask someone to close it before heating, or set mode off"
    return ""


def _window_open(state: State, room: str) -> bool:
    return bool(state["devices"].get(f"{room} window", {}).get("open"))


def _describe(state: State, device: str) -> str:
    facts = state["devices"][device]
    if facts.get("offline"):
        return "offline"
    match facts["kind"]:
        case "light":
            return f"on {facts['brightness']}%" if facts["on"] else "off"
        case "thermostat":
            return f"{facts['mode']} {facts['target']:g}"
        case "blind":
            return f"{facts['position']}% open"
        case "lock":
            return "locked" if facts["locked"] else "open" if facts["open"] else "unlocked"
    return str(_measure(state, device))


def _measure(state: State, sensor: str) -> Json:
    """What a sensor reads now: the seed's value, moved by how the devices are set."""
    devices: dict[str, dict[str, Any]] = state["devices"]
    draw = Random(f"{state['seed']}/{state['today']}/{sensor}")
    match devices[sensor]["measures"]:
        case "temperature":
            return _temperature(state, devices[sensor]["room"], draw)
        case "humidity":
            return draw.randint(38, 66)
        case "co2":
            return draw.randint(480, 1150)
        case "motion":
            return draw.choice(["motion", "still"])
        case "window":
            return "open" if devices[sensor]["open"] else "closed"
        case "power":
            lights = [facts for facts in devices.values() if facts["kind"] == "light" and facts["on"]]
            return draw.randint(180, 420) + sum(int(facts["watts"] * facts["brightness"]) for facts in lights) // 100
    return "clear"


def _temperature(state: State, room: str, draw: Random) -> float:
    outside, unheated, error = draw.uniform(7, 14), draw.uniform(16, 18.5), draw.uniform(-0.5, 0.5)
    thermostat = state["devices"].get(f"{room} thermostat")
    if thermostat is None:
        return round(outside, 1)
    warm = {"heat": thermostat["target"], "eco": thermostat["target"] - 2, "off": unheated}[thermostat["mode"]]
    value: float = round(max(warm, unheated) + error - 2 * _window_open(state, room), 1)
    return value
