"""中国铁路: trains follow their timetable, seats sell out, and a passenger takes one train at a time."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import ToolError
from agentft.toolset import State, load_toolset
from agentft.toolset.state import copy_json
from agentft.types import Json

TRAINS = load_toolset("trains", seed=11)
FRESH = copy_json(TRAINS.new_state())
DAY = "2026-10-22"
WAY: dict[str, Json] = {"from_place": "北京南", "to_place": "上海虹桥", "seat": "二等座"}
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def ask(state: State, tool: str, /, **arguments: Json) -> dict[str, Any]:
    result = TRAINS.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(state: State, tool: str, /, **arguments: Json) -> tuple[int, str]:
    before = TRAINS.digest(state)
    with pytest.raises(ToolError) as caught:
        TRAINS.call(tool, arguments, state)
    assert TRAINS.digest(state) == before
    assert CHINESE.search(str(caught.value))
    return caught.value.status, str(caught.value)


def book(state: State, train: str, passenger: str, date: str = DAY) -> dict[str, Any]:
    return ask(state, "book_ticket", **WAY, train=train, date=date, passenger=passenger)


def test_the_tools_and_their_marks() -> None:
    assert TRAINS.base_url == "http://trains.test"
    assert {name: tool.access for name, tool in TRAINS.tools.items()} == {
        "search_trains": "read",
        "seats_left": "read",
        "ticket_fare": "read",
        "book_ticket": "write",
        "pay_ticket": "destructive",
        "change_ticket": "destructive",
        "refund_ticket": "destructive",
        "ticket_order": "read",
    }


def test_everything_that_a_model_reads_is_chinese() -> None:
    for tool in TRAINS.tools.values():
        definition = json.loads(json.dumps(tool.definition.parameters))
        told = [tool.definition.description, *(facts["description"] for facts in definition["properties"].values())]
        result = TRAINS.call(tool.definition.name, tool.example, copy_json(TRAINS.new_state()))
        assert isinstance(result, dict)
        assert all(CHINESE.search(text) for text in [*told, *result])
        assert not any(
            CHINESE.search(text[at - 1]) and text[at] in ",;:" for text in told for at in range(1, len(text))
        )


@pytest.mark.parametrize("seed", range(20))
def test_every_example_runs_with_every_seed(seed: int) -> None:
    for name, tool in TRAINS.tools.items():
        TRAINS.call(name, tool.example, TRAINS.new_state(seed))


def test_stations_and_lines_fit_together() -> None:
    stations = FRESH["stations"]
    for line in FRESH["lines"].values():
        names = [name for name, _ in line["stops"]]
        assert set(names) <= set(stations)
        cities = [stations[name] for name in names]
        assert len(set(cities)) == len(cities)  # so that a city is one stop of a train
        kilometres = [km for _, km in line["stops"]]
        assert kilometres == sorted(set(kilometres))
        assert line["first"] % 2 == 1
    numbers = [
        f"{line['kind']}{line['first'] + index}"
        for line in FRESH["lines"].values()
        for index in range(2 * line["trains"])
    ]
    assert len(set(numbers)) == len(numbers) > 200
    assert len(stations) > 100


def test_the_initial_orders_cost_the_fare() -> None:
    for order in FRESH["orders"].values():
        fare = ask(
            FRESH,
            "ticket_fare",
            train=order["train"],
            from_place=order["from"],
            to_place=order["to"],
            seat=order["seat"],
            person=FRESH["passengers"][order["passenger"]],
        )
        assert fare["票价"] * 100 == order["price"]


# --- searching


@pytest.mark.parametrize("seed", range(8))
def test_trains_travel_forward_in_time_at_a_plausible_speed(seed: int) -> None:
    state = TRAINS.new_state(seed)
    trips = {
        ("北京", "上海"): (4, 6.5),
        ("上海", "昆明"): (8, 11),
        ("成都", "重庆"): (1, 2.5),
        ("广州", "北京"): (7.5, 11),
    }
    for (start, end), (least, most) in trips.items():
        found = ask(state, "search_trains", from_place=start, to_place=end, date=DAY)
        for leaves, arrives in re.findall(r"[GD]\d+ \D+(\d\d:\d\d)→\D+(\d\d:\d\d)", found["车次"]):
            hours = [int(clock[:2]) + int(clock[3:]) / 60 for clock in (leaves, arrives)]
            assert least <= hours[1] - hours[0] <= most
            assert hours[0] >= 6


def test_a_night_train_arrives_on_another_day() -> None:
    found = ask(FRESH, "search_trains", from_place="北京", to_place="拉萨", date=DAY)
    assert re.fullmatch(r"Z21 北京西\d\d:\d\d→拉萨第三日\d\d:\d\d", found["车次"])


def test_a_search_pages_by_time() -> None:
    seen: list[str] = []
    after, expected = "00:00", ask(FRESH, "search_trains", from_place="北京", to_place="上海", date=DAY)["车次数"]
    while True:
        answer = ask(FRESH, "search_trains", from_place="北京", to_place="上海", date=DAY, after=after)
        assert answer["车次数"] == expected - len(seen)
        if not answer["车次数"]:
            break
        shown = answer["车次"].split("\uff1b")
        assert 1 <= len(shown) <= 4
        seen += shown
        hour, minute = map(int, re.findall(r"(\d\d):(\d\d)→", shown[-1])[0])
        after = f"{hour + (minute + 1) // 60:02d}:{(minute + 1) % 60:02d}"
    assert answer["车次"] == "这个时间之后没有车了"
    assert len(set(seen)) == len(seen) == expected


def test_todays_departed_trains_are_not_listed() -> None:
    today = ask(FRESH, "search_trains", from_place="北京", to_place="上海", date="2026-10-12")
    later = ask(FRESH, "search_trains", from_place="北京", to_place="上海", date=DAY)
    assert today["车次数"] < later["车次数"]
    assert all(clock >= "08:00" for clock in re.findall(r"(\d\d:\d\d)→", today["车次"]))


@pytest.mark.parametrize("place", ["北京南", "北京南站", " 北京 ", "北京市"])
def test_a_place_is_a_city_or_a_station(place: str) -> None:
    assert ask(FRESH, "search_trains", from_place=place, to_place="济南西", date=DAY)["车次数"] > 3


@pytest.mark.parametrize(
    ("place", "hint"),
    [("上海红桥", "上海虹桥"), ("哈尔宾", "哈尔滨"), ("火星", "请换一个城市或车站"), ("", "请换一个")],
)
def test_a_wrong_place_is_a_404_with_the_nearest_name(place: str, hint: str) -> None:
    status, message = refusal(FRESH, "search_trains", from_place=place, to_place="南京", date=DAY)
    assert (status, hint in message) == (404, True)


def test_a_search_without_hits_says_what_to_change() -> None:
    assert refusal(FRESH, "search_trains", from_place="三亚", to_place="北京", date=DAY)[0] == 404
    assert refusal(FRESH, "search_trains", from_place="北京南", to_place="北京", date=DAY)[0] == 422
    assert refusal(FRESH, "search_trains", from_place="北京", to_place="上海", date=DAY, after="8点")[0] == 422


@pytest.mark.parametrize("date", ["2026-10-11", "2026-10-27", "9999-12-31"])
def test_tickets_are_sold_for_fifteen_days(date: str) -> None:
    message = f"{date} 不在预售期内\uff0c只能查询和购买 2026-10-12 到 2026-10-26 的车票"
    assert refusal(FRESH, "seats_left", train="G101", date=date) == (422, message)


@pytest.mark.parametrize(
    "date", ["", "明天", "2026-02-30", "20261020", "2026-10-20T00:00", "２０２６-10-20", "2026-W42-1", "\ud83d"]
)
def test_a_date_has_one_format(date: str) -> None:
    status, message = refusal(FRESH, "seats_left", train="G101", date=date)
    assert (status, message.endswith("请写成 2026-10-20 这样")) == (422, True)


@pytest.mark.parametrize("train", ["", "G", "X101", "G9999", "G101\x00", "Ｇ101", "G１０１", "101"])
def test_an_unknown_train_is_a_404(train: str) -> None:
    assert refusal(FRESH, "seats_left", train=train, date=DAY)[0] == 404


# --- fares and seats


def test_fares_are_close_to_real_ones_with_discounts_by_passenger() -> None:
    prices = {
        seat: ask(FRESH, "ticket_fare", train="G101", **{**WAY, "seat": seat})["票价"]
        for seat in ("二等座", "一等座", "商务座")
    }
    assert prices == {"二等座": 554, "一等座": 927.5, "商务座": 1746.5}
    student = ask(FRESH, "ticket_fare", train="G101", **WAY, person="学生")["票价"]
    child = ask(FRESH, "ticket_fare", train="G101", **WAY, person="儿童")["票价"]
    assert (student, child) == (415.5, 277)
    full = ask(FRESH, "ticket_fare", train="G101", **{**WAY, "seat": "一等座"}, person="学生")["票价"]
    assert full == prices["一等座"]


def test_a_ride_follows_the_trains_direction_and_stops() -> None:
    status, message = refusal(FRESH, "ticket_fare", train="G102", **WAY)
    assert (status, "反方向" in message) == (422, True)
    status, message = refusal(FRESH, "ticket_fare", train="G101", **{**WAY, "to_place": "昆明"})
    assert (status, "北京南" in message, "上海虹桥" in message) == (422, True, True)
    status, message = refusal(FRESH, "ticket_fare", train="G101", **{**WAY, "seat": "硬卧"})
    assert (status, message) == (422, "G101 没有硬卧\uff0c可选\uff1a二等座、一等座、商务座")


def test_booking_takes_a_seat_and_a_refund_frees_it() -> None:
    state = copy_json(TRAINS.new_state())
    start = ask(state, "seats_left", train="g107", date=DAY)["二等座"]
    first = book(state, "G107", "张伟")
    book(state, "G107", "李娜")
    assert ask(state, "seats_left", train="G107", date=DAY)["二等座"] == start - 2
    ask(state, "refund_ticket", order=first["订单号"])
    assert ask(state, "seats_left", train="G107", date=DAY)["二等座"] == start - 1


def test_a_sold_out_class_cannot_be_booked() -> None:
    sold: list[tuple[str, str]] = []
    for number in range(101, 125, 2):
        for day in (13, 14, 15):
            left = ask(FRESH, "seats_left", train=f"G{number}", date=f"2026-10-{day}")
            sold += [(f"G{number}", f"2026-10-{day}")] if not left["二等座"] else []
    assert sold
    train, date = sold[0]
    message = f"{train} {date} 的二等座已售完\uff0c请换席别、车次或日期"
    assert refusal(FRESH, "book_ticket", **WAY, train=train, date=date, passenger="张伟") == (409, message)


# --- orders


def test_a_ticket_from_booking_to_refund() -> None:
    state = copy_json(TRAINS.new_state())
    booked = book(state, "G109", "王小明")
    assert (booked["订单号"], booked["票价"], booked["状态"]) == ("E26101003", 415.5, "待支付")
    assert state["wallet"] == 500000
    assert ask(state, "pay_ticket", order="e26101003")["余额"] == 4584.5
    assert ask(state, "ticket_order", order="E26101003")["状态"] == "已支付"
    assert refusal(state, "pay_ticket", order="E26101003") == (409, "订单 E26101003 已支付\uff0c不能办理")
    assert ask(state, "refund_ticket", order="E26101003")["退款"] == 415.5
    assert state["wallet"] == 500000
    assert refusal(state, "refund_ticket", order="E26101003") == (409, "订单 E26101003 已退票\uff0c不能办理")


def test_the_fee_of_a_refund_grows_towards_departure() -> None:
    fees = []
    for date in ("2026-10-22", "2026-10-16", "2026-10-13", "2026-10-12"):
        state = copy_json(TRAINS.new_state())
        state["orders"]["E26101001"] |= {"date": date, "train": "G115"}
        answer = ask(state, "refund_ticket", order="E26101001")
        assert answer["退票费"] + answer["退款"] == 554
        fees.append(answer["退票费"])
    assert fees == [0, 27.5, 55.5, 111]


def test_departed_trains_cannot_be_booked_changed_or_refunded() -> None:
    state = copy_json(TRAINS.new_state())
    gone = (409, "G101 已经发车\uff0c不能办理")
    assert refusal(state, "book_ticket", **WAY, train="G101", date="2026-10-12", passenger="张伟") == gone
    state["orders"]["E26101001"] |= {"date": "2026-10-12", "train": "G101"}
    assert refusal(state, "refund_ticket", order="E26101001") == gone
    assert refusal(state, "change_ticket", order="E26101001", train="G107", date=DAY, seat="二等座") == gone
    state["orders"]["E26101001"]["status"] = "待支付"
    assert refusal(state, "pay_ticket", order="E26101001") == gone


def test_a_ticket_is_changed_once_and_the_difference_is_settled() -> None:
    state = copy_json(TRAINS.new_state())
    changed = ask(state, "change_ticket", order="E26101001", train="G109", date=DAY, seat="一等座")
    assert (changed["车次"], changed["补差价"]) == ("G109", 373.5)
    assert state["wallet"] == 500000 - 37350
    status, message = refusal(state, "change_ticket", order="E26101001", train="G107", date=DAY, seat="二等座")
    assert (status, "已经改签过一次" in message) == (409, True)
    assert ask(state, "refund_ticket", order="E26101001")["退款"] == 927.5


def test_a_change_may_overlap_the_old_ticket_and_must_be_another_one() -> None:
    state = copy_json(TRAINS.new_state())
    same: dict[str, Json] = {"order": "E26101001", "date": "2026-10-21", "seat": "二等座"}
    assert refusal(state, "change_ticket", **same, train="g0103")[0] == 409
    assert ask(state, "change_ticket", **same, train="G105")["补差价"] == 0
    assert refusal(state, "change_ticket", **{**same, "order": "E26101002"}, train="G105")[0] == 409


def test_a_passenger_is_in_one_train_at_a_time() -> None:
    state = copy_json(TRAINS.new_state())
    status, message = refusal(state, "book_ticket", **WAY, train="G105", date="2026-10-21", passenger="张伟")
    assert (status, "E26101001" in message, "时间冲突" in message) == (409, True, True)
    book(state, "G105", "李娜", "2026-10-21")
    ask(state, "refund_ticket", order="E26101001")
    book(state, "G105", "张伟", "2026-10-21")


def test_unknown_passengers_are_refused_and_unknown_orders_are_a_404() -> None:
    status, message = refusal(FRESH, "book_ticket", **WAY, train="G105", date=DAY, passenger="孙悟空")
    assert (status, message.endswith("张伟、李娜、王小明、张乐乐")) == (404, True)
    assert refusal(FRESH, "ticket_order", order="E1")[0] == 404


def test_an_empty_wallet_pays_nothing() -> None:
    state = copy_json(TRAINS.new_state())
    state["wallet"] = 150249
    assert refusal(state, "pay_ticket", order="E26101002") == (402, "余额 1502.49 元不够\uff0c需要 1502.5 元")


def test_the_number_of_orders_is_limited() -> None:
    state = copy_json(TRAINS.new_state())
    for number in range(3, 61):
        state["orders"][f"E{26101000 + number}"] = {**state["orders"]["E26101001"], "status": "已退票"}
    assert refusal(state, "book_ticket", **WAY, train="G105", date=DAY, passenger="李娜")[0] == 409


steps = st.tuples(
    st.sampled_from(["book_ticket", "pay_ticket", "change_ticket", "refund_ticket"]),
    st.sampled_from(["G101", "G103", "G115", "T109", "G1323"]),
    st.integers(12, 27).map(lambda day: f"2026-10-{day}"),
    st.sampled_from(["二等座", "商务座", "硬卧"]),
    st.sampled_from(["张伟", "王小明", "张乐乐"]),
    st.integers(1, 8).map(lambda number: f"E{26101000 + number}"),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, max_size=15))
def test_money_is_conserved_and_no_seat_is_sold_twice(walk: list[tuple[str, str, str, str, str, str]]) -> None:
    state = copy_json(TRAINS.new_state())
    total = state["wallet"] + state["income"]
    for tool, train, date, seat, passenger, order in walk:
        every: dict[str, Json] = {"train": train, "date": date, "seat": seat, "passenger": passenger, "order": order}
        every |= {"from_place": "北京", "to_place": "上海"}
        wanted = TRAINS.tools[tool].check.names
        try:
            ask(state, tool, **{key: value for key, value in every.items() if key in wanted})
        except ToolError as error:
            assert error.status in {402, 404, 409, 422}  # noqa: PT017  (refusals are part of the walk)
    assert state["wallet"] + state["income"] == total
    assert state["wallet"] >= 0
    held = [order for order in state["orders"].values() if order["status"] in {"待支付", "已支付"}]
    assert len({(order["passenger"], order["date"], order["train"]) for order in held}) == len(held)
    empty = {**copy_json(TRAINS.new_state()), "orders": {}}
    for order in held:
        sold = [(other["train"], other["date"], other["seat"]) for other in held]
        ride = (order["train"], order["date"], order["seat"])
        assert sold.count(ride) <= ask(empty, "seats_left", train=ride[0], date=ride[1])[ride[2]]
