"""States that share what is equal: frozen to read from, and copied only where a write looks into them.

A thousand sessions over a world of thousands of records keep one copy of each record that none of them changed.
"""

from __future__ import annotations

from collections.abc import Iterator
from operator import is_
from typing import Any, NoReturn

from agentft.toolset.state import ATOMS, copy_json

__all__ = ["draft", "freeze"]


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
    """A changeable copy of a frozen dict, one level deep: what is taken out of it becomes a draft at that moment."""

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
        # It does what it did. That it is overridden makes `dict(this)` and `{**this}` go through `__getitem__`.
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
    """A value that may be changed without changing the frozen `value`; anything else is given back as it is."""
    if isinstance(value, _FrozenDict):
        return _Draft(value)
    if isinstance(value, _FrozenList):
        return [draft(item) for item in value]
    return value


def freeze(value: Any) -> Any:
    """A JSON value that nobody can change. What is frozen already, or a draft that was not changed, is not copied.

    Raises:
        TypeError: something in it is not JSON.
    """
    if type(value) in ATOMS or isinstance(value, _FrozenDict | _FrozenList):
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
    # By identity, since 1, 1.0 and True are equal and are not the same state.
    return len(new) == len(old) and all(map(is_, new, old)) and all(map(is_, new.values(), old.values()))
