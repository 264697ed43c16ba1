"""The calendar: no overlaps, no changes to events of others, and free time is free."""

from __future__ import annotations

import itertools
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import ToolError
from agentft.toolset import State, load_toolset
from agentft.types import Json

CALENDAR = load_toolset("calendar", seed=11)
LUNCH: dict[str, Json] = {"title": "Lunch", "day": "2026-10-17", "start": "12:30", "minutes": 60, "place": "Cafe"}
DAYS = [(date(2026, 10, 12) + timedelta(days=ahead)).isoformat() for ahead in range(28)]
Span = tuple[int, int]


def ask(tool: str, state: State, /, **arguments: Json) -> dict[str, Any]:
    result = CALENDAR.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(tool: str, state: State, /, **arguments: Json) -> tuple[int, str]:
    before = CALENDAR.digest(state)
    with pytest.raises(ToolError) as caught:
        CALENDAR.call(tool, arguments, state)
    assert CALENDAR.digest(state) == before
    return caught.value.status, str(caught.value)


def minute(time: str) -> int:
    return 60 * int(time[:2]) + int(time[3:])


def events_of(state: State) -> dict[str, dict[str, Any]]:
    """Every event of the four weeks, read through the tools only."""
    found: dict[str, dict[str, Any]] = {}
    for number in (*range(1, 120), *range(101, state["next"])):
        try:
            found[f"e{number}"] = ask("event_details", state, event=f"e{number}")
        except ToolError as error:
            assert error.status in {404, 409}  # noqa: PT017
    return found


def spans(state: State) -> dict[str, list[Span]]:
    """Day -> the start and end of its events, in order."""
    days: dict[str, list[Span]] = {}
    for event in events_of(state).values():
        day, times = event["when"].split()
        begin, end = times.split("-")
        days.setdefault(day, []).append((minute(begin), minute(end)))
    return {day: sorted(times) for day, times in days.items()}


def event_by(state: State, *, mine: bool) -> str:
    events = {key: event for key, event in events_of(state).items() if key not in {"e1", "e2", "e3"}}
    return next(key for key, event in events.items() if (event["organiser"] == "me") == mine)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.slow
def test_the_drawn_weeks_are_plausible(seed: int) -> None:
    state = CALENDAR.new_state(seed)
    days = spans(state)
    assert 30 <= sum(map(len, days.values())) <= 83
    for day, times in days.items():
        assert date.fromisoformat(day).weekday() < 5
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
    organisers = {event["organiser"] for event in events_of(state).values()}
    assert "me" in organisers
    assert len(organisers) > 3


def test_another_seed_gives_another_calendar() -> None:
    assert len({CALENDAR.digest({"days": spans(CALENDAR.new_state(seed))}) for seed in range(10)}) == 10


def test_today_is_a_monday() -> None:
    assert ask("current_date", CALENDAR.new_state()) == {"date": "2026-10-12", "weekday": "Monday"}


def test_a_day_is_listed_in_order_and_cut() -> None:
    state = CALENDAR.new_state()
    assert ask("list_events", state, day="2026-10-18") == {
        "day": "2026-10-18",
        "weekday": "Sunday",
        "count": 0,
        "events": "none",
    }
    taken = spans(state)
    for day in DAYS:
        listed = ask("list_events", state, day=day)
        assert listed["count"] == len(taken.get(day, []))
        starts = [entry[:5] for entry in listed["events"].split("; ") if entry[2] == ":"]
        assert starts == sorted(starts)
        assert ("more" in listed["events"]) == (listed["count"] > 3)


@pytest.mark.parametrize(
    ("query", "event"), [("dentist", "e1"), ("BUDGET review", "e2"), ("mill street", "e1"), ("rehearsal", "e3")]
)
def test_an_event_is_found_by_words_and_place(query: str, event: str) -> None:
    found = ask("find_event", CALENDAR.new_state(), query=query)
    assert (found["event"], found["more"]) == (event, 0)


def test_the_earliest_of_several_is_found_and_the_others_are_counted() -> None:
    state = CALENDAR.new_state()
    for day in ("2026-12-03", "2026-12-02", "2026-12-04"):
        ask("create_event", state, **{**LUNCH, "title": "Zeppelin ride", "day": day})
    found = ask("find_event", state, query="zeppelin")
    assert (found["day"], found["event"], found["more"]) == ("2026-12-02", "e102", 2)


@pytest.mark.parametrize("query", ["", "  ", "zeppelin", "dentist zeppelin"])
def test_no_event_is_a_404(query: str) -> None:
    message = f"no event matches {query!r}; try one word of its title"
    assert refusal("find_event", CALENDAR.new_state(), query=query) == (404, message)


@pytest.mark.parametrize("tool", ["event_details", "cancel_event"])
def test_an_unknown_event_is_a_404(tool: str) -> None:
    message = "there is no event 'e999'; find_event and list_events show event ids"
    assert refusal(tool, CALENDAR.new_state(), event="e999") == (404, message)


@pytest.mark.parametrize(
    ("day", "message"),
    [
        ("tomorrow", "'tomorrow' is not a date; write YYYY-MM-DD, today is 2026-10-12 (Monday)"),
        ("2026-02-30", "'2026-02-30' is not a date; write YYYY-MM-DD, today is 2026-10-12 (Monday)"),
        ("20261013", "'20261013' is not a date; write YYYY-MM-DD, today is 2026-10-12 (Monday)"),
        ("２０２６-10-13", "'２０２６-10-13' is not a date; write YYYY-MM-DD, today is 2026-10-12 (Monday)"),
        ("2026-10-11", "2026-10-11 is past; use a day within a year from 2026-10-12"),
        ("2027-10-13", "2027-10-13 is too far ahead; use a day within a year from 2026-10-12"),
    ],
)
def test_a_wrong_day_is_refused_with_todays_date(day: str, message: str) -> None:
    state = CALENDAR.new_state()
    assert refusal("find_free_time", state, day=day, minutes=30) == (422, message)
    assert refusal("create_event", state, **{**LUNCH, "day": day}) == (422, message)
    assert refusal("move_event", state, event="e1", day=day, start="10:00") == (422, message)


@pytest.mark.parametrize("start", ["3pm", "24:00", "9:00", "12:60", "", "12:30:00", "１２:30"])
def test_a_wrong_time_is_a_422(start: str) -> None:
    message = f"{start!r} is not a time; write HH:MM in 24 hours, such as 15:00"
    assert refusal("create_event", CALENDAR.new_state(), **{**LUNCH, "start": start}) == (422, message)


def test_an_event_ends_on_its_day() -> None:
    state = CALENDAR.new_state()
    assert refusal("create_event", state, **{**LUNCH, "start": "23:30", "minutes": 31})[0] == 422
    assert ask("create_event", state, **{**LUNCH, "start": "23:30", "minutes": 30})["end"] == "24:00"


def test_a_created_event_can_be_found() -> None:
    state = CALENDAR.new_state()
    created = ask("create_event", state, **{**LUNCH, "title": " Lunch "})
    assert (created["event"], created["title"], created["end"]) == ("e101", "Lunch", "13:30")
    assert ask("event_details", state, event=" E101 ") == {
        "event": "e101",
        "title": "Lunch",
        "when": "2026-10-17 12:30-13:30",
        "place": "Cafe",
        "organiser": "me",
        "guests": "none",
    }
    assert ask("list_events", state, day="2026-10-17")["events"] == "12:30-13:30 Lunch (e101)"


@pytest.mark.parametrize("field", ["title", "place"])
@pytest.mark.parametrize("text", ["two\nlines", "x" * 81, "\x00", "\u202etxt", "\ud800"])
def test_texts_of_events_are_one_printable_line(field: str, text: str) -> None:
    message = f"the {field} must be one line of at most 80 printable characters"
    assert refusal("create_event", CALENDAR.new_state(), **{**LUNCH, field: text}) == (422, message)


def test_an_event_needs_a_title_but_no_place() -> None:
    state = CALENDAR.new_state()
    assert refusal("create_event", state, **{**LUNCH, "title": " "}) == (
        422,
        "the title is empty; give the event a title",
    )
    del (plain := dict(LUNCH))["place"]
    ask("create_event", state, **plain)
    assert ask("event_details", state, event="e101")["place"] == "none"


@pytest.mark.parametrize(
    ("start", "minutes", "free"),
    [("07:00", 60, True), ("08:45", 10, True), ("07:30", 31, False), ("08:44", 5, False), ("08:10", 5, False)],
)
def test_an_overlap_is_a_409_that_names_the_other_event(start: str, minutes: int, free: bool) -> None:
    state = CALENDAR.new_state()
    arguments: dict[str, Json] = {**LUNCH, "day": "2026-10-15", "start": start, "minutes": minutes}
    if free:
        assert ask("create_event", state, **arguments)["status"] == "created"
        return
    status, message = refusal("create_event", state, **arguments)
    assert status == 409
    assert message.startswith(f"2026-10-15 {start}-")
    assert message.endswith("overlaps 'Dentist' (e1, 08:00-08:45); find_free_time finds free time")


def test_a_moved_event_frees_its_old_time() -> None:
    state = CALENDAR.new_state()
    assert ask("move_event", state, event="e1", day="2026-10-15", start="08:15")["end"] == "09:00"
    assert ask("move_event", state, event="e1", day="2026-10-17", start="08:00")["status"] == "moved"
    ask("create_event", state, **{**LUNCH, "day": "2026-10-15", "start": "08:00", "minutes": 45})
    assert refusal("move_event", state, event="e1", day="2026-10-15", start="08:30")[0] == 409
    message = "'e1' is already on 2026-10-17 at 08:00; give another day or time"
    assert refusal("move_event", state, event="e1", day="2026-10-17", start="08:00") == (409, message)


def test_a_drawn_event_can_be_moved_and_cancelled_and_does_not_come_back() -> None:
    state = CALENDAR.new_state()
    key = event_by(state, mine=True)
    count = len(events_of(state))
    ask("move_event", state, event=key, day="2026-10-18", start="10:00")
    assert len(events_of(state)) == count
    assert ask("cancel_event", state, event=key)["status"] == "cancelled"
    assert key not in events_of(state)
    message = f"{key!r} was cancelled; create a new event instead"
    assert refusal("event_details", state, event=key) == (409, message)
    assert refusal("cancel_event", state, event=key) == (409, message)


def test_changing_another_organisers_event_is_a_403() -> None:
    state = CALENDAR.new_state()
    key = event_by(state, mine=False)
    who = ask("event_details", state, event=key)["organiser"]
    assert refusal("cancel_event", state, event=key) == (403, f"only the organiser {who} can cancel {key!r}")
    assert refusal("move_event", state, event="e3", day="2026-10-17", start="10:00") == (
        403,
        "only the organiser Aisha Khan can move 'e3'",
    )
    assert refusal("invite_guest", state, event="e3", guest="Chen Wei") == (
        403,
        "only the organiser Aisha Khan can invite guests to 'e3'",
    )


def test_guests_are_contacts_and_are_invited_once() -> None:
    state = CALENDAR.new_state()
    invited = ask("invite_guest", state, event="e2", guest=" liam  o'connor ")
    assert (invited["guest"], invited["guests"]) == ("Liam O'Connor", 2)
    assert ask("event_details", state, event="e2")["guests"] == "Liam O'Connor, Tom Becker"
    message = "\"Liam O'Connor\" is already invited to 'e2'"
    assert refusal("invite_guest", state, event="e2", guest="Liam O'Connor") == (409, message)
    message = "no contact 'maria sylva'; did you mean 'Maria Silva'?"
    assert refusal("invite_guest", state, event="e2", guest="maria sylva") == (404, message)
    assert refusal("invite_guest", state, event="e2", guest="?") == (404, "no contact '?'; use a full name")
    assert ask("cancel_event", state, event="e2")["guests_told"] == 2


def test_the_order_of_two_invitations_does_not_change_the_state() -> None:
    one, other = CALENDAR.new_state(), CALENDAR.new_state()
    for guest in ("Chen Wei", "Maria Silva"):
        ask("invite_guest", one, event="e2", guest=guest)
    for guest in ("Maria Silva", "Chen Wei"):
        ask("invite_guest", other, event="e2", guest=guest)
    assert CALENDAR.digest(one) == CALENDAR.digest(other)


@pytest.mark.parametrize("minutes", [5, 30, 60, 120, 480])
def test_the_first_free_time_is_found(minutes: int) -> None:
    state = CALENDAR.new_state()
    taken = spans(state)
    for day in DAYS:
        busy = taken.get(day, [])
        slots = range(9 * 60, 18 * 60 - minutes + 1)
        fits = [at for at in slots if all(at + minutes <= begin or end <= at for begin, end in busy)]
        if fits:
            free = ask("find_free_time", state, day=day, minutes=minutes)
            assert (minute(free["start"]), minute(free["end"])) == (fits[0], fits[0] + minutes)
            gaps = 1 + sum(later > earlier + 1 for earlier, later in itertools.pairwise(fits))
            assert free["more"] == gaps - 1
        else:
            message = f"no {minutes} free minutes on {day} between 09:00 and 18:00; try another day or a shorter time"
            assert refusal("find_free_time", state, day=day, minutes=minutes) == (404, message)


def test_an_evening_event_does_not_extend_working_hours() -> None:
    state = CALENDAR.new_state()
    for start in ("10:00", "19:00"):
        ask("create_event", state, **{**LUNCH, "start": start})
    assert ask("find_free_time", state, day="2026-10-17", minutes=420)["start"] == "11:00"
    assert refusal("find_free_time", state, day="2026-10-17", minutes=421)[0] == 404


def test_the_number_of_events_is_limited() -> None:
    state = CALENDAR.new_state()
    state["next"] = 300
    ask("create_event", state, **LUNCH)
    message = "the calendar is full: at most 200 events can be created"
    assert refusal("create_event", state, **{**LUNCH, "start": "20:00"}) == (409, message)


_CALL = st.one_of(
    st.tuples(
        st.just("create_event"),
        st.fixed_dictionaries(
            {
                "title": st.text(max_size=4),
                "day": st.sampled_from(DAYS[:8]),
                "start": st.sampled_from(["09:00", "10:30", "13:15", "23:00"]),
                "minutes": st.sampled_from([5, 60, 240]),
            }
        ),
    ),
    st.tuples(
        st.just("move_event"),
        st.fixed_dictionaries(
            {
                "event": st.sampled_from(["e1", "e2", "e3", "e5", "e9", "e101"]),
                "day": st.sampled_from(DAYS[:8]),
                "start": st.sampled_from(["09:00", "10:30", "13:15", "23:00"]),
            }
        ),
    ),
    st.tuples(st.just("cancel_event"), st.fixed_dictionaries({"event": st.sampled_from(["e1", "e5", "e9", "e101"])})),
)


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.integers(0, 50), st.lists(_CALL, max_size=12))
def test_no_calls_make_two_events_overlap(seed: int, calls: list[tuple[str, dict[str, Json]]]) -> None:
    state = CALENDAR.new_state(seed)
    for tool, arguments in calls:
        try:
            ask(tool, state, **arguments)
        except ToolError as error:
            assert error.status in {403, 404, 409, 422}  # noqa: PT017
    for times in spans(state).values():
        assert all(end <= begin for (_, end), (begin, _) in itertools.pairwise(times))
        assert times[-1][1] <= 24 * 60
