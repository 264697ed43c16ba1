"""Runs BFCL's simulators, which are not our code, in a process of its own: a JSON request a line, a reply a line.

`simulators.py` starts it. Its one argument is where `bfcl_eval` is imported from: a wheel or a folder. It never
evaluates text: calls are names with arguments, and those of the reference are literals.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import json
import os
import resource
import sys
from typing import Any

__all__: list[str] = []

_CODE = "bfcl_eval.eval_checker.multi_turn_eval.func_source_code"
_MEMORY = 2 << 30


def _instances(request: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for name, module in request["classes"].items():
        made[name] = getattr(importlib.import_module(f"{_CODE}.{module}"), name)()
        if hasattr(made[name], "_load_scenario"):
            config = copy.deepcopy(request["config"].get(name, {}))
            made[name]._load_scenario(config, long_context=request["long"])
    return made


def _run(instances: dict[str, Any], name: str, arguments: dict[str, Any], positional: Any = ()) -> str:
    """The result as the official checker writes it. A later class hides the methods of an earlier one."""
    found = [method for one in instances.values() for method in inspect.getmembers(one, inspect.ismethod)]
    methods = {key: method for key, method in found if not key.startswith("_")}
    try:
        if name not in methods:
            raise NameError(f"name {name!r} is not defined")
        result = methods[name](*positional, **arguments)
    except Exception as error:  # what a simulator raises is the result
        return f"Error during execution: {error}"
    if type(result) is dict:
        try:
            return json.dumps(result)
        except (TypeError, ValueError):
            return str(result)
    return str(result)


def _reference(text: str) -> tuple[str, dict[str, Any], list[Any]]:
    call: Any = ast.parse(text, mode="eval").body
    arguments = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    return call.func.id, arguments, [ast.literal_eval(value) for value in call.args]


def _check(request: dict[str, Any]) -> tuple[str, str]:
    """The official error type, and where it is; empty if every turn passes. The rules are those of BFCL v4."""
    made, wanted = _instances(request), _instances(request)
    results: list[str] = []  # of all turns so far
    for turn, reference in enumerate(request["answers"]):
        calls = request["turns"][turn]
        results += [_run(made, *call) for call in calls]
        expected = [_run(wanted, *_reference(text)) for text in reference]
        if not reference:
            continue  # nothing is checked
        if not calls:
            return "multi_turn:empty_turn_model_response", f"turn {turn}: no call was made"
        for name, one in wanted.items():
            for key, value in vars(one).items():
                if not key.startswith("_") and getattr(made[name], key) != value:
                    return "multi_turn:instance_state_mismatch", f"turn {turn}: `{key}` of {name} has another value"
        left = results.copy()
        for text, result in zip(reference, expected, strict=True):
            if result not in left:
                detail = f"turn {turn}: no call so far has the result of {text:.120}"
                return "multi_turn:execution_response_mismatch", detail
            left.remove(result)
    return "", ""


def _reply(request: dict[str, Any]) -> object:
    if "answers" in request:
        return _check(request)
    instances = _instances(request)
    return [_run(instances, *call) for call in request["calls"]][-1]


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # they write no files
    sys.path.insert(0, sys.argv[1])
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        os.dup2(2, 1)  # what simulators print is not a reply
        for line in sys.stdin:
            try:
                reply = {"reply": _reply(json.loads(line))}
            except BaseException as error:  # foreign code may raise anything, also SystemExit
                reply = {"failed": f"{type(error).__name__}: {error}"}
            out.write(json.dumps(reply) + "\n")
            out.flush()


if __name__ == "__main__":
    _main()
