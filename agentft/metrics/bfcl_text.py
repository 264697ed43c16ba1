"""Decodes the prompt style of BFCL, `[f(a=1), g(b="x")]`, as its default handler does, but evaluates nothing.

The text is parsed into Python's syntax tree, and the tree is read. The official decoder evaluates arithmetic and every
other binary operator (`f(a=[1].__len__() + 1)` runs code); here such a text cannot be decoded. Every other quirk is
kept: positional arguments are dropped, bare names are texts, `+1`, `~1` and `not True` are -1, and a code fence with a
language, text around the list, or a line break between calls cannot be decoded.
"""

from __future__ import annotations

import ast
import warnings
from typing import Any

__all__ = ["decode_text"]


def decode_text(text: str) -> list[dict[str, dict[Any, Any]]] | None:
    """The calls as `[{name: {parameter: value}}, ...]`; None if they cannot be decoded.

    Values may be more than JSON: tuples, bytes, complex numbers; `**x` gives the parameter None.
    """
    text = text.strip("`\n ")
    text = text if text.startswith("[") else f"[{text}"
    text = text if text.endswith("]") else f"{text}]"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the parser, about the model's text
            tree = ast.parse(text.strip().strip("'"), mode="eval").body
        if not isinstance(tree, ast.List):
            return None
        return [_call(node) for node in tree.elts]
    except (MemoryError, RecursionError, SyntaxError, TypeError, ValueError):
        return None


def _call(node: ast.expr) -> dict[str, dict[Any, Any]]:
    if not isinstance(node, ast.Call):
        raise TypeError(f"{type(node).__name__} is not a call")
    names: list[str] = []
    target = node.func
    while isinstance(target, ast.Attribute):
        names.append(target.attr)
        target = target.value
    if isinstance(target, ast.Name):
        names.append(target.id)
    return {".".join(reversed(names)): {keyword.arg: _value(keyword.value) for keyword in node.keywords}}


def _value(node: ast.expr | None) -> Any:
    match node:
        case ast.Constant(value=value):
            return "..." if value is Ellipsis else value
        case ast.UnaryOp(operand=ast.Constant(value=bool() | int() | float() | complex() as number)):
            return -number  # whatever the operator is
        case ast.List(elts=items):
            return [_value(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item) for item in items)
        case ast.Dict(keys=keys, values=values):
            return {_value(key): _value(value) for key, value in zip(keys, values, strict=True)}
        case ast.Name(id=name):
            return name
        case ast.Call(keywords=[]):
            return ast.unparse(node)
        case ast.Subscript(value=of, slice=key):
            return f"{ast.unparse(of)}[{ast.unparse(key)}]"
        case ast.Call():
            return _call(node)
    raise TypeError(f"{type(node).__name__} is not a literal")
