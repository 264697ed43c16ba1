"""Compares `check_calls` and `decode_text` with the official ones of a `bfcl-eval` wheel, over mutated calls.

    python -m tests.metrics.bfcl_oracle WHEEL COUNT [SEED]

It runs as a program of its own, because it imports the official checker from inside the wheel, with stand-ins for the
modules that would import every vendor's library and create folders. The official decoder's `eval` is replaced by an
error, so that nothing is executed. Prints one JSON object: how much was compared, and what differed.
"""

from __future__ import annotations

import copy
import json
import random
import re
import sys
import time
import types
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

from agentft.evaluation.bfcl import expected_calls
from agentft.evaluation.bfcl_data import BFCL_CATEGORIES, Question, read_category
from agentft.metrics.bfcl import BfclEntry, check_calls
from agentft.metrics.bfcl_text import decode_text

VALUES: tuple[Any, ...] = (0, 1, -1, 5, 5.0, 1.5, True, False, None, "", "a", "5", "A-b c", [], [1], ["a"], [""], [[1]])
VALUES += ({}, {"a": 1}, {"a": [1]}, [{}], [{"a": 1}], (1, 2), ("a",), float("nan"), 10**30)
TYPES = ("string", "integer", "float", "boolean", "array", "tuple", "dict", "any", "number")
TOKENS: tuple[str, ...] = (
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ",",
    "=",
    "'",
    '"',
    "-",
    "+",
    "~",
    "not ",
    "*",
    "**",
    ":",
    ".",
    "\n",
    "`",
    "\\",
)
TOKENS += (" ", "1", "x", "f(", "None", "...", "lambda: 1", "a[0]", "g(b=1)", "g(1)", "1j", "b'x'", "f'x'", "#", "0x1")


def official(wheel: Path) -> tuple[Any, Any]:
    """The official modules `ast_checker` and `model_handler.utils`, imported from the wheel."""
    root = "bfcl_eval"
    config: Any = types.ModuleType(f"{root}.constants.model_config")
    named, plain = types.SimpleNamespace(underscore_to_dot=True), types.SimpleNamespace(underscore_to_dot=False)
    config.MODEL_CONFIG_MAPPING = defaultdict(lambda: plain, named=named)
    sys.modules[config.__name__] = config
    stand_ins = {
        "tenacity": ("retry", "retry_if_exception_message", "retry_if_exception_type", "wait_random_exponential"),
        f"{root}.utils": (),
        f"{root}.model_handler.parser.java_parser": ("parse_java_function_call",),
        f"{root}.model_handler.parser.js_parser": ("parse_javascript_function_call",),
    }
    for name, attributes in stand_ins.items():
        sys.modules[name] = types.ModuleType(name)
        for attribute in attributes:
            setattr(sys.modules[name], attribute, None)
    sys.path.insert(0, str(wheel))
    from importlib import import_module

    checker = import_module(f"{root}.eval_checker.ast_eval.ast_checker")
    handler: Any = import_module(f"{root}.model_handler.utils")

    def refused(text: str) -> None:
        raise ValueError(f"not evaluated: {text}")

    handler.eval = refused
    return checker, handler


def read_entries(wheel: Path) -> list[Question]:
    """All entries with reference calls."""
    named = [name for name in BFCL_CATEGORIES if "relevance" not in name]
    return [question for name in named for question in read_category(wheel, name)[0]]


class Mutator:
    """Reference calls with random faults."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def reference(self, entry: BfclEntry) -> list[Any]:
        """One of the accepted answers."""
        return [
            {name: {key: self.pick(options) for key, options in parameters.items() if self.kept(options)}}
            for answer in entry.answers
            for name, parameters in answer.items()
        ]

    def kept(self, options: Any) -> bool:
        return any(one != "" for one in options) and ("" not in options or self.random.random() < 0.5)

    def pick(self, options: Any) -> Any:
        return self.inside(copy.deepcopy(self.random.choice([one for one in options if one != ""])))

    def inside(self, value: Any) -> Any:
        """Alternatives inside objects become values."""
        if isinstance(value, list):
            return [self.inside(item) for item in value]
        if isinstance(value, dict):
            lists = {key: options for key, options in value.items() if isinstance(options, list)}
            return {key: self.pick(options) for key, options in lists.items() if self.kept(options)}
        return value

    def mutate(self, calls: list[Any], entry: BfclEntry) -> list[Any]:
        """One to three faults."""
        for _ in range(self.random.choice((1, 1, 2, 3))):
            if not calls or self.random.random() < 0.15:
                self.change_list(calls, entry)
                continue
            at = self.random.randrange(len(calls))
            name, arguments = next(iter(calls[at].items()))
            kind = self.random.random()
            if kind < 0.1 and arguments:
                del arguments[self.random.choice(list(arguments))]
            elif kind < 0.2:
                arguments[self.random.choice(self.parameters(entry))] = self.value()
            elif kind < 0.25:
                calls[at] = {self.random.choice((name.replace(".", "_"), name + "x", "", name.upper())): arguments}
            elif arguments:
                key = self.random.choice(list(arguments))
                arguments[key] = self.changed(arguments[key])
        return calls

    def change_list(self, calls: list[Any], entry: BfclEntry) -> None:
        kind = self.random.randrange(4)
        if kind == 0 and calls:
            del calls[self.random.randrange(len(calls))]
        elif kind == 1 and calls:
            calls.append(copy.deepcopy(self.random.choice(calls)))
        elif kind == 2:
            self.random.shuffle(calls)
        else:
            calls.append({self.random.choice(entry.functions)["name"]: {}})

    def parameters(self, entry: BfclEntry) -> list[str]:
        return [key for one in entry.functions for key in one["parameters"]["properties"]] + ["unknown"]

    def value(self) -> Any:
        return copy.deepcopy(self.random.choice(VALUES))

    def changed(self, value: Any) -> Any:
        """Something like `value`, of the same type or another."""
        draw = self.random.random()
        if draw < 0.25:
            return self.value()
        if draw < 0.35:
            return self.random.choice(([value], (value,), str(value), {"a": value}))
        if isinstance(value, str):
            at = self.random.randint(0, len(value))
            sign = self.random.choice(" ,./-_*^'\"\t:(é")
            return self.random.choice((value.upper(), value[:at] + sign + value[at:], value[:at], value + "x"))
        if isinstance(value, bool):
            return self.random.choice((not value, int(value)))
        if isinstance(value, int | float):
            return self.random.choice((value + 1, float(value) if abs(value) < 1e300 else 0, -value, value + 1e-9))
        if isinstance(value, list):
            return self.changed_list(value)
        if isinstance(value, dict) and value:
            key = self.random.choice(list(value))
            rest = {name: item for name, item in value.items() if name != key}
            return self.random.choice((rest, value | {key: self.changed(value[key])}, value | {"zz": 1}))
        return self.value()

    def changed_list(self, value: list[Any]) -> Any:
        changed = list(value)
        if changed and self.random.random() < 0.6:
            at = self.random.randrange(len(changed))
            changed[at] = self.changed(changed[at])
        elif self.random.random() < 0.5:
            changed.insert(self.random.randint(0, len(changed)), self.value())
        else:
            self.random.shuffle(changed)
        return self.random.choice((changed, changed, tuple(changed), changed[1:]))

    def annotated(self, entry: BfclEntry) -> BfclEntry:
        """The entry with other reference values or declared types, as a wrong annotation would have."""
        answers, functions = list(entry.answers), list(entry.functions)
        chosen = self.random.randrange(len(answers))
        answers[chosen] = copy.deepcopy(answers[chosen])
        parameters = next(iter(answers[chosen].values()))
        for key in list(parameters):
            draw = self.random.random()
            if draw < 0.2:
                parameters[key] = self.random.choice(([], [""], "", ["", *parameters[key]], [*parameters[key], ""]))
            elif draw < 0.4:
                parameters[key] = [self.value(), *parameters[key]][: self.random.choice((1, 3))]
            elif draw < 0.45:
                del parameters[key]
        names = [function["name"] for function in functions]
        at = names.index(next(iter(answers[chosen])))
        functions[at] = copy.deepcopy(functions[at])
        for declared in functions[at]["parameters"]["properties"].values():
            if self.random.random() < 0.2:
                declared["type"] = self.random.choice(TYPES)
            if self.random.random() < 0.2:
                declared["items"] = {"type": self.random.choice(TYPES)}
        return BfclEntry(entry.category, tuple(functions), tuple(answers))

    def text(self, calls: list[Any]) -> str:
        """The calls in the prompt style, perhaps damaged."""
        shown = [
            f"{name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"
            for call in calls
            for name, arguments in call.items()
        ]
        text = f"[{', '.join(shown)}]"
        for _ in range(self.random.choice((0, 0, 1, 1, 2, 4))):
            at = self.random.randint(0, len(text))
            text = text[:at] + self.random.choice(TOKENS) + text[at + self.random.choice((0, 0, 1, 3)) :]
        return text


def compare(wheel: Path, count: int, seed: int) -> dict[str, Any]:
    """Compare `count` verdicts (first those of all reference calls), and one decoded text for every fourth."""
    checker, handler = official(wheel)
    questions, mutator = read_entries(wheel), Mutator(seed)
    entries = [question.entry for question in questions]
    nested = [entry for entry in entries if re.search(r": \[[\[{]", json.dumps(entry.answers))]
    started, errors, differing, texts = time.monotonic(), Counter[str](), list[Any](), 0
    failing: list[str] = []
    for number in range(count):
        entry = entries[number % len(entries)]
        if number >= len(entries) and number % 3 == 0:
            entry = mutator.random.choice(nested)  # lists and objects have most of the rules, and are rare
        if number >= len(entries) and mutator.random.random() < 0.2:
            entry = mutator.annotated(entry)
        if number < len(entries):
            calls = [{call.name: dict(call.arguments)} for call in expected_calls(entry)]
        else:
            calls = mutator.mutate(mutator.reference(entry), entry)
        ours, theirs = check_calls(entry, calls), verdict(checker, entry, calls, "plain")
        errors[ours.error] += 1
        if number < len(entries) and not ours.valid:
            failing.append(questions[number].id)
        if (ours.valid, ours.error) != theirs:
            differing.append([entry.category, calls, entry.answers, [ours.valid, ours.error], theirs])
        if number % 4 == 0:
            texts += 1
            text = mutator.text(calls)
            if (mine := repr(decode_text(text))) != (other := decoded(handler, text)):
                differing.append([text, mine, other])
        if number % 8 == 0:  # for models whose tool names have no dots, the expected names have none
            renamed = undotted(entry)
            if (found := check_calls(renamed, calls)).error != verdict(checker, entry, calls, "named")[1]:
                differing.append(["undotted", calls, entry.answers, found.error])
    assert questions == read_entries(wheel), "the official checker changed an entry"
    return {
        "compared": count,
        "texts": texts,
        "seconds": round(time.monotonic() - started, 1),
        "failing_references": failing,
        "differing": len(differing),
        "examples": list(map(repr, differing[:5])),
        "errors": dict(errors.most_common()),
    }


def verdict(checker: Any, entry: BfclEntry, calls: list[Any], model: str) -> tuple[bool, str]:
    parts = list(entry.functions), copy.deepcopy(calls), list(entry.answers)
    try:
        found = checker.ast_checker(*parts, checker.Language.PYTHON, entry.category, model)
    except Exception:
        return False, "checker_error"
    return found["valid"], "" if found["valid"] else found["error_type"]


def decoded(handler: Any, text: str) -> str:
    try:
        return repr(handler.default_decode_ast_prompting(text))
    except Exception:
        return "None"


def undotted(entry: BfclEntry) -> BfclEntry:
    functions = [{**one, "name": one["name"].replace(".", "_")} for one in entry.functions]
    answers = [{name.replace(".", "_"): value for name, value in answer.items()} for answer in entry.answers]
    return BfclEntry(entry.category, tuple(functions), tuple(answers))


if __name__ == "__main__":
    import warnings

    warnings.simplefilter("ignore")  # of the official decoder, about odd texts
    found = compare(Path(sys.argv[1]), int(sys.argv[2]), int((sys.argv[3:] or ["0"])[0]))
    sys.stdout.write(json.dumps(found, indent=1) + "\n")
