"""The shop: money is conserved, stock never negative, and each refusal says what to do."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import ToolError
from agentft.toolset import State, load_toolset
from agentft.toolset.state import copy_json
from agentft.types import Json

SHOP = load_toolset("shop", seed=11)
PRODUCTS: dict[str, dict[str, Any]] = SHOP.new_state()["products"]
PAID_BACK = {"cancelled", "refunded"}


def fresh() -> State:
    """A mutable state."""
    state: State = copy_json(SHOP.new_state())
    return state


def ask(tool: str, state: State, /, **arguments: Json) -> dict[str, Any]:
    result = SHOP.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(tool: str, state: State, /, **arguments: Json) -> tuple[int, str]:
    before = SHOP.digest(state)
    with pytest.raises(ToolError) as caught:
        SHOP.call(tool, arguments, state)
    assert SHOP.digest(state) == before
    return caught.value.status, str(caught.value)


def orders_of(state: State) -> dict[str, dict[str, Any]]:
    """Every order, read through the tools only."""
    numbers = (*range(1001, 1012), *range(1101, state["next"]))
    return {f"o{number}": ask("order_status", state, order=f"o{number}") for number in numbers}


def money(state: State) -> int:
    """Cents of the credit and of the orders that were not refunded."""
    paid: list[int] = [
        round(order["paid"] * 100) for order in orders_of(state).values() if order["status"] not in PAID_BACK
    ]
    credit: float = ask("account_credit", state)["credit"]
    return round(credit * 100) + sum(paid)


def price(state: State, product: str) -> int:
    euros: float = ask("product_details", state, product=product)["price"]
    return round(euros * 100)


def stock(state: State, product: str) -> int:
    count = ask("check_stock", state, product=product)["stock"]
    assert isinstance(count, int)
    return count


@pytest.mark.parametrize("seed", range(10))
def test_drawn_values_are_plausible(seed: int) -> None:
    state = SHOP.new_state(seed)
    for product, facts in PRODUCTS.items():
        assert abs(price(state, product) - facts["price"]) <= 0.1 * facts["price"] + 10
        assert price(state, product) % 10 == 0
        details, shelf = ask("product_details", state, product=product), ask("check_stock", state, product=product)
        assert 2.8 <= details["rating"] <= 5
        assert facts["stock"][0] <= shelf["stock"] <= facts["stock"][1]
        assert (shelf["delivery_days"] is None) == (shelf["stock"] == 0)
    for order in orders_of(state).values():
        assert order["day"] < "2026-10-12"
        assert order["status"] != "processing" or order["day"] > "2026-10-09"


def test_another_seed_gives_another_shop() -> None:
    states = [SHOP.new_state(seed) for seed in range(6)]
    for read in (price, stock):
        assert len({tuple(read(state, product) for product in PRODUCTS) for state in states}) == 6
    assert any(stock(state, product) == 0 for state in states for product in PRODUCTS)
    assert len({str(orders_of(state)) for state in states}) == 6


def test_every_product_is_found_by_its_name() -> None:
    state = fresh()
    for product, facts in PRODUCTS.items():
        found = ask("search_products", state, query=facts["name"].upper())
        assert (found["product"], found["name"]) == (product, facts["name"])
        assert round(found["price"] * 100) == price(state, product)


def test_a_category_is_a_query_and_the_cheapest_comes_first() -> None:
    state = fresh()
    found = ask("search_products", state, query="sports")
    sport = [product for product, facts in PRODUCTS.items() if facts["category"] == "sport"]
    assert found["more"] == len(sport) - 1
    assert price(state, found["product"]) == min(price(state, product) for product in sport)


def test_a_maximum_price_is_respected() -> None:
    state = fresh()
    cheap = ask("search_products", state, query="wireless", max_price=40)
    assert (cheap["name"], cheap["more"]) == ("Wireless mouse", 0)
    assert ask("search_products", state, query="wireless", max_price=None)["more"] == 1
    exact = price(state, "p8") / 100
    assert ask("search_products", state, query="mouse", max_price=exact)["product"] == "p8"
    status, message = refusal("search_products", state, query="tent", max_price=20)
    assert (status, message.split(";")[0]) == (404, "no product up to that price fits 'tent'")


@pytest.mark.parametrize("query", ["", "unicorn", "!?", "杯子"])
def test_no_product_is_a_404_that_names_the_categories(query: str) -> None:
    message = f"no product fits {query!r}; try other words, or a category: electronics, home, kitchen, sport"
    assert refusal("search_products", fresh(), query=query) == (404, message)


@pytest.mark.parametrize("tool", ["product_details", "check_stock"])
def test_an_unknown_product_is_a_404(tool: str) -> None:
    state = fresh()
    message = "there is no product 'mug'; search_products finds product ids"
    assert refusal(tool, state, product="mug") == (404, message)
    assert refusal("place_order", state, product="mug", quantity=1) == (404, message)
    assert ask(tool, state, product=" P1 ")["product"] == "p1"


def test_an_order_reduces_stock_and_credit() -> None:
    state = fresh()
    cost, before = price(state, "p1"), stock(state, "p1")
    placed = ask("place_order", state, product="p1", quantity=3)
    assert placed == {
        "order": "o1101",
        "product": "p1",
        "quantity": 3,
        "total": cost * 3 / 100,
        "credit": (50000 - cost * 3) / 100,
        "status": "processing",
    }
    assert stock(state, "p1") == before - 3
    assert ask("order_status", state, order="O1101")["day"] == "2026-10-12"
    assert ask("list_orders", state)["orders"].startswith("o1101 Ceramic coffee mug, o1001 ")
    assert ask("place_order", state, product="p2", quantity=1)["order"] == "o1102"


def test_too_little_stock_is_a_409() -> None:
    state = fresh()
    state["taken"]["p1"] = stock(state, "p1") - 2
    message = "only 2 of 'Ceramic coffee mug' are in stock; order fewer"
    assert refusal("place_order", state, product="p1", quantity=3) == (409, message)
    ask("place_order", state, product="p1", quantity=2)
    assert ask("check_stock", state, product="p1") == {
        "product": "p1",
        "name": "Ceramic coffee mug",
        "stock": 0,
        "delivery_days": None,
    }
    message = "'Ceramic coffee mug' is out of stock; search for another product"
    assert refusal("place_order", state, product="p1", quantity=1) == (409, message)


def test_too_little_credit_is_a_402() -> None:
    state = fresh()
    state["credit"] = price(state, "p1") - 1
    cost, credit = price(state, "p1") / 100, state["credit"] / 100
    message = f"the order costs {cost:.2f} EUR and the credit is {credit:.2f} EUR; order less"
    assert refusal("place_order", state, product="p1", quantity=1) == (402, message)
    state["credit"] += 1
    assert ask("place_order", state, product="p1", quantity=1)["credit"] == 0


def test_a_coupon_reduces_the_price_once() -> None:
    state = fresh()
    cost = 2 * price(state, "p1")
    placed = ask("place_order", state, product="p1", quantity=2, coupon=" welcome10 ")
    assert round(placed["total"] * 100) == cost - cost // 10
    message = "the coupon WELCOME10 has been used; order without it"
    assert refusal("place_order", state, product="p1", quantity=1, coupon="WELCOME10") == (409, message)
    ask("cancel_order", state, order=placed["order"])
    assert refusal("place_order", state, product="p1", quantity=1, coupon="WELCOME10") == (409, message)


@pytest.mark.parametrize(
    ("coupon", "status", "message"),
    [
        ("SUMMER15", 422, "the coupon SUMMER15 ended on 2026-08-31; order without it"),
        ("AUTUMN20", 422, "the coupon AUTUMN20 needs an order of 100.00 EUR; order more, or without it"),
        ("WELCOME20", 404, "there is no coupon 'WELCOME20'; did you mean 'WELCOME10'?"),
        ("x", 404, "there is no coupon 'x'"),
    ],
)
def test_an_invalid_coupon_is_refused(coupon: str, status: int, message: str) -> None:
    assert refusal("place_order", fresh(), product="p1", quantity=1, coupon=coupon) == (status, message)


def test_a_coupon_is_not_used_up_by_an_order_that_fails() -> None:
    state = fresh()
    state["credit"] = 1
    assert refusal("place_order", state, product="p1", quantity=1, coupon="WELCOME10")[0] == 402
    state["credit"] = 50000
    assert ask("place_order", state, product="p1", quantity=1, coupon="WELCOME10")["status"] == "processing"


@pytest.mark.parametrize("quantity", [0, 11, -1, 2.5])
def test_a_quantity_is_whole_and_from_1_to_10(quantity: float) -> None:
    assert refusal("place_order", fresh(), product="p1", quantity=quantity)[0] in {400, 422}


def test_a_cancelled_order_restores_credit_and_stock() -> None:
    state = fresh()
    before = stock(state, "p2")
    placed = ask("place_order", state, product="p2", quantity=2)
    assert ask("cancel_order", state, order=placed["order"]) == {
        "order": "o1101",
        "refund": placed["total"],
        "credit": 500,
        "status": "cancelled",
    }
    assert stock(state, "p2") == before
    message = "'o1101' is cancelled and cannot be cancelled; there is nothing left to do"
    assert refusal("cancel_order", state, order="o1101") == (409, message)


@pytest.mark.parametrize(
    ("tool", "order", "status", "message"),
    [
        (
            "cancel_order",
            "o1002",
            409,
            "'o1002' is shipped and cannot be cancelled; ask for a refund once it is delivered",
        ),
        ("cancel_order", "o1003", 409, "'o1003' is delivered and cannot be cancelled; use request_refund"),
        ("cancel_order", "o1", 404, "there is no order 'o1'; list_orders shows order ids"),
        ("request_refund", "o1001", 409, "'o1001' is processing and cannot be refunded; use cancel_order"),
        ("request_refund", "o1002", 409, "'o1002' is shipped and cannot be refunded; wait until it is delivered"),
        ("request_refund", "o1004", 422, "'o1004' was ordered 70 days ago; refunds are given for 30 days only"),
        (
            "request_refund",
            "o1005",
            409,
            "'o1005' is cancelled and cannot be refunded; its money has gone back already",
        ),
    ],
)
def test_an_order_in_the_wrong_status_is_refused(tool: str, order: str, status: int, message: str) -> None:
    arguments: dict[str, Json] = {"order": order}
    if tool == "request_refund":
        arguments["reason"] = "damaged"
    assert refusal(tool, fresh(), **arguments) == (status, message)


@pytest.mark.parametrize(("reason", "back"), [("damaged", 0), ("wrong item", 2), ("not needed", 2)])
def test_a_refund_is_paid_once_and_damaged_goods_are_not_sold_again(reason: str, back: int) -> None:
    state = fresh()
    before = stock(state, "p15")
    refund = ask("request_refund", state, order="o1003", reason=reason)
    assert (refund["refund"], refund["credit"], refund["status"]) == (37.8, 537.8, "refunded")
    assert stock(state, "p15") == before + back
    message = "'o1003' is refunded and cannot be refunded; its money has gone back already"
    assert refusal("request_refund", state, order="o1003", reason=reason) == (409, message)


def test_orders_are_listed_by_status() -> None:
    state = fresh()
    everything = orders_of(state)
    for status in ("processing", "shipped", "delivered", "cancelled", "refunded"):
        count = sum(order["status"] == status for order in everything.values())
        listed = ask("list_orders", state, status=status)
        assert listed["count"] == count
        assert (listed["orders"] == "none") == (count == 0)
    assert ask("list_orders", state)["count"] == len(everything)
    assert ask("list_orders", state)["orders"].endswith(f", {len(everything) - 5} more")


def test_the_number_of_orders_is_limited() -> None:
    state = fresh()
    state["next"] = 1201
    message = "the account has reached its limit of 100 orders; no more can be placed"
    assert refusal("place_order", state, product="p1", quantity=1) == (409, message)


_CALL = st.one_of(
    st.tuples(
        st.just("place_order"),
        st.fixed_dictionaries(
            {
                "product": st.sampled_from(["p1", "p2", "p7", "p11", "p14", "p18"]),
                "quantity": st.integers(1, 10),
                "coupon": st.sampled_from(["", "WELCOME10", "AUTUMN20", "SUMMER15"]),
            }
        ),
    ),
    st.tuples(
        st.just("cancel_order"),
        st.fixed_dictionaries({"order": st.sampled_from(["o1001", "o1006", "o1101", "o1102", "o1103"])}),
    ),
    st.tuples(
        st.just("request_refund"),
        st.fixed_dictionaries(
            {
                "order": st.sampled_from(["o1003", "o1004", "o1007", "o1008", "o1101"]),
                "reason": st.sampled_from(["damaged", "wrong item", "not needed"]),
            }
        ),
    ),
)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(st.integers(0, 50), st.lists(_CALL, max_size=15))
def test_money_is_conserved_and_stock_is_never_negative(seed: int, calls: list[tuple[str, dict[str, Json]]]) -> None:
    state = SHOP.new_state(seed)
    total = money(state)
    for tool, arguments in calls:
        try:
            ask(tool, state, **arguments)
        except ToolError as error:
            assert error.status in {402, 404, 409, 422}  # noqa: PT017
        assert money(state) == total
        assert state["credit"] >= 0
    assert all(stock(state, product) >= 0 for product in PRODUCTS)
    assert all(math.isclose(order["paid"], round(order["paid"], 2)) for order in orders_of(state).values())
