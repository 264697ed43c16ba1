"""The verdict of BFCL v4 (Berkeley Function Calling Leaderboard) on single-turn entries in Python.

It equals that of the official checker of `bfcl-eval` 2026.3.23, with its error types, and with its faults: where that
checker raises an exception, which ends the official run, the verdict is `checker_error`. `tests/metrics/bfcl_oracle.py`
compares both. A value *is a variable* if it has the type of the reference value and not the declared one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agentft.json_text import json_pointer
from agentft.strict import counted

__all__ = ["BfclEntry", "Verdict", "check_calls"]

Decoded: TypeAlias = Sequence[Mapping[str, Mapping[str, Any]]]
"""Calls as BFCL writes them: `[{name: {parameter: value}}, ...]`."""

_TYPES: dict[str, type] = {
    "string": str,
    "integer": int,
    "float": float,
    "boolean": bool,
    "array": list,
    "tuple": list,
    "dict": dict,
    "any": str,
}
_OMITTED = ""  # as an alternative: the parameter may be left out
_IGNORED = str.maketrans("'", '"', " ,./-_*^")


@dataclass(frozen=True, slots=True)
class BfclEntry:
    """One entry of the benchmark.

    Args:
        category: the official name, such as `live_parallel_multiple`, which chooses the rules.
        functions: the official function documents.
        answers: `{name: {parameter: [accepted value, ...]}}` for each expected call; empty for (ir)relevance.
        check: for several turns, the verdict on the calls of each turn, (name, arguments), which runs them.
    """

    category: str
    functions: tuple[Mapping[str, Any], ...]
    answers: tuple[Mapping[str, Any], ...] = ()
    check: Callable[[Sequence[Sequence[tuple[str, Mapping[str, Any]]]]], Verdict] | None = None

    @property
    def wants_any_call(self) -> bool:
        """Whether any call of any tool is right (`live_relevance`)."""
        return "relevance" in self.category and "irrelevance" not in self.category


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result. `error`: the official error type. `pointer`: JSON Pointer to the fault, from the list of calls."""

    valid: bool
    error: str = ""
    pointer: str = ""
    detail: str = ""


_VALID = Verdict(True)


def check_calls(entry: BfclEntry, calls: object) -> Verdict:
    """Check decoded calls (see `Decoded`); None: the output could not be decoded."""
    readable = _is_call_list(calls)
    if "relevance" in entry.category:
        if (readable and bool(calls)) is entry.wants_any_call:
            return _VALID
        if entry.wants_any_call:
            return Verdict(False, "relevance_error:decoder_failed", detail="no call was made")
        return Verdict(False, "irrelevance_error:decoder_success", "/0", "a call was made")
    if calls is None:
        return Verdict(False, "ast_decoder:decoder_failed", detail="the output holds no calls that can be decoded")
    if not readable:
        return Verdict(False, "ast_decoder:decoder_wrong_output_format", detail="it is not [{name: arguments}, ...]")
    try:
        return _check_list(entry, calls)  # type: ignore[arg-type]
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        return Verdict(False, "checker_error", detail=f"the official checker raises {type(error).__name__}: {error}")


def _is_call_list(calls: object) -> bool:
    return type(calls) is list and all(
        type(call) is dict and len(call) == 1 and type(next(iter(call.values()))) is dict for call in calls
    )


def _check_list(entry: BfclEntry, calls: Decoded) -> Verdict:
    if "parallel" in entry.category:
        return _check_parallel(entry, calls)
    several = "multiple" in entry.category
    wanted = len(entry.answers) if several else 1
    if len(calls) != wanted:
        kind = "multiple" if several else "simple"
        return _wrong_count(f"{kind}_function_checker:wrong_count", calls, wanted)
    answer = entry.answers[0]
    function = _document(entry, answer) if several else entry.functions[0]
    return _check_call(function, calls[0], answer, 0)


def _check_parallel(entry: BfclEntry, calls: Decoded) -> Verdict:
    """Each expected call takes the first unused call that fits: no backtracking, as in the official checker."""
    kind = "parallel_function_checker_no_order"
    if len(calls) != len(entry.answers):
        return _wrong_count(f"{kind}:wrong_count", calls, len(entry.answers))
    unused = list(range(len(calls)))
    for answer in entry.answers:
        function = _document(entry, answer)
        failures: list[Verdict] = []
        for index in unused:
            verdict = _check_call(function, calls[index], answer, index)
            if verdict.valid:
                unused.remove(index)
                break
            failures.append(verdict)
        else:
            # The nearest call is one of the right name, if any is left.
            nearest = next((one for one in failures if not one.error.endswith("wrong_func_name")), failures[0])
            detail = f"no call fits {next(iter(answer))}: {nearest.error} ({nearest.detail})"
            return Verdict(False, f"{kind}:cannot_find_match", nearest.pointer, detail)
    return _VALID


def _wrong_count(error: str, calls: Decoded, wanted: int) -> Verdict:
    return Verdict(False, error, detail=f"{counted(len(calls), 'call')} instead of {wanted}")


def _document(entry: BfclEntry, answer: Mapping[str, Any]) -> Mapping[str, Any]:
    name = next(iter(answer))
    for function in entry.functions:
        if function["name"] == name:
            return function
    raise TypeError(f"there is no function {name!r}")


def _check_call(
    function: Mapping[str, Any], call: Mapping[str, Mapping[str, Any]], answer: Mapping[str, Any], index: int
) -> Verdict:
    name, accepted = function["name"], next(iter(answer.values()))
    properties, required = function["parameters"]["properties"], function["parameters"]["required"]
    made = next(iter(call))

    def failed(kind: str, detail: str, *path: object) -> Verdict:
        error = kind if "_error" in kind or "dict_checker" in kind else f"simple_function_checker:{kind}"
        return Verdict(False, error, json_pointer(index, made, *map(str, path)), detail)

    if name not in call:
        return failed("wrong_func_name", f"{made!r:.80} instead of {name!r}")
    arguments = call[name]
    for parameter in required:
        if parameter not in arguments:
            return failed("missing_required", f"{parameter!r} is required", parameter)
    for parameter, value in arguments.items():
        if parameter not in properties or parameter not in accepted:
            return failed("unexpected_param", "the reference call has no such parameter", parameter)
        if error := _check_value(properties[parameter], value, accepted[parameter]):
            return failed(error, f"{value!r:.80} is none of {accepted[parameter]!r:.120}", parameter)
    for parameter, alternatives in accepted.items():
        if parameter not in arguments and _OMITTED not in alternatives:
            return failed("missing_optional", f"{parameter!r} must not be left out", parameter)
    return _VALID


def _check_value(declared: Mapping[str, Any], value: Any, alternatives: Sequence[Any]) -> str:
    """The error type; empty if the value is right. Types are compared with `is`: True is no integer."""
    kind = declared["type"]
    want = _TYPES[kind]
    inner = _TYPES[declared["items"]["type"]] if kind in ("array", "tuple") else None
    if kind == "tuple" and type(value) is tuple:
        value = list(value)
    if kind == "float" and type(value) is int:
        value = float(value)
    error, variable = _check_type(value, alternatives, want, inner)
    if error:
        return error
    if not variable:
        if want is dict:
            return _check_dict(value, alternatives)
        if want is list and inner is dict:
            return _check_dicts(value, alternatives)
        if want is str:
            return "" if _plain(value) in [_plain(one) for one in alternatives if type(one) is str] else _STRING
        if want is list:
            return "" if _plains(value) in [_plains(one) for one in alternatives] else _LIST
    return "" if value in alternatives else "value_error:others"


_STRING, _LIST = "value_error:string", "value_error:list/tuple"


def _check_type(value: Any, alternatives: Sequence[Any], want: type, inner: type | None) -> tuple[str, bool]:
    """(error type or nothing, whether the value is a variable)."""
    made, given = type(value), next((type(one) for one in alternatives if one != _OMITTED), None)
    variable = given is not None and given is not want
    if made is want:
        if inner is None:
            return "", variable
        for one in alternatives:
            if type(one) is not list or all(not _check_type(item, one, inner, None)[0] for item in value):
                return "", variable
        return "type_error:nested" if made is given else "type_error:simple", False
    return ("", True) if made is given else ("type_error:simple", False)


def _check_dict(value: Mapping[str, Any], alternatives: Iterable[Any]) -> str:
    error = "dict_checker:unclear"
    for one in alternatives:
        if one == _OMITTED:
            continue
        error = _compare_dict(value, one)
        if not error:
            return ""
    return error


def _compare_dict(value: Mapping[str, Any], accepted: Mapping[str, Any]) -> str:
    error = ""
    for key, item in value.items():
        if key not in accepted:
            error = "value_error:dict_key"
            break
        if _plain(item) not in _plains(accepted[key]):
            error = "value_error:dict_value"
            break
    # A missing key replaces the error of a wrong value.
    missing = any(key not in value and _OMITTED not in options for key, options in accepted.items())
    return "value_error:dict_key" if missing else error


def _check_dicts(value: Sequence[Any], alternatives: Sequence[Any]) -> str:
    error = "list_dict_checker:unclear"
    for one in alternatives:
        if len(value) != len(one):
            error = "value_error:list_dict_count"
            continue
        errors = (_check_dict(item, [want]) for item, want in zip(value, one, strict=True))
        error = next(filter(None, errors), "")
        if not error:
            return ""
    return error


def _plain(value: Any) -> Any:
    """A text without case, spaces and `,./-_*^`; anything else unchanged. One level only."""
    return value.translate(_IGNORED).lower() if type(value) is str else value


def _plains(values: Sequence[Any]) -> list[Any]:
    return [_plain(values[index]) for index in range(len(values))]  # an object raises KeyError, as in the official one
