"""Chinese railways, told in Chinese: timetables, seats left, fares, and tickets from booking to refund."""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterator
from random import Random
from typing import Any, Literal, NamedTuple

from agentft.errors import ToolError
from agentft.toolset import State, destructive, read, write
from agentft.types import Json

BASE_URL = "http://trains.test"

_Seat = Literal["二等座", "一等座", "商务座", "硬座", "硬卧", "软卧"]
_Person = Literal["成人", "学生", "儿童"]
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_TIME = re.compile(r"([01]\d|2[0-3]):[0-5]\d", re.ASCII)
_TRAIN = re.compile(r"([GDZTK])(\d{1,4})", re.ASCII)
_HELD = ("待支付", "已支付")  # orders that hold a seat
_SALE_DAYS = 14
_MOST_ORDERS = 60


class _Stop(NamedTuple):
    """Minutes since midnight of the day on which the train sets out, and kilometres from there."""

    station: str
    arrives: int
    departs: int
    km: int


@read
def search_trains(state: State, from_place: str, to_place: str, date: str, after: str = "00:00") -> dict[str, Json]:
    """查询两地之间某一天的直达车次，按发车时间排列。

    Args:
        from_place: 出发城市或车站，例如 北京 或 北京南。
        to_place: 到达城市或车站。
        date: 乘车日期，格式 2026-10-20。
        after: 只看这个时间之后发车的车次，格式 08:00。

    Example:
        {"from_place": "北京", "to_place": "上海", "date": "2026-10-20", "after": "12:00"}
    """
    start, end = _place(state, from_place), _place(state, to_place)
    ahead = _ahead(state, date)
    if not _TIME.fullmatch(after):
        raise ToolError(f"时间{_quote(after)}不对，请写成 08:00 这样", status=422)
    if start & end:
        raise ToolError("出发地和目的地不能相同，请换一个", status=422)
    found = sorted(_direct(state, start, end), key=lambda trip: trip[1].departs % 1440)
    if not found:
        raise ToolError(f"{_quote(from_place)}到{_quote(to_place)}没有直达车，请查询中转城市", status=404)
    earliest = after if ahead else max(after, state["time"])
    rest = [trip for trip in found if _clock(trip[1].departs % 1440) >= earliest]
    shown = [
        f"{train} {leave.station}{_clock(leave.departs % 1440)}→{reach.station}"
        f"{_clock(leave.departs % 1440 + reach.arrives - leave.departs)}"
        for train, leave, reach in rest[:4]
    ]
    return {"日期": date, "车次数": len(rest), "车次": "；".join(shown) or "这个时间之后没有车了"}


@read
def seats_left(state: State, train: str, date: str) -> dict[str, Json]:
    """查询一趟车某一天各席别的余票。

    Args:
        train: 车次，例如 G101。
        date: 乘车日期，格式 2026-10-20。

    Example:
        {"train": "G101", "date": "2026-10-20"}
    """
    number, _ = _timetable(state, train)
    left: dict[str, Json] = {seat: _left(state, number, date, seat) for seat in state["fares"][number[0]]}
    return {"车次": number, "日期": date, **left}


@read
def ticket_fare(
    state: State, *, train: str, from_place: str, to_place: str, seat: _Seat, person: _Person = "成人"
) -> dict[str, Json]:
    """查询票价。

    Args:
        train: 车次，例如 G101。
        from_place: 上车的车站或城市。
        to_place: 下车的车站或城市。
        seat: 席别。
        person: 票种。

    Example:
        {"train": "G101", "from_place": "北京南", "to_place": "上海虹桥", "seat": "二等座", "person": "成人"}
    """
    number, leave, reach = _ride(state, train, from_place, to_place)
    price = _yuan(_fare(state, number, reach.km - leave.km, seat, person))
    way = f"{leave.station}-{reach.station}"
    return {"车次": number, "区间": way, "席别": seat, "票种": person, "票价": price, "单位": "元"}


@write
def book_ticket(
    state: State, *, train: str, date: str, from_place: str, to_place: str, seat: _Seat, passenger: str
) -> dict[str, Json]:
    """给一位常用乘车人订一张票，得到待支付的订单，支付后才出票。

    Args:
        train: 车次，例如 G101。
        date: 乘车日期，格式 2026-10-20。
        from_place: 上车的车站或城市。
        to_place: 下车的车站或城市。
        seat: 席别。
        passenger: 乘车人姓名。

    Example:
        {"train": "G105", "date": "2026-10-22", "from_place": "北京南", "to_place": "上海虹桥", "seat": "二等座",
         "passenger": "王小明"}
    """
    if passenger.strip() not in state["passengers"]:
        known = "、".join(state["passengers"])
        raise ToolError(f"没有乘车人{_quote(passenger)}，常用乘车人有：{known}", status=404)
    if len(state["orders"]) >= _MOST_ORDERS:
        raise ToolError(f"订单已满 {_MOST_ORDERS} 个，不能再订", status=409)
    key = f"E{26101001 + len(state['orders'])}"
    order = _seat_order(state, passenger.strip(), (train, date, from_place, to_place), seat)
    state["orders"][key] = {**order, "status": "待支付", "changed": False}
    return {"订单号": key, **_order_details(state, state["orders"][key])}


@destructive
def pay_ticket(state: State, order: str) -> dict[str, Json]:
    """用账户余额支付一个待支付的订单，支付后出票。

    Args:
        order: 订单号，例如 E26101002。

    Example:
        {"order": "E26101002"}
    """
    key, facts = _order(state, order, "待支付")
    _check_not_left(state, facts)
    _pay(state, facts["price"])
    facts["status"] = "已支付"
    return {"订单号": key, "状态": "已支付", "金额": _yuan(facts["price"]), "余额": _yuan(state["wallet"])}


@destructive
def change_ticket(state: State, order: str, train: str, date: str, seat: _Seat) -> dict[str, Json]:
    """把一张已支付的票改签到别的车次或日期。只能改签一次，上下车城市不变，差价多退少补。

    Args:
        order: 订单号，例如 E26101001。
        train: 新的车次。
        date: 新的乘车日期，格式 2026-10-20。
        seat: 新的席别。

    Example:
        {"order": "E26101001", "train": "G107", "date": "2026-10-22", "seat": "二等座"}
    """
    key, old = _order(state, order, "已支付")
    if old["changed"]:
        raise ToolError(f"订单 {key} 已经改签过一次，不能再改签，可以退票", status=409)
    _check_not_left(state, old)
    # The old ticket is given up first, so that it is in nobody's way. A refusal puts it back.
    old["status"] = "已改签"
    ends = (state["stations"][old["from"]], state["stations"][old["to"]])
    new = _seat_order(state, old["passenger"], (train, date, *ends), seat)
    if all(new[key] == old[key] for key in ("train", "date", "seat")):
        raise ToolError("新票和原票相同，请换车次、日期或席别", status=409)
    difference = new["price"] - old["price"]
    _pay(state, difference)
    state["orders"][key] = {**new, "status": "已支付", "changed": True}
    told = _order_details(state, state["orders"][key])
    del told["状态"]
    return {"订单号": key, **told, "补差价": _yuan(difference)}


@destructive
def refund_ticket(state: State, order: str) -> dict[str, Json]:
    """退票；待支付的订单会取消。退票费看离发车还有多久：8 天以上免费，48 小时以上 5%，24 小时以上 10%，其余 20%。

    Args:
        order: 订单号，例如 E26101001。

    Example:
        {"order": "E26101001"}
    """
    key, facts = _order(state, order, *_HELD)
    if facts["status"] == "待支付":
        facts["status"] = "已取消"
        return {"订单号": key, "状态": "已取消", "退票费": 0, "退款": 0}
    hours = _check_not_left(state, facts) / 60
    percent = next(percent for least, percent in ((192, 0), (48, 5), (24, 10), (0, 20)) if hours >= least)
    fee = min(facts["price"], max(200, _half_yuan(facts["price"] * percent / 100))) if percent else 0
    _pay(state, fee - facts["price"])
    facts["status"] = "已退票"
    return {"订单号": key, "状态": "已退票", "退票费": _yuan(fee), "退款": _yuan(facts["price"] - fee)}


@read
def ticket_order(state: State, order: str) -> dict[str, Json]:
    """查询一个订单：乘车人、车次、席位、票价和状态。

    Args:
        order: 订单号，例如 E26101001。

    Example:
        {"order": "E26101001"}
    """
    _, facts = _order(state, order)
    return {"乘车人": facts["passenger"], **_order_details(state, facts)}


def _quote(text: str) -> str:
    return f"“{repr(text[:30])[1:-1]}”"


def _yuan(fen: int) -> int | float:
    return fen // 100 if fen % 100 == 0 else fen / 100


def _half_yuan(fen: float) -> int:
    return round(fen / 50) * 50


def _clock(minutes: int) -> str:
    days, rest = divmod(minutes, 1440)
    return f"{('', '次日', '第三日', '第四日')[days]}{rest // 60:02d}:{rest % 60:02d}"


def _draw(state: State, *key: object) -> Random:
    """Random numbers that depend on the seed and `key` only."""
    return Random("/".join(map(str, (state["seed"], *key))))


def _ahead(state: State, text: str) -> int:
    """How many days from today a day is on which tickets are sold."""
    today = datetime.date.fromisoformat(state["today"])
    try:
        ahead = (datetime.date.fromisoformat(text if _DATE.fullmatch(text) else "") - today).days
    except ValueError:
        raise ToolError(f"日期{_quote(text)}不对，请写成 2026-10-20 这样", status=422) from None
    if not 0 <= ahead <= _SALE_DAYS:
        last = today + datetime.timedelta(days=_SALE_DAYS)
        raise ToolError(f"{text} 不在预售期内，只能查询和购买 {today} 到 {last} 的车票", status=422)
    return ahead


def _place(state: State, wanted: str) -> set[str]:
    """The stations of a city, or the one station of that name; a name that is both is the city."""
    stations: dict[str, str] = state["stations"]
    name = wanted.strip()[:30].removesuffix("站").removesuffix("市")
    if found := {station for station, city in stations.items() if city == name} or {name} & set(stations):
        return found
    close = difflib.get_close_matches(name, [*stations.values(), *stations], n=1, cutoff=0.5)
    hint = f"，是不是“{close[0]}”" if close else "，请换一个城市或车站"
    raise ToolError(f"没有车站或城市{_quote(wanted)}{hint}", status=404)


def _timetable(state: State, train: str) -> tuple[str, list[_Stop]]:
    """The train's number and its stops. Odd numbers run as the line is written, even ones run back."""
    number = train.strip().upper()
    match = _TRAIN.fullmatch(number)
    for name, line in state["lines"].items():
        if match and match[1] == line["kind"] and 0 <= (index := int(match[2]) - line["first"]) < 2 * line["trains"]:
            return f"{match[1]}{int(match[2])}", _stops(state, name, index)
    raise ToolError(f"没有车次{_quote(train)}，请先按出发地和目的地查询车次", status=404)


def _stops(state: State, name: str, index: int) -> list[_Stop]:
    line = state["lines"][name]
    draw = _draw(state, "时刻", name, index)
    way = line["stops"] if index % 2 == 0 else line["stops"][::-1]
    fast = line["kind"] in "GD"
    calls = [stop for at, stop in enumerate(way) if at in {0, len(way) - 1} or not fast or draw.random() < 0.7]
    pace, wait = 60 / line["kmh"] * draw.uniform(0.97, 1.08), 5 if fast else 8
    total = round(abs(way[-1][1] - way[0][1]) * pace) + wait * (len(calls) - 2)
    # By day what is fast, so that it arrives before midnight; at noon or later what runs through the night.
    first, last = (375, 1410 - total) if fast else (720, 1290)
    clock = first + (last - first) * (index // 2) // max(1, line["trains"] - 1 if fast else 1) + draw.randint(0, 14)
    stops: list[_Stop] = []
    for at, (station, km) in enumerate(calls):
        far = abs(km - way[0][1])
        arrives = clock + round(far * pace) + wait * max(0, at - 1)
        stops.append(_Stop(station, arrives, arrives + (wait - 3 if 0 < at < len(calls) - 1 else 0), far))
    return stops


def _direct(state: State, start: set[str], end: set[str]) -> Iterator[tuple[str, _Stop, _Stop]]:
    for name, line in state["lines"].items():
        if not (start & {stop[0] for stop in line["stops"]} and end & {stop[0] for stop in line["stops"]}):
            continue
        for index in range(2 * line["trains"]):
            stops = _stops(state, name, index)
            leave = next((stop for stop in stops if stop.station in start), stops[-1])
            reach = next((stop for stop in stops if stop.station in end), stops[0])
            if leave.km < reach.km:
                yield f"{line['kind']}{line['first'] + index}", leave, reach


def _ride(state: State, train: str, from_place: str, to_place: str) -> tuple[str, _Stop, _Stop]:
    number, stops = _timetable(state, train)
    ends: list[_Stop] = []
    for place in (from_place, to_place):
        wanted = _place(state, place)
        found = [stop for stop in stops if stop.station in wanted]
        if not found:
            names = "、".join(stop.station for stop in stops)
            raise ToolError(f"{number} 不停{_quote(place)}，它停靠：{names}", status=422)
        ends.append(found[0])
    if ends[0].km >= ends[1].km:
        raise ToolError(f"{number} 不从{ends[0].station}开往{ends[1].station}，请查询反方向的车次", status=422)
    return number, ends[0], ends[1]


def _fare(state: State, train: str, km: int, seat: str, person: str) -> int:
    """In fen. The longer the way, the cheaper each further kilometre."""
    rates = state["fares"][train[0]]
    if seat not in rates:
        raise ToolError(f"{train} 没有{seat}，可选：{'、'.join(rates)}", status=422)
    counted = min(km, 500) + 0.9 * max(0, min(km, 1000) - 500) + 0.8 * max(0, km - 1000)
    full = max(200, _half_yuan(counted * rates[seat] * 100))
    return _half_yuan(full * state["discounts"][person].get(seat, 100) / 100)


def _left(state: State, train: str, date: str, seat: str) -> int:
    """What the seed left of a seat on that day, less the session's own orders. A week ahead nothing is sold out."""
    ahead, draw = _ahead(state, date), _draw(state, "余票", train, date, seat)
    sold_out = draw.random() < (0.35 if ahead < 3 else 0.15 if ahead < 7 else 0)
    most = max(2, state["seats"][seat] * (ahead + 2) // (_SALE_DAYS + 2))
    left = 0 if sold_out else draw.randint(2, most)
    mine = [order for order in state["orders"].values() if order["status"] in _HELD]
    return max(0, left - sum((o["train"], o["date"], o["seat"]) == (train, date, seat) for o in mine))


def _span(state: State, order: dict[str, Any]) -> tuple[int, int]:
    """Minutes from today's midnight at which a trip begins and ends."""
    _, leave, reach = _ride(state, order["train"], order["from"], order["to"])
    begin = _ahead(state, order["date"]) * 1440 + leave.departs % 1440
    return begin, begin + reach.arrives - leave.departs


def _seat_order(state: State, passenger: str, ride: tuple[str, str, str, str], seat: str) -> dict[str, Any]:
    """An order for a seat of `ride`: train, date, from and to. It is checked, not paid and not kept yet."""
    train, date, *ends = ride
    number, leave, reach = _ride(state, train, *ends)
    order = {"passenger": passenger, "train": number, "date": date, "from": leave.station, "to": reach.station}
    price = _fare(state, number, reach.km - leave.km, seat, state["passengers"][passenger])
    _check_not_left(state, order)
    begin, end = _span(state, order)
    for key, other in state["orders"].items():
        if other["passenger"] == passenger and other["status"] in _HELD:
            start, stop = _span(state, other)
            if begin < stop and start < end:
                raise ToolError(f"{passenger}的订单 {key}（{other['train']}）和这趟车时间冲突", status=409)
    if not _left(state, number, date, seat):
        raise ToolError(f"{number} {date} 的{seat}已售完，请换席别、车次或日期", status=409)
    draw = _draw(state, "座位", number, date, len(state["orders"]), passenger)
    place = f"{draw.randint(1, 16):02d}车{draw.randint(1, 18):02d}{draw.choice('ABCDF') if number[0] in 'GD' else ''}号"
    return {**order, "seat": seat, "place": place, "price": price}


def _check_not_left(state: State, order: dict[str, Any]) -> int:
    """Minutes that are left until the train leaves."""
    left = _span(state, order)[0] - int(state["time"][:2]) * 60 - int(state["time"][3:])
    if left <= 0:
        raise ToolError(f"{order['train']} 已经发车，不能办理", status=409)
    return left


def _order(state: State, wanted: str, *statuses: str) -> tuple[str, dict[str, Any]]:
    key = wanted.strip().upper()
    orders: dict[str, dict[str, Any]] = state["orders"]
    if key not in orders:
        raise ToolError(f"没有订单{_quote(wanted)}，请核对订单号，例如 {next(iter(orders))}", status=404)
    if statuses and orders[key]["status"] not in statuses:
        raise ToolError(f"订单 {key} {orders[key]['status']}，不能办理", status=409)
    return key, orders[key]


def _pay(state: State, price: int) -> None:
    """Deduct the price from the wallet; a negative price is paid back."""
    if price > state["wallet"]:
        raise ToolError(f"余额 {_yuan(state['wallet'])} 元不够，需要 {_yuan(price)} 元", status=402)
    state["wallet"] -= price
    state["income"] += price


def _order_details(state: State, order: dict[str, Any]) -> dict[str, Json]:
    begin, end = _span(state, order)
    clock = begin % 1440
    way = f"{order['date']} {order['from']}{_clock(clock)}→{order['to']}{_clock(clock + end - begin)}"
    seat, price = f"{order['seat']} {order['place']}", _yuan(order["price"])
    return {"车次": order["train"], "行程": way, "席位": seat, "票价": price, "状态": order["status"]}
