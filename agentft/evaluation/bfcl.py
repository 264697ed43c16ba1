"""BFCL entries as cases: tools as JSON Schema, names without dots, and the reference calls as expectations.

With one turn, one reply is asked for, and its calls are not sent; with several, BFCL's simulators run them. Names that
native tool calls do not allow are replaced in the tools, the reference calls and the functions alike, as the official
handlers do (`math.factorial` is `math_factorial`), so that the checker compares the names that the model was shown.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.evaluation.bfcl_data import MULTI_TURN, UNSOLVABLE, Question, describe_tool, read_category
from agentft.evaluation.bfcl_turns import read_functions, read_turns
from agentft.evaluation.plan import Plan, Setup
from agentft.evaluation.simulators import Simulators
from agentft.evaluation.suites import Suite, stratified
from agentft.metrics.bfcl import BfclEntry
from agentft.toolset import Tool, Toolset
from agentft.toolset.arguments import ArgumentCheck
from agentft.types import CallExpectation, Case, CaseTurn, Category, Json, Span, Text, Turn

__all__ = ["expected_calls", "make_bfcl_plan", "shown_names"]

_MOST_VALUES = 1000  # of one argument; combinations of an object's values


_MOST_STEPS = 21  # replies with calls, after which the official runner ends a user turn and the entry
_UNSAFE = re.compile(r"[^a-zA-Z0-9_-]")


def make_bfcl_plan(categories: Sequence[str], source: Path, *, limit: int | None = None, trials: int = 1) -> Plan:
    """The plan for these categories, each a suite, with the data of `source` (see `read_category`).

    Raises:
        InputError: the data cannot be read.
    """
    suites: list[Suite] = []
    setups: dict[str, Setup] = {}
    simulators, steps = None, 1
    world: tuple[Toolset, ...] = ()
    if set(categories) & set(MULTI_TURN):
        functions, digest = read_functions(source)
        simulators = Simulators(source if source.is_file() else source.resolve().parent.parent, digest)
        tools = [describe_tool(one) for found in functions.values() for one in found]
        served = {one.name: Tool(one, dict, "write", ArgumentCheck(one), {}) for one in tools}
        world, steps = (Toolset("bfcl", "http://bfcl.test", served, {}),), _MOST_STEPS
    for category in categories:
        if simulators and category in MULTI_TURN:
            made, digest = read_turns(source, category, functions, simulators, trials)
        else:
            questions, digest = read_category(source, category)
            made = [_make_case(question) for question in questions]
        suites.append(Suite(category, (), source, cases=tuple(case for case, _ in made), digest=digest))
        setups |= {case.id: setup for case, setup in made}
    cases = stratified([case for suite in suites for case in suite.cases], limit)
    hopeless = [case.id for case in cases if case.id in UNSOLVABLE]
    notes = [f"no answer can pass {', '.join(hopeless)}: their annotation is wrong"] if hopeless else []
    return Plan(
        tuple(suites), world, cases, trials, max_steps=steps, source=simulators, setups=setups, notes=tuple(notes)
    )


def _make_case(question: Question) -> tuple[Case, Setup]:
    turns = _turns(question)
    system = "".join(turn.raw for turn in turns if turn.role == "system")
    history = tuple(turn for turn in turns[:-1] if turn.role != "system")
    entry = _renamed(question.entry)
    tools = tuple(map(describe_tool, entry.functions))
    # Any call is right where relevance is asked for, so the first tool stands for all of them.
    calls = (CallExpectation(tools[0].name, {}),) if entry.wants_any_call else expected_calls(entry)
    lang = "mixed" if entry.category.startswith("live") else "en"
    case = Case(question.id, entry.category, _category(entry), lang, (), (CaseTurn(turns[-1].raw, calls),))
    return case, Setup(tools, entry, system, history)


def _turns(question: Question) -> list[Turn]:
    """The messages; consecutive ones of one role become one, as chat templates want it."""
    turns: list[Turn] = []
    for role, group in groupby(question.messages, key=lambda message: message["role"]):
        text = "\n\n".join(message["content"] for message in group)
        if role not in ("system", "user", "assistant"):
            raise InputError(f"BFCL entry {question.id}: the role {role!r:.40} is unknown")
        turns.append(Turn(role, (Text(text, Span(0, len(text))),), text))
    if not turns or turns[-1].role != "user":
        raise InputError(f"BFCL entry {question.id}: its last message is not the user's")
    return turns


def _category(entry: BfclEntry) -> Category:
    if "irrelevance" in entry.category:
        return "irrelevance"
    if "parallel" in entry.category:
        return "parallel"
    return "several_tools" if "multiple" in entry.category else "single"


def shown_names(names: Sequence[str]) -> dict[str, str]:
    """For each name, the one that models are shown: letters, digits, `_` and `-`. No two of them are the same."""
    shown: dict[str, str] = {}
    for name in names:
        safe = _UNSAFE.sub("_", name)
        while safe in shown.values():
            safe += "_"
        shown[name] = safe
    return shown


def _renamed(entry: BfclEntry) -> BfclEntry:
    shown = shown_names([function["name"] for function in entry.functions])
    functions = tuple({**function, "name": shown[function["name"]]} for function in entry.functions)
    answers = ({shown.get(name, name): value for name, value in answer.items()} for answer in entry.answers)
    return BfclEntry(entry.category, functions, tuple(answers))


def expected_calls(entry: BfclEntry) -> tuple[CallExpectation, ...]:
    """The reference calls as `exact_call` compares them, with every accepted value that BFCL lists."""
    functions = {function["name"]: function["parameters"] for function in entry.functions}
    return tuple(
        _expected(name, accepted, functions[name]) for answer in entry.answers for name, accepted in answer.items()
    )


def _expected(name: str, accepted: Mapping[str, list[Any]], schema: Mapping[str, Any]) -> CallExpectation:
    arguments: dict[str, Json] = {}
    optional: dict[str, Json] = {}
    alternatives: dict[str, tuple[Json, ...]] = {}
    for key, options in accepted.items():
        declared, required = schema["properties"].get(key, {}), key in schema["required"]
        usable = [option for option in options if option != ""]
        values = [value for option in usable for value in _values(option, declared)]
        if required and not values and "" in options:
            values = [""]
        if values:
            place = optional if "" in options and not required else arguments
            place[key], alternatives[key] = values[0], tuple(values[1:_MOST_VALUES])
    return CallExpectation(name, arguments, {key: rest for key, rest in alternatives.items() if rest}, optional)


def _values(option: Any, declared: Mapping[str, Any]) -> list[Any]:
    """An object, or the objects of a list, has alternatives for each of its values: all combinations."""
    kind, inner = declared.get("type"), declared.get("items", {}).get("type")
    if kind == "dict" and isinstance(option, dict):
        return list(_combinations(option))
    if kind in ("array", "tuple") and inner == "dict" and isinstance(option, list):
        parts = itertools.product(*map(_combinations, option))
        return [list(part) for part in itertools.islice(parts, _MOST_VALUES)]
    return [option]


def _combinations(option: Mapping[str, list[Any]]) -> Iterable[dict[str, Any]]:
    chosen = itertools.product(*option.values())
    for values in itertools.islice(chosen, _MOST_VALUES):
        yield {key: value for key, value in zip(option, values, strict=True) if value != ""}
