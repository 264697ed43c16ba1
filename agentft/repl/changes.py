"""What changed in the worlds' states: one line for each value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

__all__ = ["changes"]

_WIDEST = 60  # characters of a value


def changes(before: Any, after: Any, path: str = "") -> Iterator[str]:
    """`bank.cards.C-1.frozen: false → true`, `+ path: value` for what is new, `- path: value` for what is gone."""
    pairs: list[tuple[str, Any, Any]]
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = [(str(key), before.get(key, _ABSENT), after.get(key, _ABSENT)) for key in {**before, **after}]
    elif isinstance(before, list) and isinstance(after, list):
        pairs = [(str(at), *both) for at, both in enumerate(zip_longest(before, after, fillvalue=_ABSENT))]
    else:
        if before != after:
            yield f"{path}: {_short(before)} → {_short(after)}"
        return
    for key, old, new in pairs:
        place = f"{path}.{key}" if path else key
        if old is _ABSENT:
            yield f"+ {place}: {_short(new)}"
        elif new is _ABSENT:
            yield f"- {place}: {_short(old)}"
        elif old is not new:
            yield from changes(old, new, place)


_ABSENT = object()


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _WIDEST else f"{text[: _WIDEST - 1]}…"
