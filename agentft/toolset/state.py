"""A world's state: plain JSON, compared by digest, frozen for reads, and copied on write, record by record.

A thousand sessions share one copy of every record that none of them changed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from operator import is_
from typing import Any, NoReturn

__all__ = ["copy_json", "digest", "draft", "freeze"]

_ATOMS = frozenset({str, int, float, bool, type(None)})


def digest(state: Any) -> str:
    """SHA-256 (hex) of a state's canonical JSON: 25 and 25.0 are the same number, and the order of keys is ignored."""
    text = json.dumps(_canonical(state), sort_keys=True, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _canonical(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_canonical(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def copy_json(value: Any) -> Any:
    """A deep copy of a JSON value, several times faster than `copy.deepcopy`.

    Raises:
        TypeError: something in it is not JSON.
    """
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):
                raise TypeError(f"the key {key!r} is not a string")
        return {key: item if type(item) in _ATOMS else copy_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [item if type(item) in _ATOMS else copy_json(item) for item in value]
    if type(value) in _ATOMS:
        return value
    raise TypeError(f"{type(value).__name__} is not a JSON value")


def _refuse(*_: object, **__: object) -> NoReturn:
    raise RuntimeError(
        "a tool marked @read changed the state, or another one a part that it did not take from its own state"
    )


class _FrozenDict(dict[str, Any]):
    """A dict that cannot be changed; reading it is as quick as reading a dict."""

    __slots__ = ()
    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __deepcopy__(self, _: object) -> Any:
        return copy_json(self)


class _FrozenList(list[Any]):
    """A list that cannot be changed."""

    __slots__ = ()
    __setitem__ = __delitem__ = __iadd__ = __imul__ = append = clear = extend = insert = _refuse
    pop = remove = reverse = sort = _refuse

    def __deepcopy__(self, _: object) -> Any:
        return copy_json(self)


class _Draft(dict[str, Any]):
    """A mutable, shallow copy of a frozen dict: a value becomes a draft itself when it is taken out."""

    __slots__ = ("origin",)

    def __init__(self, origin: dict[str, Any]) -> None:
        super().__init__(origin)
        self.origin = origin

    def __getitem__(self, key: str) -> Any:
        value = super().__getitem__(key)
        if isinstance(value, _FrozenDict | _FrozenList):
            value = draft(value)
            self[key] = value
        return value

    def __iter__(self) -> Iterator[str]:
        # Behaves as before; but because it is overridden, `dict(this)` and `{**this}` go through `__getitem__`.
        return super().__iter__()

    def get(self, key: str, default: Any = None) -> Any:
        return self[key] if key in self else default  # noqa: SIM401

    def setdefault(self, key: str, default: Any = None) -> Any:
        super().setdefault(key, default)
        return self[key]

    def pop(self, key: str, *default: Any) -> Any:
        return draft(super().pop(key, *default))

    def popitem(self) -> tuple[str, Any]:
        key, value = super().popitem()
        return key, draft(value)

    def values(self) -> Any:
        return [self[key] for key in self]

    def items(self) -> Any:
        return [(key, self[key]) for key in self]

    def copy(self) -> dict[str, Any]:
        return dict(self)

    def __deepcopy__(self, _: object) -> Any:
        return copy_json(self)


def draft(value: Any) -> Any:
    """A mutable view of a frozen `value`, which stays unchanged; any other value is returned as it is."""
    if isinstance(value, _FrozenDict):
        return _Draft(value)
    if isinstance(value, _FrozenList):
        return [draft(item) for item in value]
    return value


def freeze(value: Any) -> Any:
    """An immutable version of a JSON value. Frozen values and unchanged drafts are not copied.

    Raises:
        TypeError: something in it is not JSON.
    """
    if type(value) in _ATOMS or isinstance(value, _FrozenDict | _FrozenList):
        return value
    if isinstance(value, list):
        return _FrozenList([freeze(item) for item in value])
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} is not a JSON value")
    if not all(isinstance(key, str) for key in value):
        raise TypeError("a key in the state is not a string")
    frozen = {key: freeze(item) for key, item in dict.items(value)}
    if isinstance(value, _Draft) and _unchanged(frozen, value.origin):
        return value.origin
    return _FrozenDict(frozen)


def _unchanged(new: dict[str, Any], old: dict[str, Any]) -> bool:
    # By identity, because 1, 1.0 and True are equal but not the same state.
    return len(new) == len(old) and all(map(is_, new, old)) and all(map(is_, new.values(), old.values()))
