"""A bank for one customer: accounts, payees, cards, and transfers that are prepared first and confirmed with a code."""

from __future__ import annotations

import difflib
import re
from datetime import date, timedelta
from decimal import Decimal
from random import Random
from typing import Annotated, Any, Literal

from agentft.errors import ToolError
from agentft.toolset import Range, State, destructive, read, write
from agentft.types import Json

BASE_URL = "http://bank.test"
COMPARATORS = {
    **dict.fromkeys(("account_balance.account", "list_transactions.account", "spending_total.account"), "casefold"),
    **dict.fromkeys(("prepare_transfer.source", "prepare_transfer.target", "set_daily_limit.account"), "casefold"),
    **dict.fromkeys(("find_payee.name", "block_card.card"), "casefold"),
    "add_payee.iban": "spaceless",
}

_IBAN = re.compile(r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}", re.ASCII)
_MOST_OPEN = 10
_MOST_PAYEES = 50


@read
def list_accounts(state: State) -> dict[str, Json]:
    """List the customer's accounts with their balances.

    Example:
        {}
    """
    shown = [
        f"{key} {account['name']} {_balance(state, key) / 100:.2f}{' (frozen)' * (account['status'] == 'frozen')}"
        for key, account in state["accounts"].items()
    ]
    return {"count": len(shown), "accounts": "; ".join(shown), "currency": state["currency"]}


@read
def account_balance(state: State, account: str) -> dict[str, Json]:
    """Get the balance of an account, and how much it may still send to payees today.

    Args:
        account: Account id or name.

    Example:
        {"account": "checking"}
    """
    key = _find(state, "accounts", account)
    return {
        "account": key,
        "name": state["accounts"][key]["name"],
        "balance": _euros(_balance(state, key)),
        "currency": state["currency"],
        "status": state["accounts"][key]["status"],
        "left_today": _euros(max(0, _left_today(state, key))),
    }


@read
def list_transactions(state: State, account: str, count: Annotated[int, Range(1, 5)]) -> dict[str, Json]:
    """List the newest movements of an account; money going out is negative.

    Args:
        account: Account id or name.
        count: How many, 1 to 5.

    Example:
        {"account": "checking", "count": 3}
    """
    key = _find(state, "accounts", account)
    names = {**state["accounts"], **state["payees"]}
    moves: list[str] = []
    for transfer in state["transfers"].values():
        if transfer["status"] != "sent" or key not in {transfer["from"], transfer["to"]}:
            continue
        out = transfer["from"] == key
        cents = -transfer["cents"] - transfer["fee"] if out else transfer["cents"]
        moves.insert(0, f"{state['today']} {names[transfer['to' if out else 'from']]['name']} {cents / 100:+.2f}")
    moves += [f"{day} {shop} {-cents / 100:+.2f}" for day, _, shop, cents in _history(state, key)]
    shown = moves[:count]
    return {"account": key, "count": len(shown), "transactions": "; ".join(shown) or "none in the last 30 days"}


@read
def spending_total(
    state: State,
    account: str,
    category: Literal["groceries", "dining", "transport", "housing", "leisure"],
    days: Annotated[int, Range(1, 30)],
) -> dict[str, Json]:
    """Add up what an account spent on a category in the last days.

    Args:
        account: Account id or name.
        category: Kind of spending.
        days: How many days back, 1 to 30.

    Example:
        {"account": "checking", "category": "groceries", "days": 30}
    """
    key = _find(state, "accounts", account)
    first = (date.fromisoformat(state["today"]) - timedelta(days=days)).isoformat()
    spent = [cents for day, kind, _, cents in _history(state, key) if kind == category and day >= first]
    return {
        "account": key,
        "category": category,
        "days": days,
        "total": _euros(sum(spent)),
        "purchases": len(spent),
        "currency": state["currency"],
    }


@read
def find_payee(state: State, name: str) -> dict[str, Json]:
    """Find a saved payee, to whom money can be sent.

    Args:
        name: Payee's name or id.

    Example:
        {"name": "Greta Lindqvist"}
    """
    key = _find(state, "payees", name)
    payee = state["payees"][key]
    return {"payee": key, "name": payee["name"], "iban": payee["iban"]}


@write
def add_payee(state: State, name: str, iban: str) -> dict[str, Json]:
    """Save a new payee, to whom money can be sent afterwards.

    Args:
        name: Payee's full name.
        iban: Payee's IBAN.

    Example:
        {"name": "Luca Bianchi", "iban": "IT60X0542811101000000123456"}
    """
    clean, number = " ".join(name.split()), "".join(iban.split()).upper()
    if not 2 <= len(clean) <= 60 or not clean.isprintable():
        raise ToolError("the name must have 2 to 60 printable characters", status=422)
    if not _IBAN.fullmatch(number) or _checksum(number) != 1:
        raise ToolError(f"{iban[:40]!r} is not a valid IBAN; its check digits must fit, ask for it again", status=422)
    for key, payee in state["payees"].items():
        if payee["iban"] == number or payee["name"].casefold() == clean.casefold():
            raise ToolError(f"this payee is already saved as {key} ({payee['name']}, {payee['iban']})", status=409)
    if any(clean.casefold() in {key.casefold(), facts["name"].casefold()} for key, facts in state["accounts"].items()):
        raise ToolError(f"{clean!r} is one of the customer's own accounts; use it without saving it", status=409)
    if len(state["payees"]) >= _MOST_PAYEES:
        raise ToolError(f"there are {_MOST_PAYEES} payees already and no more can be saved", status=409)
    key = f"P-{len(state['payees']) + 1:02d}"
    state["payees"][key] = {"name": clean, "iban": number, "received": 0}
    return {"payee": key, "name": clean, "iban": number, "status": "saved"}


@write
def prepare_transfer(
    state: State, source: str, target: str, amount: float, speed: Literal["standard", "instant"] = "standard"
) -> dict[str, Json]:
    """Prepare a transfer: get its id, its fee and the code that confirm_transfer needs. No money moves yet.

    Args:
        source: Account to send from, id or name.
        target: Payee or own account to send to, id or name.
        amount: Euros to send.
        speed: Standard, or instant for a fee.

    Example:
        {"source": "checking", "target": "Greta Lindqvist", "amount": 120, "speed": "standard"}
    """
    sender, receiver = _find(state, "accounts", source), _find_target(state, target)
    if sender == receiver:
        raise ToolError(f"source and target are both {sender}; choose two different accounts", status=422)
    cents = _cents(amount)
    fee = max(50, round(cents * 0.005)) if speed == "instant" and receiver in state["payees"] else 0
    _check_funds(state, sender, receiver, cents, fee)
    waiting = [key for key, transfer in state["transfers"].items() if transfer["status"] == "prepared"]
    if len(waiting) >= _MOST_OPEN:
        raise ToolError(
            f"{len(waiting)} transfers wait already; confirm or cancel one, such as {waiting[0]}", status=409
        )
    key = f"T-{4821 + len(state['transfers'])}"
    code = f"{_draw(state, 'code', key, sender, receiver, cents).randrange(1_000_000):06d}"
    facts: dict[str, Json] = {"from": sender, "to": receiver, "cents": cents, "fee": fee, "status": "prepared"}
    state["transfers"][key] = {**facts, "code": code}
    return {
        "transfer": key,
        "source": sender,
        "target": receiver,
        "fee": _euros(fee),
        "total": _euros(cents + fee),
        "code": code,
    }


@destructive
def confirm_transfer(state: State, transfer: str, code: str) -> dict[str, Json]:
    """Send the money of a prepared transfer. This cannot be undone.

    Args:
        transfer: Id of the prepared transfer.
        code: Its six-digit confirmation code.

    Example:
        {"transfer": "T-4821", "code": "307194"}
    """
    key, facts = _waiting(state, transfer)
    if code.strip() != facts["code"]:
        raise ToolError(f"the code does not fit {key}; use the code that was given for this transfer", status=403)
    sender, receiver, cents, fee = facts["from"], facts["to"], facts["cents"], facts["fee"]
    _check_funds(state, sender, receiver, cents, fee)
    state["accounts"][sender]["moved"] -= cents + fee
    state["fees"] += fee
    if receiver in state["accounts"]:
        state["accounts"][receiver]["moved"] += cents
    else:
        state["payees"][receiver]["received"] += cents
    facts["status"] = "sent"
    balance = _euros(_balance(state, sender))
    return {"transfer": key, "status": "sent", "amount": _euros(cents), "target": receiver, "balance": balance}


@destructive
def cancel_transfer(state: State, transfer: str) -> dict[str, Json]:
    """Cancel a prepared transfer that was not confirmed yet.

    Args:
        transfer: Id of the prepared transfer.

    Example:
        {"transfer": "T-4821"}
    """
    key, facts = _waiting(state, transfer)
    facts["status"] = "cancelled"
    return {"transfer": key, "status": "cancelled", "amount": _euros(facts["cents"])}


@write
def set_daily_limit(state: State, account: str, amount: float) -> dict[str, Json]:
    """Set how much an account may send to payees in one day.

    Args:
        account: Account id or name.
        amount: New limit in euros.

    Example:
        {"account": "checking", "amount": 3000}
    """
    key = _find(state, "accounts", account)
    _check_active(state, key)
    cents = _cents(amount)
    if cents > state["largest_limit"]:
        raise ToolError(
            f"the largest limit is {state['largest_limit'] / 100:.2f} a day; choose a lower one", status=422
        )
    state["accounts"][key]["daily_limit"] = cents
    return {"account": key, "daily_limit": _euros(cents), "left_today": _euros(max(0, _left_today(state, key)))}


@destructive
def block_card(state: State, card: str, reason: Literal["lost", "stolen", "damaged"]) -> dict[str, Json]:
    """Block a card for good. It cannot be unblocked.

    Args:
        card: Card id or name.
        reason: Why it is blocked.

    Example:
        {"card": "travel card", "reason": "lost"}
    """
    key = _find(state, "cards", card)
    facts = state["cards"][key]
    if facts["status"] == "blocked":
        raise ToolError(f"{key} ({facts['name']}) is blocked already", status=409)
    facts |= {"status": "blocked", "reason": reason}
    return {"card": key, "name": facts["name"], "last_digits": facts["last_digits"], "status": "blocked"}


def _find(state: State, kind: str, wanted: str) -> str:
    """The id of an account, a payee or a card, by id or name, whatever the case."""
    names: dict[str, str] = {facts["name"].casefold(): key for key, facts in state[kind].items()}
    names |= {key.casefold(): key for key in state[kind]}
    asked = " ".join(wanted.casefold().split())
    if asked in names:
        return names[asked]
    close = difflib.get_close_matches(asked[:60], list(names), n=1, cutoff=0.7)
    known = ", ".join(facts["name"] for facts in list(state[kind].values())[:8])
    hint = f"did you mean {state[kind][names[close[0]]]['name']!r}?" if close else f"known: {known[:160]}"
    raise ToolError(f"there is no {kind[:-1]} {wanted[:40]!r}; {hint}", status=404)


def _find_target(state: State, wanted: str) -> str:
    """A payee or an own account; what is neither is told as an unknown payee."""
    try:
        return _find(state, "accounts", wanted)
    except ToolError:
        return _find(state, "payees", wanted)


def _waiting(state: State, transfer: str) -> tuple[str, dict[str, Any]]:
    key = transfer.strip().upper()
    transfers: dict[str, dict[str, Any]] = state["transfers"]
    if key not in transfers:
        raise ToolError(f"there is no transfer {transfer[:40]!r}; prepare_transfer gives the id", status=404)
    if transfers[key]["status"] != "prepared":
        raise ToolError(f"{key} is {transfers[key]['status']} already; prepare a new transfer", status=409)
    return key, transfers[key]


def _check_funds(state: State, sender: str, receiver: str, cents: int, fee: int) -> None:
    _check_active(state, sender)
    balance, left = _balance(state, sender), _left_today(state, sender)
    if cents + fee > balance:
        raise ToolError(
            f"{sender} holds {balance / 100:.2f} and {(cents + fee) / 100:.2f} are needed; "
            "lower the amount or use another account",
            status=402,
        )
    if receiver in state["payees"] and cents > left:
        raise ToolError(
            f"{cents / 100:.2f} is over the daily limit of {sender}, {max(0, left) / 100:.2f} are left today; "
            "lower the amount, or set a higher limit if the customer agrees",
            status=422,
        )


def _check_active(state: State, account: str) -> None:
    if state["accounts"][account]["status"] == "frozen":
        raise ToolError(f"{account} is frozen and only a branch can open it; use another account", status=403)


def _left_today(state: State, account: str) -> int:
    sent = sum(
        int(transfer["cents"])
        for transfer in state["transfers"].values()
        if transfer["status"] == "sent" and transfer["from"] == account and transfer["to"] in state["payees"]
    )
    return int(state["accounts"][account]["daily_limit"]) - sent


def _balance(state: State, account: str) -> int:
    """In cents: what the seed gave, and what the session moved."""
    low, high = state["accounts"][account]["opening"]
    return _draw(state, "opening", account).randint(low * 100, high * 100) + int(state["accounts"][account]["moved"])


def _history(state: State, account: str) -> list[tuple[str, str, str, int]]:
    """Day, category, shop and cents of the last 30 days, newest first, before today. Money coming in is negative."""
    habits: list[str] = state["accounts"][account]["habits"]
    today = date.fromisoformat(state["today"])
    history: list[tuple[str, str, str, int]] = []
    for back in range(1, 31):
        day = (today - timedelta(days=back)).isoformat()
        draw = _draw(state, "history", account, day)
        for _ in range(draw.choice((0, 1, 1, 2)) if habits != ["interest"] else int(day.endswith("-01"))):
            kind = draw.choice(habits) if habits else ""
            if kind:
                shop, low, high = draw.choice(state["merchants"][kind])
                history.append((day, kind, shop, draw.randint(low * 100, high * 100)))
    return history


def _draw(state: State, *key: object) -> Random:
    """Random numbers that depend on the seed, the date and `key` only."""
    return Random("/".join(map(str, (state["seed"], state["today"], *key))))


def _cents(amount: float) -> int:
    if not 0 < amount <= 1_000_000:
        raise ToolError("the amount must be more than 0 and at most 1000000 euros", status=422)
    cents = Decimal(str(amount)) * 100
    if cents != int(cents):
        raise ToolError(f"{amount} has more than two decimals; round it to cents", status=422)
    return int(cents)


def _euros(cents: int) -> int | float:
    return cents // 100 if cents % 100 == 0 else cents / 100


def _checksum(iban: str) -> int:
    """ISO 13616: a valid IBAN gives 1."""
    return int("".join(str(int(letter, 36)) for letter in iban[4:] + iban[:4])) % 97
