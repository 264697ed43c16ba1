"""Weather of about 1,500 cities: plausible for the city's climate and the state's date, fixed by the seed."""

from __future__ import annotations

import difflib
import math
from datetime import date, timedelta
from random import Random
from typing import Annotated, Literal

from agentft.errors import ToolError
from agentft.toolset import Range, State, read, write
from agentft.types import Json

BASE_URL = "http://weather.test"


@read
def current_weather(state: State, city: str, unit: Literal["celsius", "fahrenheit"] = "celsius") -> dict[str, Json]:
    """Get the current weather of a city.

    Args:
        city: City, in English or Chinese.
        unit: Temperature unit.

    Example:
        {"city": "Paris", "unit": "celsius"}
    """
    name = _find(state, city)
    condition, high, low = _day(state, name, 0)
    draw = _draw(state, "now", name)
    celsius = draw.randint(low, high)
    climate = state["climates"][state["cities"][name]["climate"]]
    wetter = 12 if condition in {"rain", "snow", "storm", "fog"} else -6
    return {
        "city": city,
        "condition": condition,
        "temperature": celsius if unit == "celsius" else round(celsius * 9 / 5 + 32),
        "unit": unit,
        "humidity": max(8, min(98, climate["humidity"] + wetter + draw.randint(-8, 8))),
    }


@read
def weather_forecast(state: State, city: str, days: Annotated[int, Range(1, 7)]) -> dict[str, Json]:
    """Get the weather forecast of a city for the next days.

    Args:
        city: City, in English or Chinese.
        days: How many, 1 to 7.

    Example:
        {"city": "Tokyo", "days": 3}
    """
    name = _find(state, city)
    outlook = [_day(state, name, ahead) for ahead in range(1, days + 1)]
    first = date.fromisoformat(state["today"])
    names = [(first + timedelta(days=ahead)).strftime("%a") for ahead in range(1, days + 1)]
    return {
        "city": city,
        "days": days,
        "outlook": ", ".join(f"{day} {condition}" for day, (condition, _, _) in zip(names, outlook, strict=True)),
        "high": max(high for _, high, _ in outlook),
        "low": min(low for _, _, low in outlook),
    }


@read
def air_quality(state: State, city: str) -> dict[str, Json]:
    """Get the air quality index (AQI) of a city.

    Args:
        city: City, in English or Chinese.

    Example:
        {"city": "Delhi"}
    """
    aqi = round(_draw(state, "air", _find(state, city)).triangular(12, 190, 45))
    levels = ((50, "good"), (100, "moderate"), (150, "unhealthy for sensitive groups"), (500, "unhealthy"))
    return {"city": city, "aqi": aqi, "level": next(level for limit, level in levels if aqi <= limit)}


@write
def set_weather_alert(
    state: State, city: str, condition: Literal["rain", "snow", "wind", "heat", "frost"]
) -> dict[str, Json]:
    """Set an alert that tells the user when a weather condition is coming to a city.

    Args:
        city: City, in English or Chinese.
        condition: What to be told about.

    Example:
        {"city": "Oslo", "condition": "snow"}
    """
    # By content, so that the state does not depend on the order in which alerts are set.
    wanted, alerts = f"{_find(state, city)}: {condition}", list(state["alerts"])
    if wanted in alerts:
        alert = f"a{alerts.index(wanted) + 1}"
        raise ToolError(f"the alert for {condition} in {city!r} is already set as {alert!r}", status=409)
    state["alerts"][wanted] = True
    return {"alert": f"a{len(alerts) + 1}", "city": city, "condition": condition, "status": "set"}


def _find(state: State, city: str) -> str:
    """The city's English name, whatever the case and the language it is asked in."""
    if city in state["cities"]:
        return city
    wanted = city.strip().casefold()
    names: dict[str, str] = {}
    for name, facts in state["cities"].items():
        names[name.casefold()] = name
        names[facts.get("zh", name).casefold()] = name
    if wanted in names:
        return names[wanted]
    raise ToolError(f"unknown city {city[:60]!r}{_hint(state, wanted, names)}", status=404)


def _hint(state: State, wanted: str, names: dict[str, str]) -> str:
    renamed = {old.casefold(): new for old, new in state["old_names"].items()}
    if wanted in renamed:
        return f"; did you mean {renamed[wanted]!r}?"
    close = difflib.get_close_matches(wanted[:60].removesuffix("市"), list(names), n=1, cutoff=0.82)
    if not close:
        return ""
    name = names[close[0]]
    return f"; did you mean {name if name.casefold() == close[0] else close[0]!r}?"


def _draw(state: State, *key: object) -> Random:
    """Random numbers that depend on the seed, the date and `key` only."""
    return Random("/".join(map(str, (state["seed"], state["today"], *key))))


def _day(state: State, name: str, ahead: int) -> tuple[str, int, int]:
    """Condition, high and low (°C) of the day that is `ahead` days from today."""
    city = state["cities"][name]
    climate = state["climates"][city["climate"]]
    day = date.fromisoformat(state["today"]) + timedelta(days=ahead)
    season = math.cos((day.timetuple().tm_yday - 200) / 365 * 2 * math.pi) * (1 if city["latitude"] >= 0 else -1)
    place = _draw(state, "place", name).uniform(-2, 2)
    draw = _draw(state, "day", name, day)
    mean = climate["mean"] + climate["swing"] * season + place + draw.uniform(-3, 3)
    high, low = round(mean + draw.uniform(2, 6)), round(mean - draw.uniform(2, 6))
    return _condition(draw, climate["wet"], low), high, low


def _condition(draw: Random, wet: float, low: int) -> str:
    if draw.random() < wet:
        return "snow" if low < 0 else draw.choice(["rain", "rain", "rain", "storm"])
    return draw.choice(["sunny", "sunny", "cloudy", "cloudy", "windy"] + (["fog"] if wet > 0.1 else []))
