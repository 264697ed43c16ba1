"""Go's text/template for the subset that exports use, as Ollama runs it: `json`, and maps by sorted key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ["ollama_values", "render"]

_ACTION = re.compile(r'\{\{ ((?:"(?:\\.|[^"\\])*"|[^"}]|\}(?!\}))*?) \}\}', re.DOTALL)
_TOKEN = re.compile(r'"(?:\\.|[^"\\])*"|:=|[(),=]|\$?[\w.]+|\$')


def ollama_values(messages: Sequence[Mapping[str, Any]], tools: Sequence[Any]) -> dict[str, Any]:
    """What Ollama hands to a template: fields in Go's spelling, all system texts joined."""
    found = []
    for message in messages:
        calls = [
            {"Function": {"Name": one["function"]["name"], "Arguments": one["function"]["arguments"]}}
            for one in message.get("tool_calls", [])
        ]
        found.append(
            {
                "Role": message["role"],
                "Content": message["content"] or "",
                "Thinking": message.get("reasoning_content", ""),
                "ToolCalls": calls,
            }
        )
    declared = [{"Function": {"Name": tool["function"]["name"]}} for tool in tools]
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    return {"System": system, "Messages": found, "Tools": declared}


def render(source: str, values: Mapping[str, Any]) -> str:
    """Run the template."""
    pieces: list[tuple[bool, str]] = []
    at = 0
    for found in _ACTION.finditer(source):
        pieces += [(False, source[at : found.start()]), (True, found[1])]
        at = found.end()
    pieces.append((False, source[at:]))
    assert all("{{" not in text for action, text in pieces if not action), "an action that Go would read otherwise"
    nodes, rest = _parse(pieces, 0)
    assert rest == len(pieces), "an `end` too many"
    return "".join(_run(nodes, values, [{"$": values}]))


Node = tuple[str, Any, list[Any], list[Any]]
"""(kind, pipeline, body, else)."""


def _parse(pieces: list[tuple[bool, str]], at: int) -> tuple[list[Node], int]:
    """Nodes up to the next `else` or `end`, whose place is returned."""
    nodes: list[Node] = []
    while at < len(pieces):
        action, text = pieces[at]
        word = text.split(" ")[0]
        if not action:
            nodes.append(("text", text, [], []))
        elif word in ("else", "end"):
            return nodes, at
        elif word in ("if", "range", "with"):
            node, at = _parse_branch(pieces, at, text)
            nodes.append(node)
        else:
            nodes.append(("value", text, [], []))
        at += 1
    return nodes, at


def _parse_branch(pieces: list[tuple[bool, str]], at: int, text: str) -> tuple[Node, int]:
    kind, _, pipeline = text.partition(" ")
    body, at = _parse(pieces, at + 1)
    other: list[Node] = []
    if pieces[at][1].startswith("else "):
        node, at = _parse_branch(pieces, at, pieces[at][1].removeprefix("else "))
        return (kind, pipeline, body, [node]), at
    if pieces[at][1] == "else":
        other, at = _parse(pieces, at + 1)
    assert pieces[at][1] == "end"
    return (kind, pipeline, body, other), at


def _run(nodes: list[Node], dot: Any, scopes: list[dict[str, Any]]) -> Iterator[str]:
    scopes = [*scopes, {}]
    for kind, text, body, other in nodes:
        if kind == "text":
            yield text
        elif kind == "range":
            yield from _range(text, body, dot, scopes)
        elif kind in ("if", "with"):
            value = _evaluate(text, dot, scopes)
            yield from _run(body if value else other, value if kind == "with" and value else dot, scopes)
        elif set_ := re.fullmatch(r"(\$\w+) (:?=) (.+)", text, re.DOTALL):
            value = _evaluate(set_[3], dot, scopes)
            scope = scopes[-1] if set_[2] == ":=" else next(one for one in reversed(scopes) if set_[1] in one)
            scope[set_[1]] = value
        else:
            value = _evaluate(text, dot, scopes)
            assert isinstance(value, str), f"{text} is not text"
            yield value


def _range(text: str, body: list[Node], dot: Any, scopes: list[dict[str, Any]]) -> Iterator[str]:
    names, _, pipeline = text.rpartition(" := ")
    items = _evaluate(pipeline, dot, scopes)
    pairs = sorted(items.items()) if isinstance(items, Mapping) else list(enumerate(items or []))
    for pair in pairs:
        known = dict(zip(names.split(", "), pair, strict=True)) if names else {}
        yield from _run(body, pair[1], [*scopes, known])


def _evaluate(text: str, dot: Any, scopes: list[dict[str, Any]]) -> Any:
    tokens = _TOKEN.findall(text)
    assert not _TOKEN.sub("", text).strip(), text
    value, at = _call(tokens, 0, dot, scopes)
    assert at == len(tokens), text
    return value


def _call(tokens: list[str], at: int, dot: Any, scopes: list[dict[str, Any]]) -> tuple[Any, int]:
    """A function with its operands, or one operand."""
    name = tokens[at]
    if not name.isidentifier():
        return _operand(tokens, at, dot, scopes)
    operands = []
    at += 1
    while at < len(tokens) and tokens[at] != ")":
        value, at = _operand(tokens, at, dot, scopes)
        operands.append(value)
    return _FUNCTIONS[name](*operands), at


def _operand(tokens: list[str], at: int, dot: Any, scopes: list[dict[str, Any]]) -> tuple[Any, int]:
    token = tokens[at]
    if token == "(":
        value, at = _call(tokens, at + 1, dot, scopes)
        assert tokens[at] == ")"
        return value, at + 1
    if token.startswith('"'):
        return json.loads(token), at + 1
    if token.isdigit():
        return int(token), at + 1
    head, *fields = token.split(".")
    value = dot if not head else next(one[head] for one in reversed(scopes) if head in one)
    for field in filter(None, fields):
        value = value[field]
    return value, at + 1


def _json(value: Any) -> str:
    """encoding/json: sorted keys, compact, HTML characters escaped, whole floats as integers."""
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return str(int(value)) if float(value).is_integer() else json.dumps(value)
    if isinstance(value, str):
        escapes = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}
        return "".join(escapes.get(char, char) for char in json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return "[" + ",".join(map(_json, value)) + "]"
    return "{" + ",".join(f"{_json(key)}:{_json(value[key])}" for key in sorted(value)) + "}"


_FUNCTIONS: dict[str, Any] = {
    "eq": lambda first, *others: first in others,
    "not": lambda value: not value,
    "or": lambda *values: next((value for value in values if value), values[-1]),
    "gt": lambda one, other: one > other,
    "len": len,
    "slice": lambda items, start: items[start:],
    "json": _json,
}
