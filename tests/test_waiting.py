"""No test fails because the machine is slow: what must succeed has minutes, and no test has a limit of wall time."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.waiting import wait_until

TESTS = Path(__file__).parent
FILES = sorted(path for path in TESTS.rglob("*.py") if "bench" not in path.parts)
LEAST = 30
NETWORK = re.compile(r"httpx2?\.(get|post|put|request|stream|Client|AsyncClient)|socket\.create_connection")
WAITS = re.compile(r"subprocess\.(run|check_output)|.*\.(wait|communicate|result|join)|asyncio\.wait_for")
CLOCK = re.compile(r"\b(monotonic|perf_counter|time\.time)\(\)")


def impatient(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Requests and waits that have less than `LEAST` seconds or httpx's default of 5, and upper limits of wall time."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            given = [keyword.value for keyword in node.keywords if keyword.arg == "timeout"]
            if NETWORK.fullmatch(name) and not given:
                yield node.lineno, f"{name} without timeout"
            given += node.args[-1:] if re.fullmatch(r".*\.(wait|result|join|wait_for)", name) else []
            if NETWORK.fullmatch(name) or WAITS.fullmatch(name):
                yield from (
                    (one.lineno, f"{name} {number:g}") for one in given if 0 < (number := constant(one)) < LEAST
                )
        if isinstance(node, ast.Compare) and CLOCK.search(ast.unparse(node)):
            for op, right in zip(node.ops, node.comparators, strict=True):
                if isinstance(op, ast.Lt | ast.LtE) and 0 < constant(right) < LEAST:
                    yield node.lineno, ast.unparse(node)


def constant(node: ast.AST) -> float:
    """A number; 0 for anything else."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int | float) else 0


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(TESTS)) for path in FILES])
def test_what_must_succeed_has_time(path: Path) -> None:
    assert list(impatient(ast.parse(path.read_text(encoding="utf-8")))) == []


def test_the_search_finds_every_kind_of_haste() -> None:
    code = """
httpx.get("http://x")
httpx.Client(timeout=5)
subprocess.run([], timeout=20)
process.wait(timeout=20)
thread.join(5)
event.wait(0.5)
await asyncio.wait_for(process.wait(), 10)
assert 0.5 <= time.monotonic() - began < 3
assert time.perf_counter() - began < 0.3
", ".join([])
httpx.get("http://x", timeout=60)
event.wait()
"""
    assert sorted(line for line, _ in impatient(ast.parse(code))) == [2, 3, 4, 5, 6, 7, 8, 9, 10]


def test_waiting_ends() -> None:
    left = [1, 2, 3]
    wait_until(lambda: left.pop() == 1)
    assert left == []
    with pytest.raises(AssertionError, match=r"not true within 0\.01 seconds"):
        wait_until(lambda: False, 0.01)
