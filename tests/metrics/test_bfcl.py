"""The BFCL verdict rule by rule, its decoder on hostile texts, and the comparison with the official code."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentft.evaluation.bfcl_data import BFCL_WHEEL, UNSOLVABLE
from agentft.metrics.bfcl import BfclEntry, Verdict, check_calls
from agentft.metrics.bfcl_text import decode_text
from agentft.models.wheels import cache_folder

MISSING, TYPE = "simple_function_checker:missing_required", "type_error:simple"
TEXT, OTHER, LIST = "value_error:string", "value_error:others", "value_error:list/tuple"
KEY, DICT = "value_error:dict_key", "value_error:dict_value"


def entry(
    declared: dict[str, Any], alternatives: Any, required: tuple[str, ...] = (), category: str = "simple_python"
) -> BfclEntry:
    """One function `f` with the parameter `a`."""
    parameters = {"type": "dict", "properties": {"a": declared}, "required": list(required)}
    return BfclEntry(category, ({"name": "f", "description": "", "parameters": parameters},), ({"f": alternatives},))


def verdict_of(asked: BfclEntry, calls: object) -> Verdict:
    """A verdict is valid exactly if it names no error."""
    verdict = check_calls(asked, calls)
    assert verdict.valid is not bool(verdict.error)
    return verdict


def error(declared: dict[str, Any], alternatives: list[Any], value: Any) -> str:
    return verdict_of(entry(declared, {"a": alternatives}), [{"f": {"a": value}}]).error


@pytest.mark.parametrize(
    ("kind", "alternatives", "value", "expected"),
    [
        ("integer", [5], 5, ""),
        ("integer", [5], 5.0, TYPE),
        ("integer", [1], True, TYPE),
        ("integer", [5, "five"], "five", TYPE),  # only the type of the first alternative counts
        ("integer", ["five", 5], "five", ""),
        ("integer", ["five", 5], "Five", OTHER),  # a variable is not normalised
        ("integer", [None], None, ""),
        ("float", [5.0], 5, ""),  # the only conversion
        ("float", [5.0], 5.1, OTHER),
        ("float", [float("nan")], float("nan"), OTHER),
        ("float", [5], 5.0, ""),
        ("boolean", [True], 1, TYPE),
        ("any", [5], 5, ""),
        ("any", ["x"], 5, TYPE),
        ("string", ["New York, NY"], "new-york ny", ""),
        ("string", ["-30"], "30", ""),
        ("string", ["it's"], 'it"s', ""),
        ("string", ["a"], "a\t", TEXT),
        ("string", ["", "a"], ".-", ""),  # equals the mark of an omitted parameter
        ("dict", [{"k": [1, 2]}], {"k": 2}, ""),
        ("dict", [{"k": [1]}], {"k": True}, ""),
        ("dict", [{"k": [1]}], {"k": 3}, DICT),
        ("dict", [{"k": ["A b"]}], {"k": "ab"}, ""),
        ("dict", [{"k": [1]}], {"z": 1}, KEY),
        ("dict", [{"k": [1], "m": [1]}], {"k": 3}, KEY),  # the missing key replaces the wrong value
        ("dict", [{"k": [1], "m": ["", 1]}], {"k": 1}, ""),
        ("dict", [{"k": [1]}], {"z": 1, "k": 3}, KEY),  # the first fault counts
        ("dict", [{"k": [1]}], {"k": 3, "z": 1}, DICT),
        ("dict", ["", {"k": [1]}], {"k": 1}, ""),
        ("dict", [""], {}, "dict_checker:unclear"),
        ("number", [1], 1, "checker_error"),
        ("array", [[1]], [1], "checker_error"),  # without items
    ],
)
def test_one_value(kind: str, alternatives: list[Any], value: Any, expected: str) -> None:
    assert error({"type": kind}, alternatives, value) == expected


@pytest.mark.parametrize(
    ("items", "alternatives", "value", "expected"),
    [
        ("integer", [[1, 2]], [1, 2], ""),
        ("integer", [[1, 2]], [2, 1], LIST),
        ("integer", [[1, 2]], [1, 2.0], "type_error:nested"),
        ("integer", [["x"]], ["x"], ""),
        ("integer", [""], [True], LIST),  # an omissible list has no check of its items
        ("string", [["A b"]], ["ab"], ""),
        ("string", ["", ["a"]], [], ""),
        ("float", [[1.0]], [1], "type_error:nested"),  # no conversion inside lists
        ("integer", [], [1], TYPE),
        ("dict", [[{"k": [1]}]], [{"k": 1}], ""),
        ("dict", [[{"k": [1]}]], [], "value_error:list_dict_count"),
        ("dict", [[{"k": [1]}]], [{"k": 2}], DICT),
        ("dict", ["", [{"k": [1]}]], ["q"], "checker_error"),
    ],
)
def test_one_list(items: str, alternatives: list[Any], value: Any, expected: str) -> None:
    assert error({"type": "array", "items": {"type": items}}, alternatives, value) == expected


def test_tuples_are_lists_only_where_a_tuple_is_declared() -> None:
    for kind, expected in (("tuple", ""), ("array", TYPE)):
        assert error({"type": kind, "items": {"type": "integer"}}, [[1, 2]], (1, 2)) == expected


@pytest.mark.parametrize(
    ("arguments", "expected", "pointer"),
    [
        ({}, MISSING, "/0/f/a"),
        ({"a": 1, "b": 2}, "simple_function_checker:unexpected_param", "/0/f/b"),
        ({"a": "1"}, TYPE, "/0/f/a"),
        ({"a": 1}, "", ""),
    ],
)
def test_parameters(arguments: dict[str, Any], expected: str, pointer: str) -> None:
    verdict = verdict_of(entry({"type": "integer"}, {"a": ["", 1]}, ("a",)), [{"f": arguments}])
    assert (verdict.error, verdict.pointer) == (expected, pointer)


def test_an_optional_parameter_that_the_reference_needs() -> None:
    verdict = verdict_of(entry({"type": "integer"}, {"a": [1]}), [{"f": {}}])
    assert verdict.error == "simple_function_checker:missing_optional"


def test_the_category_chooses_the_rule() -> None:
    call: dict[str, Any] = {"f": {"a": 1}}
    for category, kind in (
        ("live_simple", "simple_function_checker"),
        ("live_multiple", "multiple_function_checker"),
        ("parallel_multiple", "parallel_function_checker_no_order"),
    ):
        asked = entry({"type": "integer"}, {"a": [1]}, category=category)
        assert verdict_of(asked, [call]).valid
        assert verdict_of(asked, [call, call]).error == f"{kind}:wrong_count"
        assert verdict_of(asked, None).error == "ast_decoder:decoder_failed"
        assert verdict_of(asked, "f(a=1)").error == "ast_decoder:decoder_wrong_output_format"


def two_functions(category: str, *answers: dict[str, Any]) -> BfclEntry:
    """Functions `f` and `g`, each with the optional parameter `a`."""
    parameters = {"type": "dict", "properties": {"a": {"type": "integer"}}, "required": []}
    functions = tuple({"name": name, "description": "", "parameters": parameters} for name in ("f", "g"))
    return BfclEntry(category, functions, answers)


def test_multiple_takes_the_function_of_the_answer_and_simple_the_first() -> None:
    right, wrong = [{"g": {"a": 1}}], [{"f": {"a": 1}}]
    asked = two_functions("multiple", {"g": {"a": [1]}})
    assert verdict_of(asked, right).valid
    assert verdict_of(asked, wrong).error == "simple_function_checker:wrong_func_name"
    assert verdict_of(two_functions("simple_python", {"f": {"a": [1]}}), wrong).valid
    several = two_functions("multiple", {"g": {"a": [1]}}, {"f": {"a": [2]}})
    assert verdict_of(several, [*right, {"f": {"a": 3}}]).valid  # as many calls, but only the first is checked
    assert verdict_of(several, right).detail == "1 call instead of 2"
    simple = two_functions("simple_python", {"f": {"a": [1]}}, {"f": {"a": [2]}})
    assert verdict_of(simple, wrong).valid
    assert verdict_of(simple, wrong * 2).error == "simple_function_checker:wrong_count"


def test_the_fault_of_the_nearest_call_is_named() -> None:
    asked = two_functions("parallel_multiple", {"g": {"a": [1]}}, {"g": {"a": [1]}}, {"g": {"a": [1]}})
    verdict = verdict_of(asked, [{"f": {}}, {"g": {"a": 2}}, {"f": {}}])
    assert verdict.pointer == "/1/g/a"
    assert verdict_of(asked, [{"f": {}}, {"h": {}}, {"f": {}}]).pointer == "/0/f"
    assert verdict_of(asked, [{"g": {"a": 3}}, {"g": {}}, {"f": {}}]).pointer == "/0/g/a"


def test_what_the_official_checker_cannot_check_is_an_error_of_its_own() -> None:
    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    integer: dict[str, Any] = {"type": "integer"}
    for asked, value, raised in (
        (BfclEntry("multiple", (), ({"f": {}},)), 1, "TypeError"),
        (BfclEntry("simple_python", (), ({"f": {}},)), 1, "IndexError"),
        (BfclEntry("simple_python", ({"name": "f"},), ({"f": {}},)), 1, "KeyError"),
        (entry({"type": "dict"}, {"a": [{"k": [deep]}]}), {"k": deep[0]}, "RecursionError"),
        (entry({"type": "array", "items": {"type": "dict"}}, {"a": [["x"]]}), ["y"], "AttributeError"),
        (entry(integer, {"a": 1}), 1, "TypeError"),
    ):
        verdict = verdict_of(asked, [{"f": {"a": value}}])
        assert (verdict.error, raised in verdict.detail) == ("checker_error", True), verdict


def test_parameters_must_be_declared_and_in_the_reference() -> None:
    asked = entry({"type": "integer"}, {"a": [1], "b": ["", 1]})
    assert verdict_of(asked, [{"f": {"a": 1, "b": 1}}]).pointer == "/0/f/b"
    undeclared = entry({"type": "integer"}, {"b": [""]})
    assert verdict_of(undeclared, [{"f": {"a": 1}}]).pointer == "/0/f/a"


def test_parallel_calls_are_taken_greedily() -> None:
    asked = entry({"type": "string"}, {"a": ["x", "y"]}, category="parallel")
    asked = BfclEntry(asked.category, asked.functions, ({"f": {"a": ["x", "y"]}}, {"f": {"a": ["x"]}}))
    x, y = {"f": {"a": "x"}}, {"f": {"a": "y"}}
    assert verdict_of(asked, [y, x]).valid
    verdict = verdict_of(asked, [x, y])
    assert verdict.error == "parallel_function_checker_no_order:cannot_find_match"
    assert verdict.pointer == "/1/f/a"


@pytest.mark.parametrize("calls", [None, [], "text", [{}], [{"f": 1}], [{"f": {}, "g": {}}]])
def test_what_is_no_call_is_abstention(calls: object) -> None:
    assert verdict_of(BfclEntry("live_irrelevance", ()), calls).valid
    assert verdict_of(BfclEntry("live_relevance", ()), calls).error == "relevance_error:decoder_failed"


def test_any_call_is_relevance() -> None:
    assert verdict_of(BfclEntry("irrelevance", ()), [{"f": {}}]).error == "irrelevance_error:decoder_success"
    assert verdict_of(BfclEntry("live_relevance", ()), [{"f": {}}]).valid


@pytest.mark.parametrize(
    ("text", "calls"),
    [
        ("[f(a=1)]", [{"f": {"a": 1}}]),
        ("f(a=1), m.g(b='x')", [{"f": {"a": 1}}, {"m.g": {"b": "x"}}]),
        ("```f(a=1)```", [{"f": {"a": 1}}]),
        ("[f(1)]", [{"f": {}}]),
        ("[f(a=+1, b=~1, c=not True, d=-2.5)]", [{"f": {"a": -1, "b": -1, "c": -1, "d": -2.5}}]),
        ("[f(a=x, b=g(b=1), c=g(1))]", [{"f": {"a": "x", "b": {"g": {"b": 1}}, "c": "g(1)"}}]),
        ("[f(a=x[0], b=x[1, 2], c='\\d')]", [{"f": {"a": "x[0]", "b": "x[(1, 2)]", "c": "\\d"}}]),
        ("[f(a=(1, 'b'), b={'c': [None, ...]})]", [{"f": {"a": (1, "b"), "b": {"c": [None, "..."]}}}]),
        ("[f(**x)]", [{"f": {None: "x"}}]),
        ("", []),
        ("[]", []),
    ],
)
def test_texts_that_are_decoded(text: str, calls: list[Any]) -> None:
    assert decode_text(text) == calls


HOSTILE = [
    "[f(a=[].__len__() + len('abc'))]",
    "[f(a=__import__('os').system('touch {canary}') + 1)]",
    "[f(a=1 + exec('raise SystemExit'))]",
    "[f(a=9 ** 9 ** 9)]",
    "[f(a='x' * 10**12)]",
    "[f(a=1 << 10**9)]",
    "[f(a=(lambda: open('{canary}', 'w'))())] + [1]",
    "[f(a=lambda: open('{canary}', 'w'))]",
    "[f(a=-g())]",
    "[f(a=--1)]",
    "[f(a=-'x')]",
    "[f(a=[open('{canary}', 'w') for _ in '1'])]",
    "[f(a=(x := 1))]",
    "[f(a=f'{open(1)}')]",
    "[f(a={**x})]",
    "[f(a={[]: 1})]",
    "[f(a=b.c)]",
    "[f(a=1 if x else 2)]",
    "[f(a=1 < 2)]",
    "[f(a=*x)]",
    "[f() for _ in iter(int, 1)]",
    "[1]",
    "abc",
    "I cannot help with that.",
    "```python\nf(a=1)\n```",
    "<think>x</think>[f(a=1)]",
    "[f(a=1)] trailing",
    "[f(a=1)]\n\n[g()]",
    "f(a=1)\ng(b=2)",
    "\0",
    "[f(a=" + "9" * 5000 + ")]",
    "[f(a=" + "(" * 5000 + ")]",
    "[f(a=" + "-" * 100_000 + "1)]",
    "[f(a=x" + ".b" * 5000 + "())]",
    "[f(a=x" + ".b" * 900 + "())]",  # parsed, but too deep to be written again
    "[f(a=" + "[" * 150 + "]" * 150 + "",
    "[f(a='\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_are_not_decoded_and_never_executed(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = tmp_path / "canary"
    audited: list[str] = []
    active = True

    def hook(event: str, _arguments: object) -> None:
        if active and event in {"exec", "open", "os.system", "subprocess.Popen", "import"}:
            audited.append(event)

    sys.addaudithook(hook)
    try:
        assert decode_text(text.replace("{canary}", str(canary))) is None
    finally:
        active = False
    assert not audited
    assert not canary.exists()


def test_calls_are_texts_and_are_not_executed(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    text = f"open({str(canary)!r}, 'w')"
    assert decode_text(f"[f(a={text}, b=x[{text}])]") == [{"f": {"a": text, "b": f"x[{text}]"}}]
    assert not canary.exists()


def test_deeply_nested_calls_do_not_overflow() -> None:
    text = "[f(a=" + "g(a=" * 90 + "1" + ")" * 90 + ")]"
    assert ast.parse(text)
    assert decode_text(text) is not None


def compare(wheel: Path, count: int) -> dict[str, Any]:
    """In a process of its own, which imports the official checker from the wheel."""
    command = [sys.executable, "-m", "tests.metrics.bfcl_oracle", str(wheel), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_verdicts_equal_those_of_the_official_checker() -> None:
    wheel = next((cache_folder() / "wheels").glob(f"bfcl_eval-{BFCL_WHEEL.version}-*.whl"), None)
    if wheel is None:
        pytest.skip("bfcl-eval is not in the cache; `pytest -m slow tests/metrics/test_bfcl.py` fetches it")
    found = compare(wheel, 4000)
    assert (found["differing"], found["examples"]) == (0, [])


def test_verdicts_equal_those_of_the_official_checker_over_mutations(bfcl_wheel: Path) -> None:
    found = compare(bfcl_wheel, 20_000)
    assert (found["differing"], found["examples"]) == (0, [])
    assert found["failing_references"] == list(UNSOLVABLE)
    assert len(found["errors"]) >= 18, "every error type of the Python rules was met"
