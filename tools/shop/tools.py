"""An online shop with a prepaid credit: prices, stock and older orders are drawn from the seed. Money is in cents."""

from __future__ import annotations

import re
from datetime import date, timedelta
from random import Random
from typing import Annotated, Any, Literal, TypeAlias

from agentft.errors import ToolError
from agentft.toolset import Range, State, destructive, did_you_mean, read, write
from agentft.types import Json

BASE_URL = "http://shop.test"

Order: TypeAlias = dict[str, Any]

_WORD = re.compile(r"[a-z0-9]+")
_RETURN_DAYS = 30
_MOST_ORDERS = 100
_OLD_ORDERS = 6
_SHOWN = 5


@read
def search_products(state: State, query: str, max_price: float | None = None) -> dict[str, Json]:
    """Search the shop and get the product that fits best.

    Args:
        query: Words of the product's name or its category.
        max_price: Highest price in euros; null for any price.

    Example:
        {"query": "coffee mug", "max_price": 20}
    """
    wanted = _words(query)
    scores = {
        key: len(wanted & _words(f"{facts['name']} {facts['category']}"))
        for key, facts in state["products"].items()
        if max_price is None or _price(state, key) <= max_price * 100
    }
    hits = sorted((key for key in scores if scores[key]), key=lambda key: (-scores[key], _price(state, key), key))
    if not hits:
        limit = "" if max_price is None else " up to that price"
        categories = ", ".join(sorted({facts["category"] for facts in state["products"].values()}))
        raise ToolError(
            f"no product{limit} fits {query[:60]!r}; try other words, or a category: {categories}", status=404
        )
    best = hits[0]
    return {
        "product": best,
        "name": state["products"][best]["name"],
        "price": _euros(_price(state, best)),
        "more": len(hits) - 1,
    }


@read
def product_details(state: State, product: str) -> dict[str, Json]:
    """Get the name, category, price and rating of a product.

    Args:
        product: Product id, such as p1.

    Example:
        {"product": "p1"}
    """
    key, facts = _product(state, product)
    return {
        "product": key,
        "name": facts["name"],
        "category": facts["category"],
        "price": _euros(_price(state, key)),
        "currency": "EUR",
        "rating": _draw(state, "rating", key).randint(28, 50) / 10,
    }


@read
def check_stock(state: State, product: str) -> dict[str, Json]:
    """Get how many of a product are in stock, and the days that delivery takes.

    Args:
        product: Product id, such as p1.

    Example:
        {"product": "p1"}
    """
    key, facts = _product(state, product)
    stock = _stock(state, key)
    days = _draw(state, "delivery", key).randint(1, 5) if stock else None
    return {"product": key, "name": facts["name"], "stock": stock, "delivery_days": days}


@read
def account_credit(state: State) -> dict[str, Json]:
    """Get the prepaid credit that orders are paid from."""
    return {"credit": _euros(state["credit"]), "currency": "EUR"}


@read
def list_orders(
    state: State, status: Literal["any", "processing", "shipped", "delivered", "cancelled", "refunded"] = "any"
) -> dict[str, Json]:
    """List the customer's orders, the newest first.

    Args:
        status: Only the orders in this status.

    Example:
        {"status": "delivered"}
    """
    orders = [entry for entry in _orders(state).items() if status in {"any", entry[1]["status"]}]
    orders.sort(key=lambda entry: (entry[1]["day"], entry[0]), reverse=True)
    shown = [f"{key} {state['products'][order['product']]['name']}" for key, order in orders[:_SHOWN]]
    more = [f"{len(orders) - _SHOWN} more"] if len(orders) > _SHOWN else []
    return {"status": status, "count": len(orders), "orders": ", ".join([*shown, *more]) or "none"}


@read
def order_status(state: State, order: str) -> dict[str, Json]:
    """Get the status of an order, what was ordered and what was paid.

    Args:
        order: Order id, such as o1001.

    Example:
        {"order": "o1002"}
    """
    key, facts = _order(state, order)
    return {
        "order": key,
        "product": state["products"][facts["product"]]["name"],
        "quantity": facts["quantity"],
        "paid": _euros(facts["paid"]),
        "day": facts["day"],
        "status": facts["status"],
    }


@write
def place_order(
    state: State, product: str, quantity: Annotated[int, Range(1, 10)], coupon: str = ""
) -> dict[str, Json]:
    """Order a product and pay from the credit. The order can be cancelled until it is shipped.

    Args:
        product: Product id, such as p1.
        quantity: How many, 1 to 10.
        coupon: Coupon code; empty for none.

    Example:
        {"product": "p1", "quantity": 2, "coupon": "WELCOME10"}
    """
    key, facts = _product(state, product)
    stock = _stock(state, key)
    if quantity > stock:
        left = f"only {stock} of {facts['name']!r} are in stock; order fewer" if stock else ""
        raise ToolError(left or f"{facts['name']!r} is out of stock; search for another product", status=409)
    total = _price(state, key) * quantity
    total -= _discount(state, coupon, total)
    if total > state["credit"]:
        raise ToolError(
            f"the order costs {total / 100:.2f} EUR and the credit is {state['credit'] / 100:.2f} EUR; order less",
            status=402,
        )
    if state["next"] > 1100 + _MOST_ORDERS:
        raise ToolError(
            f"the account has reached its limit of {_MOST_ORDERS} orders; no more can be placed", status=409
        )
    number = f"o{state['next']}"
    state["next"] += 1
    state["credit"] -= total
    state["taken"][key] = state["taken"].get(key, 0) + quantity
    state["orders"][number] = {
        "product": key,
        "quantity": quantity,
        "paid": total,
        "day": state["today"],
        "status": "processing",
    }
    return {
        "order": number,
        "product": key,
        "quantity": quantity,
        "total": _euros(total),
        "credit": _euros(state["credit"]),
        "status": "processing",
    }


@destructive
def cancel_order(state: State, order: str) -> dict[str, Json]:
    """Cancel an order that is not shipped yet; what was paid goes back to the credit.

    Args:
        order: Order id, such as o1001.

    Example:
        {"order": "o1001"}
    """
    key, facts = _order(state, order)
    if facts["status"] != "processing":
        remedies = {"shipped": "ask for a refund once it is delivered", "delivered": "use request_refund"}
        remedy = remedies.get(facts["status"], "there is nothing left to do")
        raise ToolError(f"{key!r} is {facts['status']} and cannot be cancelled; {remedy}", status=409)
    return _pay_back(state, key, facts, "cancelled")


@destructive
def request_refund(state: State, order: str, reason: Literal["damaged", "wrong item", "not needed"]) -> dict[str, Json]:
    """Send a delivered order back and get the money back to the credit.

    Args:
        order: Order id, such as o1001.
        reason: Why it is sent back.

    Example:
        {"order": "o1003", "reason": "damaged"}
    """
    key, facts = _order(state, order)
    if facts["status"] != "delivered":
        remedies = {"processing": "use cancel_order", "shipped": "wait until it is delivered"}
        remedy = remedies.get(facts["status"], "its money has gone back already")
        raise ToolError(f"{key!r} is {facts['status']} and cannot be refunded; {remedy}", status=409)
    age = (date.fromisoformat(state["today"]) - date.fromisoformat(facts["day"])).days
    if age > _RETURN_DAYS:
        raise ToolError(
            f"{key!r} was ordered {age} days ago; refunds are given for {_RETURN_DAYS} days only", status=422
        )
    return {**_pay_back(state, key, facts, "refunded", reason), "reason": reason}


def _pay_back(state: State, key: str, facts: Order, status: str, reason: str = "cancelled") -> dict[str, Json]:
    """The order's end: its money goes back to the credit, and what is not damaged back to the stock."""
    state["orders"][key] = {**facts, "status": status}
    state["credit"] += facts["paid"]
    if reason != "damaged":
        state["taken"][facts["product"]] = state["taken"].get(facts["product"], 0) - facts["quantity"]
    return {"order": key, "refund": _euros(facts["paid"]), "credit": _euros(state["credit"]), "status": status}


def _discount(state: State, coupon: str, total: int) -> int:
    """Cents that a coupon takes off; it is used up by this."""
    code = coupon.strip().upper()
    if not code:
        return 0
    facts = state["coupons"].get(code)
    if facts is None:
        raise ToolError(f"there is no coupon {coupon[:60]!r}{did_you_mean(code, list(state['coupons']))}", status=404)
    if code in state["used_coupons"]:
        raise ToolError(f"the coupon {code} has been used; order without it", status=409)
    if facts["until"] < state["today"]:
        raise ToolError(f"the coupon {code} ended on {facts['until']}; order without it", status=422)
    if total < facts["least"]:
        raise ToolError(
            f"the coupon {code} needs an order of {facts['least'] / 100:.2f} EUR; order more, or without it", status=422
        )
    state["used_coupons"] = sorted([*state["used_coupons"], code])
    return int(total * facts["percent"]) // 100


def _draw(state: State, *key: object) -> Random:
    """Random numbers that depend on the seed and `key` only."""
    return Random("/".join(map(str, (state["seed"], "shop", *key))))


def _price(state: State, product: str) -> int:
    """Cents; within a tenth of the usual price, in steps of ten."""
    usual: int = state["products"][product]["price"]
    return round(usual * _draw(state, "price", product).uniform(0.9, 1.1) / 10) * 10


def _stock(state: State, product: str) -> int:
    low, high = state["products"][product]["stock"]
    return _draw(state, "stock", product).randint(low, high) - int(state["taken"].get(product, 0))


def _orders(state: State) -> dict[str, Order]:
    """Every order: the older ones drawn from the seed, and over them what the state holds."""
    return {**_drawn_orders(state), **state["orders"]}


def _drawn_orders(state: State) -> dict[str, Order]:
    draw = _draw(state, "orders")
    today = date.fromisoformat(state["today"])
    orders: dict[str, Order] = {}
    for at in range(_OLD_ORDERS):
        age = draw.randint(1, 90)
        product, quantity = draw.choice(list(state["products"])), draw.randint(1, 3)
        orders[f"o{1006 + at}"] = {
            "product": product,
            "quantity": quantity,
            "paid": _price(state, product) * quantity,
            "day": (today - timedelta(days=age)).isoformat(),
            "status": "processing" if age < 3 else "shipped" if age < 7 else "delivered",
        }
    return orders


def _product(state: State, product: str) -> tuple[str, dict[str, Any]]:
    """The product's id as it is kept, and its facts."""
    key = product.strip().lower()
    facts = state["products"].get(key)
    if facts is None:
        raise ToolError(f"there is no product {product[:60]!r}; search_products finds product ids", status=404)
    return key, facts


def _order(state: State, order: str) -> tuple[str, Order]:
    key = order.strip().lower()
    facts = _orders(state).get(key)
    if facts is None:
        raise ToolError(f"there is no order {order[:60]!r}; list_orders shows order ids", status=404)
    return key, facts


def _words(text: str) -> set[str]:
    """Words without plural endings."""
    words = _WORD.findall(text[:400].lower())
    return {word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith("ss") else word for word in words}


def _euros(cents: int) -> int | float:
    return cents // 100 if cents % 100 == 0 else cents / 100
