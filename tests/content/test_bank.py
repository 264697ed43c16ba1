"""The bank: no transfer without its code, no overdrawn account, and money is conserved."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentft.errors import ToolError
from agentft.toolset import State, load_toolset
from agentft.toolset.state import copy_json
from agentft.types import Json

BANK = load_toolset("bank", seed=11)
ACCOUNTS = ("ACC-1001", "ACC-1002", "ACC-1003", "ACC-1004")


def ask(state: State, tool: str, /, **arguments: Json) -> dict[str, Any]:
    result = BANK.call(tool, arguments, state)
    assert isinstance(result, dict)
    return result


def refusal(state: State, tool: str, /, **arguments: Json) -> tuple[int, str]:
    before = BANK.digest(state)
    with pytest.raises(ToolError) as caught:
        BANK.call(tool, arguments, state)
    assert BANK.digest(state) == before
    return caught.value.status, str(caught.value)


def balance(state: State, account: str) -> float:
    value: float = ask(state, "account_balance", account=account)["balance"]
    return value


def send(state: State, source: str, target: str, amount: float, speed: str = "standard") -> dict[str, Any]:
    prepared = ask(state, "prepare_transfer", source=source, target=target, amount=amount, speed=speed)
    return ask(state, "confirm_transfer", transfer=prepared["transfer"], code=prepared["code"])


def test_the_tools_and_their_marks() -> None:
    assert BANK.base_url == "http://bank.test"
    marks = {name: tool.access for name, tool in BANK.tools.items()}
    assert [name for name, access in marks.items() if access == "destructive"] == [
        "confirm_transfer",
        "cancel_transfer",
        "block_card",
    ]
    assert [name for name, access in marks.items() if access == "write"] == [
        "add_payee",
        "prepare_transfer",
        "set_daily_limit",
    ]
    assert len(marks) == 11


@pytest.mark.parametrize("seed", range(20))
def test_every_example_runs_with_every_seed(seed: int) -> None:
    for name, tool in BANK.tools.items():
        BANK.call(name, tool.example, BANK.new_state(seed))


def test_another_seed_gives_another_balance_and_history() -> None:
    told = [
        (
            BANK.call("account_balance", {"account": "savings"}, BANK.new_state(seed)),
            BANK.call("list_transactions", {"account": "checking", "count": 5}, BANK.new_state(seed)),
        )
        for seed in range(10)
    ]
    assert len({str(balances) for balances, _ in told}) == 10
    assert len({str(moves) for _, moves in told}) == 10


@pytest.mark.parametrize("account", ["checking", "CHECKING", " acc-1001 ", "ACC-1001"])
def test_an_account_is_found_by_id_and_by_name(account: str) -> None:
    assert ask(copy_json(BANK.new_state()), "account_balance", account=account)["account"] == "ACC-1001"


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("account_balance", {"account": "chequing"}, "there is no account 'chequing'; did you mean 'checking'?"),
        (
            "account_balance",
            {"account": "gold"},
            "there is no account 'gold'; known: checking, savings, travel, old student account",
        ),
        (
            "find_payee",
            {"name": "Greta Lindquist"},
            "there is no payee 'Greta Lindquist'; did you mean 'Greta Lindqvist'?",
        ),
        (
            "block_card",
            {"card": "x", "reason": "lost"},
            "there is no card 'x'; known: debit card, travel card, old debit card",
        ),
        (
            "confirm_transfer",
            {"transfer": "T-1", "code": "0"},
            "there is no transfer 'T-1'; prepare_transfer gives the id",
        ),
    ],
)
def test_an_unknown_name_is_a_404_with_a_remedy(tool: str, arguments: dict[str, Json], message: str) -> None:
    assert refusal(copy_json(BANK.new_state()), tool, **arguments) == (404, message)


def test_transactions_are_newest_first_and_include_those_of_today() -> None:
    state = copy_json(BANK.new_state())
    before = ask(state, "list_transactions", account="checking", count=5)["transactions"].split("; ")
    days = [move[:10] for move in before]
    assert days == sorted(days, reverse=True)
    assert all("2026-09-12" <= day < "2026-10-12" for day in days)
    send(state, "checking", "Greta Lindqvist", 20, "instant")
    send(state, "checking", "travel", 10)
    after = ask(state, "list_transactions", account="checking", count=5)["transactions"].split("; ")
    assert after[:2] == ["2026-10-12 travel -10.00", "2026-10-12 Greta Lindqvist -20.50"]
    assert after[2:] == before[:3]
    assert ask(state, "list_transactions", account="travel", count=1)["transactions"] == "2026-10-12 checking +10.00"


def test_an_account_without_transactions_says_so() -> None:
    answer = ask(copy_json(BANK.new_state()), "list_transactions", account="old student account", count=5)
    assert answer == {"account": "ACC-1004", "count": 0, "transactions": "none in the last 30 days"}


def test_spending_grows_with_the_days_and_savings_buy_nothing() -> None:
    state = copy_json(BANK.new_state())
    totals = [
        ask(state, "spending_total", account="checking", category="groceries", days=days)["total"]
        for days in (1, 7, 14, 30)
    ]
    assert totals == sorted(totals)
    assert totals[-1] > 0
    assert ask(state, "spending_total", account="savings", category="groceries", days=30)["total"] == 0


# --- payees


def test_a_new_payee_can_be_paid() -> None:
    state = copy_json(BANK.new_state())
    added = ask(state, "add_payee", name=" Luca  Bianchi ", iban="it60 x054 2811 1010 0000 0123 456")
    assert added == {"payee": "P-08", "name": "Luca Bianchi", "iban": "IT60X0542811101000000123456", "status": "saved"}
    assert send(state, "savings", "luca bianchi", 12.5)["target"] == "P-08"
    assert state["payees"]["P-08"]["received"] == 1250


@pytest.mark.parametrize(
    "iban", ["IT61X0542811101000000123456", "", "IT60", "٣٤٥٦", "IT60X05428111010000001234567", "XX00"]
)
def test_an_iban_with_wrong_check_digits_is_a_422(iban: str) -> None:
    assert refusal(copy_json(BANK.new_state()), "add_payee", name="Luca Bianchi", iban=iban)[0] == 422


def test_a_payee_is_saved_once_and_is_not_an_account() -> None:
    iban = "IT60X0542811101000000123456"
    state = copy_json(BANK.new_state())
    assert refusal(state, "add_payee", name="Someone", iban="DE89 3704 0044 0532 0130 00") == (
        409,
        "this payee is already saved as P-03 (City Power and Gas, DE89370400440532013000)",
    )
    assert refusal(state, "add_payee", name="mateo ruiz", iban=iban)[0] == 409
    assert refusal(state, "add_payee", name="Savings", iban=iban)[0] == 409
    assert refusal(state, "add_payee", name="x\ny\x00", iban=iban)[0] == 422


def test_the_number_of_payees_is_limited() -> None:
    state = copy_json(BANK.new_state())
    for number in range(8, 51):
        state["payees"][f"P-{number:02d}"] = {"name": f"Payee {number}", "iban": str(number), "received": 0}
    status, message = refusal(state, "add_payee", name="One More", iban="IT60X0542811101000000123456")
    assert (status, message) == (409, "there are 50 payees already and no more can be saved")


# --- transfers


def test_only_confirming_a_transfer_moves_money() -> None:
    state = copy_json(BANK.new_state())
    start = balance(state, "checking")
    prepared = ask(state, "prepare_transfer", source="checking", target="P-02", amount=120.4, speed="instant")
    assert prepared["transfer"] == "T-4822"
    assert (prepared["fee"], prepared["total"]) == (0.6, 121)
    assert balance(state, "checking") == start
    sent = ask(state, "confirm_transfer", transfer="t-4822", code=prepared["code"])
    assert sent["balance"] == balance(state, "checking") == pytest.approx(start - 121)
    assert (state["payees"]["P-02"]["received"], state["fees"]) == (12040, 60)


def test_the_fee_of_instant_transfers() -> None:
    state = copy_json(BANK.new_state())
    fees = [
        ask(state, "prepare_transfer", source="checking", target=target, amount=5, speed="instant")["fee"]
        for target in ("P-02", "savings")
    ]
    assert fees == [0.5, 0]


def test_the_wrong_code_moves_nothing() -> None:
    state = copy_json(BANK.new_state())
    first = ask(state, "prepare_transfer", source="checking", target="P-02", amount=10)
    second = ask(state, "prepare_transfer", source="checking", target="P-02", amount=11)
    assert first["code"] != second["code"]
    for code in ("", "000000", second["code"], "307194", "x" * 10_000):
        status, message = refusal(state, "confirm_transfer", transfer=first["transfer"], code=code)
        assert (status, message) == (403, "the code does not fit T-4822; use the code that was given for this transfer")


def test_a_transfer_is_confirmed_or_cancelled_once() -> None:
    state = copy_json(BANK.new_state())
    ask(state, "confirm_transfer", transfer="T-4821", code="307194")
    again = (409, "T-4821 is sent already; prepare a new transfer")
    assert refusal(state, "confirm_transfer", transfer="T-4821", code="307194") == again
    assert refusal(state, "cancel_transfer", transfer="T-4821") == again
    other = copy_json(BANK.new_state())
    ask(other, "cancel_transfer", transfer="T-4821")
    assert refusal(other, "confirm_transfer", transfer="T-4821", code="307194")[0] == 409


def test_a_transfer_needs_sufficient_funds() -> None:
    state = copy_json(BANK.new_state())
    status, message = refusal(state, "prepare_transfer", source="travel", target="checking", amount=5000)
    assert status == 402
    assert message.endswith("and 5000.00 are needed; lower the amount or use another account")
    whole = balance(state, "travel")
    assert refusal(state, "prepare_transfer", source="travel", target="P-02", amount=whole, speed="instant")[0] == 402
    assert send(state, "travel", "checking", whole)["balance"] == 0


def test_funds_are_checked_again_when_a_transfer_is_confirmed() -> None:
    state = copy_json(BANK.new_state())
    whole = balance(state, "travel")
    waiting = ask(state, "prepare_transfer", source="travel", target="checking", amount=whole)
    send(state, "travel", "savings", 1)
    assert refusal(state, "confirm_transfer", transfer=waiting["transfer"], code=waiting["code"])[0] == 402


def test_the_daily_limit_applies_to_payees_but_not_to_own_accounts() -> None:
    state = copy_json(BANK.new_state())
    send(state, "savings", "P-02", 900)
    assert ask(state, "account_balance", account="savings")["left_today"] == 100
    status, message = refusal(state, "prepare_transfer", source="savings", target="P-03", amount=100.01)
    assert (status, message) == (
        422,
        "100.01 is over the daily limit of ACC-1002, 100.00 are left today; "
        "lower the amount, or set a higher limit if the customer agrees",
    )
    send(state, "savings", "checking", 1500)
    assert ask(state, "set_daily_limit", account="savings", amount=1200)["left_today"] == 300
    send(state, "savings", "P-03", 100.01)
    assert ask(state, "set_daily_limit", account="savings", amount=50)["left_today"] == 0
    assert refusal(state, "prepare_transfer", source="savings", target="P-03", amount=1)[0] == 422
    assert refusal(state, "set_daily_limit", account="savings", amount=5000.01) == (
        422,
        "the largest limit is 5000.00 a day; choose a lower one",
    )


def test_a_frozen_account_receives_money_but_sends_none() -> None:
    state = copy_json(BANK.new_state())
    start = balance(state, "old student account")
    send(state, "checking", "old student account", 30)
    assert balance(state, "old student account") == pytest.approx(start + 30)
    frozen = (403, "ACC-1004 is frozen and only a branch can open it; use another account")
    assert refusal(state, "prepare_transfer", source="old student account", target="checking", amount=1) == frozen
    assert refusal(state, "set_daily_limit", account="old student account", amount=1) == frozen


@pytest.mark.parametrize("amount", [0, -5, 0.001, 10.005, 999_999.999, 1_000_000.01, 1e300, 5e-324])
def test_an_amount_is_a_positive_number_of_whole_cents(amount: float) -> None:
    state = copy_json(BANK.new_state())
    assert refusal(state, "prepare_transfer", source="checking", target="savings", amount=amount)[0] == 422
    assert refusal(state, "set_daily_limit", account="checking", amount=amount)[0] == 422


def test_a_transfer_needs_two_accounts() -> None:
    message = "source and target are both ACC-1001; choose two different accounts"
    answer = refusal(copy_json(BANK.new_state()), "prepare_transfer", source="checking", target="acc-1001", amount=1)
    assert answer == (422, message)


def test_the_number_of_prepared_transfers_is_limited() -> None:
    state = copy_json(BANK.new_state())
    for _ in range(9):
        ask(state, "prepare_transfer", source="checking", target="savings", amount=1)
    message = "10 transfers wait already; confirm or cancel one, such as T-4821"
    assert refusal(state, "prepare_transfer", source="checking", target="savings", amount=1) == (409, message)
    ask(state, "cancel_transfer", transfer="T-4821")
    ask(state, "prepare_transfer", source="checking", target="savings", amount=1)


def test_a_card_is_blocked_once() -> None:
    state = copy_json(BANK.new_state())
    assert ask(state, "block_card", card="debit card", reason="stolen")["status"] == "blocked"
    assert refusal(state, "block_card", card="card-2201", reason="lost") == (
        409,
        "CARD-2201 (debit card) is blocked already",
    )
    assert refusal(state, "block_card", card="old debit card", reason="lost")[0] == 409


steps = st.tuples(
    st.sampled_from(ACCOUNTS),
    st.sampled_from([*ACCOUNTS, "P-01", "P-02", "nobody"]),
    st.integers(-100, 400_000).map(lambda cents: cents / 100),
    st.sampled_from(["standard", "instant"]),
    st.sampled_from(["right", "wrong", "twice", "never", "cancel"]),
)


def follow(state: State, source: str, target: str, amount: float, speed: str, then: str) -> None:
    prepared = ask(state, "prepare_transfer", source=source, target=target, amount=amount, speed=speed)
    transfer, code = prepared["transfer"], prepared["code"]
    if then == "cancel":
        ask(state, "cancel_transfer", transfer=transfer)
    elif then != "never":
        ask(state, "confirm_transfer", transfer=transfer, code=code if then != "wrong" else "nonsense")
    if then == "twice":
        ask(state, "confirm_transfer", transfer=transfer, code=code)


@settings(deadline=None, max_examples=60)
@given(st.lists(steps, max_size=12))
def test_money_is_conserved_and_no_account_is_overdrawn(walk: list[tuple[str, str, float, str, str]]) -> None:
    state = copy_json(BANK.new_state())
    for step in walk:
        try:
            follow(state, *step)
        except ToolError as error:
            assert error.status in {402, 403, 404, 409, 422}  # noqa: PT017  (refusals are part of the walk)
    moved = sum(account["moved"] for account in state["accounts"].values())
    received = sum(payee["received"] for payee in state["payees"].values())
    assert moved + received + state["fees"] == 0
    for account in ACCOUNTS:
        assert balance(state, account) >= 0
        sent = sum(
            transfer["cents"]
            for transfer in state["transfers"].values()
            if transfer["status"] == "sent" and transfer["from"] == account and transfer["to"] in state["payees"]
        )
        assert sent <= state["accounts"][account]["daily_limit"]
