"""A personal calendar: four weeks of meetings drawn from the seed, free time, guests, and events of others."""

from __future__ import annotations

import re
from datetime import date, timedelta
from random import Random
from typing import Annotated, Any, TypeAlias

from agentft.errors import ToolError
from agentft.toolset import Range, State, destructive, did_you_mean, read, write
from agentft.types import Json

BASE_URL = "http://calendar.test"

Event: TypeAlias = dict[str, Any]

_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)", re.ASCII)
_WEEKS = 4
_MOST_EVENTS = 200
_SHOWN = 3


@read
def current_date(state: State) -> dict[str, Json]:
    """Get today's date and weekday."""
    today = date.fromisoformat(state["today"])
    return {"date": state["today"], "weekday": _weekday(today)}


@read
def list_events(state: State, day: str) -> dict[str, Json]:
    """List the events of a day.

    Args:
        day: Date, as YYYY-MM-DD.

    Example:
        {"day": "2026-10-15"}
    """
    when = _date(state, day)
    events = _of_day(state, day)
    shown = [f"{_span(event)} {_clip(event['title'])} ({key})" for key, event in events[:_SHOWN]]
    more = [f"{len(events) - _SHOWN} more"] if len(events) > _SHOWN else []
    return {"day": day, "weekday": _weekday(when), "count": len(events), "events": "; ".join([*shown, *more]) or "none"}


@read
def find_event(state: State, query: str) -> dict[str, Json]:
    """Find the next event whose title, place or guests hold some words.

    Args:
        query: Words of the title or the place, or a guest's name.

    Example:
        {"query": "dentist"}
    """
    words = query[:200].casefold().split()
    matching = [entry for entry in _in_order(state) if words and all(word in _searched(entry[1]) for word in words)]
    if not matching:
        raise ToolError(f"no event matches {query[:60]!r}; try one word of its title", status=404)
    key, event = matching[0]
    return {
        "event": key,
        "title": event["title"],
        "day": event["day"],
        "start": event["start"],
        "more": len(matching) - 1,
    }


@read
def event_details(state: State, event: str) -> dict[str, Json]:
    """Get the day, time, place, organiser and guests of an event.

    Args:
        event: Event id, such as e1.

    Example:
        {"event": "e2"}
    """
    key, facts = _find(state, event)
    return {
        "event": key,
        "title": facts["title"],
        "when": f"{facts['day']} {_span(facts)}",
        "place": facts["place"] or "none",
        "organiser": facts["organiser"],
        "guests": ", ".join(facts["guests"]) or "none",
    }


@read
def find_free_time(state: State, day: str, minutes: Annotated[int, Range(5, 480)]) -> dict[str, Json]:
    """Find the first free time of a length in the working hours of a day.

    Args:
        day: Date, as YYYY-MM-DD.
        minutes: Length needed, 5 to 480.

    Example:
        {"day": "2026-10-17", "minutes": 60}
    """
    _future(state, day)
    at, closing = (_minute(time) for time in state["work_hours"])
    gaps: list[tuple[int, int]] = []
    for _, event in _of_day(state, day):
        begin = _minute(event["start"])
        gaps.append((at, min(begin, closing)))
        at = max(at, begin + event["minutes"])
    fitting = [begin for begin, end in [*gaps, (at, closing)] if end - begin >= minutes]
    if not fitting:
        hours = " and ".join(state["work_hours"])
        raise ToolError(
            f"no {minutes} free minutes on {day} between {hours}; try another day or a shorter time", status=404
        )
    start = fitting[0]
    return {
        "day": day,
        "minutes": minutes,
        "start": _clock(start),
        "end": _clock(start + minutes),
        "more": len(fitting) - 1,
    }


@write
def create_event(
    state: State, title: str, day: str, start: str, *, minutes: Annotated[int, Range(5, 480)], place: str = ""
) -> dict[str, Json]:
    """Create an event in the calendar.

    Args:
        title: Title of the event.
        day: Date, as YYYY-MM-DD.
        start: Start time, as HH:MM in 24 hours.
        minutes: Length, 5 to 480.
        place: Where it is.

    Example:
        {"title": "Lunch with Maria", "day": "2026-10-17", "start": "12:30", "minutes": 60, "place": "Cafe Central"}
    """
    if not title.strip():
        raise ToolError("the title is empty; give the event a title", status=422)
    event: Event = {
        "title": _line("title", title),
        "day": day,
        "start": start,
        "minutes": minutes,
        "place": _line("place", place),
        "organiser": "me",
        "guests": [],
    }
    if state["next"] > 100 + _MOST_EVENTS:
        raise ToolError(f"the calendar is full: at most {_MOST_EVENTS} events can be created", status=409)
    _check_slot(state, event)
    key = f"e{state['next']}"
    state["next"] += 1
    state["events"][key] = event
    return {"event": key, "title": event["title"], "day": day, "start": start, "end": _end(event), "status": "created"}


@write
def move_event(state: State, event: str, day: str, start: str) -> dict[str, Json]:
    """Move an event to another day or time; its length stays.

    Args:
        event: Event id, such as e1.
        day: New date, as YYYY-MM-DD.
        start: New start time, as HH:MM in 24 hours.

    Example:
        {"event": "e1", "day": "2026-10-17", "start": "10:00"}
    """
    key, facts = _mine(state, event, "move")
    moved = {**facts, "day": day, "start": start}
    if moved == facts:
        raise ToolError(f"{key!r} is already on {day} at {start}; give another day or time", status=409)
    _check_slot(state, moved, apart_from=key)
    state["events"][key] = moved
    return {"event": key, "title": facts["title"], "day": day, "start": start, "end": _end(moved), "status": "moved"}


@write
def invite_guest(state: State, event: str, guest: str) -> dict[str, Json]:
    """Invite a contact to an event.

    Args:
        event: Event id, such as e1.
        guest: Name of the contact.

    Example:
        {"event": "e2", "guest": "Maria Silva"}
    """
    key, facts = _mine(state, event, "invite guests to")
    name = _contact(state, guest)
    if name in facts["guests"]:
        raise ToolError(f"{name!r} is already invited to {key!r}", status=409)
    guests = sorted([*facts["guests"], name])
    state["events"][key] = {**facts, "guests": guests}
    return {"event": key, "guest": name, "email": state["contacts"][name], "guests": len(guests), "status": "invited"}


@destructive
def cancel_event(state: State, event: str) -> dict[str, Json]:
    """Cancel an event for good; its guests are told.

    Args:
        event: Event id, such as e1.

    Example:
        {"event": "e1"}
    """
    key, facts = _mine(state, event, "cancel")
    state["events"].pop(key, None)
    state["cancelled"] = sorted([*state["cancelled"], key])
    return {"event": key, "title": facts["title"], "guests_told": len(facts["guests"]), "status": "cancelled"}


def _events(state: State) -> dict[str, Event]:
    """Every event that stands: those drawn from the seed, and over them what the state holds."""
    events = {**_drawn(state), **state["events"]}
    return {key: event for key, event in events.items() if key not in state["cancelled"]}


def _drawn(state: State) -> dict[str, Event]:
    """The meetings of the working days to come; they depend on the seed and the date alone. No two overlap."""
    draw = Random("/".join(map(str, (state["seed"], state["today"], "meetings"))))
    first = date.fromisoformat(state["today"])
    contacts = list(state["contacts"])
    events: dict[str, Event] = {}
    opening, closing = (_minute(time) for time in state["work_hours"])
    for ahead in range(7 * _WEEKS):
        day = first + timedelta(days=ahead)
        at = opening
        for _ in range(draw.randint(1, 4) if day.weekday() < 5 else 0):
            title, minutes = draw.choice(state["meetings"])
            at += draw.choice([0, 15, 30, 60, 90])
            if at + minutes > closing:
                break
            events[f"e{len(events) + 4}"] = {
                "title": title,
                "day": day.isoformat(),
                "start": _clock(at),
                "minutes": minutes,
                "place": draw.choice(state["places"]),
                "organiser": draw.choice(["me", "me", draw.choice(contacts)]),
                "guests": sorted(draw.sample(contacts, draw.randint(0, 3))),
            }
            at += minutes
    return events


def _in_order(state: State) -> list[tuple[str, Event]]:
    return sorted(_events(state).items(), key=lambda entry: (entry[1]["day"], entry[1]["start"], entry[0]))


def _of_day(state: State, day: str) -> list[tuple[str, Event]]:
    return [(key, event) for key, event in _in_order(state) if event["day"] == day]


def _find(state: State, event: str) -> tuple[str, Event]:
    """The id as it is kept, and the event."""
    key = event.strip().lower()
    if key in state["cancelled"]:
        raise ToolError(f"{key!r} was cancelled; create a new event instead", status=409)
    facts = _events(state).get(key)
    if facts is None:
        raise ToolError(f"there is no event {event[:60]!r}; find_event and list_events show event ids", status=404)
    return key, facts


def _mine(state: State, event: str, what: str) -> tuple[str, Event]:
    key, facts = _find(state, event)
    if facts["organiser"] != "me":
        raise ToolError(f"only the organiser {facts['organiser']} can {what} {key!r}", status=403)
    return key, facts


def _contact(state: State, guest: str) -> str:
    wanted = " ".join(guest.casefold().split())
    names: dict[str, str] = {name.casefold(): name for name in state["contacts"]}
    if wanted not in names:
        shown = did_you_mean(" ".join(guest.split()).title(), list(state["contacts"]))
        raise ToolError(f"no contact {guest[:60]!r}{shown or '; use a full name'}", status=404)
    return names[wanted]


def _check_slot(state: State, event: Event, apart_from: str = "") -> None:
    _future(state, event["day"])
    begin = _minute(event["start"])
    end = begin + event["minutes"]
    if end > 24 * 60:
        raise ToolError("the event would end after midnight; start it earlier or make it shorter", status=422)
    for key, other in _of_day(state, event["day"]):
        starts = _minute(other["start"])
        if key != apart_from and begin < starts + other["minutes"] and starts < end:
            raise ToolError(
                f"{event['day']} {_span(event)} overlaps {_clip(other['title'])!r} ({key}, {_span(other)}); "
                "find_free_time finds free time",
                status=409,
            )


def _date(state: State, day: str) -> date:
    try:
        return date.fromisoformat(day if _DAY.fullmatch(day) else "")
    except ValueError:
        weekday = _weekday(date.fromisoformat(state["today"]))
        raise ToolError(
            f"{day[:60]!r} is not a date; write YYYY-MM-DD, today is {state['today']} ({weekday})", status=422
        ) from None


def _future(state: State, day: str) -> None:
    ahead = (_date(state, day) - date.fromisoformat(state["today"])).days
    if not 0 <= ahead <= 365:
        raise ToolError(
            f"{day} is {'past' if ahead < 0 else 'too far ahead'}; use a day within a year from {state['today']}",
            status=422,
        )


def _minute(time: str) -> int:
    """Minutes since midnight."""
    match = _TIME.fullmatch(time)
    if match is None:
        raise ToolError(f"{time[:60]!r} is not a time; write HH:MM in 24 hours, such as 15:00", status=422)
    return 60 * int(match[1]) + int(match[2])


def _clock(minute: int) -> str:
    return f"{minute // 60:02}:{minute % 60:02}"


def _end(event: Event) -> str:
    return _clock(_minute(event["start"]) + event["minutes"])


def _span(event: Event) -> str:
    return f"{event['start']}-{_end(event)}"


def _weekday(day: date) -> str:
    return ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[day.weekday()]


def _searched(event: Event) -> str:
    texts: list[str] = [event["title"], event["place"], *event["guests"]]
    return " ".join(texts).casefold()


def _clip(text: str) -> str:
    return text if len(text) <= 32 else f"{text[:29]}..."


def _line(name: str, text: str) -> str:
    """A text that is stored: one line of printable characters."""
    if len(text) > 80 or not text.isprintable():
        raise ToolError(f"the {name} must be one line of at most 80 printable characters", status=422)
    return text.strip()
