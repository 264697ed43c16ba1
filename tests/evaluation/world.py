"""A tiny tool world and suite, written to a folder: two tools over one list, and a tool that crashes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agentft.evaluation.plan import Plan, make_plan
from agentft.evaluation.suites import load_suite
from agentft.toolset import load_toolset

TOOLS = '''
from __future__ import annotations

from agentft.errors import ToolError
from agentft.toolset import State, read, write
from agentft.types import Json

BASE_URL = "http://shop.test"


@read
def price(state: State, item: str) -> dict[str, Json]:
    """The price of an item.

    Args:
        item: its name.

    Example:
        {"item": "tea"}
    """
    if item == "bomb":
        raise RuntimeError("boom")
    prices = state["prices"]
    if item not in prices:
        raise ToolError(f"no item {item!r}; did you mean 'tea'?", status=404)
    return {"item": item, "price": prices[item]}


@write
def order(state: State, item: str, count: int) -> dict[str, Json]:
    """Order an item.

    Args:
        item: its name.
        count: how many.

    Example:
        {"item": "tea", "count": 2}
    """
    state["orders"].append([item, count])
    return {"item": item, "count": count, "orders": len(state["orders"])}
'''
STATE = {"prices": {"tea": 2.5, "cake": 1200}, "orders": []}


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


CASES: list[dict[str, Any]] = [
    {
        "id": "s1",
        "category": "single",
        "turns": [{"user": "Price of tea?", "calls": [call("price", item="tea")], "answer": ["2.5"]}],
    },
    {
        "id": "s2",
        "category": "single",
        "turns": [{"user": "Order two teas.", "calls": [call("order", item="tea", count=2)]}],
    },
    {
        "id": "p1",
        "category": "parallel",
        "lang": "zh",
        "turns": [
            {
                "user": "茶和蛋糕多少钱？",
                "calls": [call("price", item="tea"), call("price", item="cake")],
                "answer": ["1,200", "2.5"],
            }
        ],
    },
    {
        "id": "m1",
        "category": "missing_parameter",
        "turns": [{"user": "Order tea."}, {"user": "Three.", "calls": [call("order", item="tea", count=3)]}],
    },
    {"id": "i1", "category": "irrelevance", "turns": [{"user": "Write a poem."}]},
    {
        "id": "e1",
        "category": "tool_error",
        "turns": [
            {"user": "Price of tee?", "failing": 1, "calls": [call("price", item="tee"), call("price", item="tea")]}
        ],
    },
    {
        "id": "r1",
        "category": "multi_round",
        "turns": [
            {
                "user": "Price of tea, then order one.",
                "calls": [call("price", item="tea"), call("order", item="tea", count=1)],
            }
        ],
    },
]


def write_world(root: Path) -> str:
    folder = root / "shop"
    folder.mkdir(exist_ok=True)
    (folder / "tools.py").write_text(TOOLS)
    (folder / "state.json").write_text(json.dumps(STATE))
    (folder / "README.md").write_text("A shop.\n")
    return str(folder)


def write_suite(root: Path, cases: list[dict[str, Any]] | None = None, head: Mapping[str, str] | None = None) -> str:
    folder = root / "shopping"
    folder.mkdir(exist_ok=True)
    (folder / "suite.toml").write_text('name = "shopping"\npersona = "You run a shop."\nworlds = ["shop"]\n')
    rows = [{"lang": "en", **case} for case in (CASES if cases is None else cases)]
    (folder / "cases.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return str(folder)


def small_plan(root: Path, cases: list[dict[str, Any]] | None = None, **options: Any) -> Plan:
    return make_plan([load_suite(write_suite(root, cases))], [load_toolset(write_world(root))], **options)
