"""Helpers for a world's `tools.py`: access decorators, argument ranges, and did-you-mean hints."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, TypeVar

from agentft.strict import closest

__all__ = ["Access", "Handler", "Range", "State", "access_of", "destructive", "did_you_mean", "read", "write"]

State: TypeAlias = dict[str, Any]
Handler: TypeAlias = Callable[..., Any]
Access = Literal["read", "write", "destructive"]
_Function = TypeVar("_Function", bound=Handler)
_MARK = "__agentft_access__"


@dataclass(frozen=True, slots=True)
class Range:
    """Inclusive bounds of a number: `days: Annotated[int, Range(1, 7)]`."""

    low: float | None = None
    high: float | None = None


def read(function: _Function) -> _Function:
    """Mark a tool that does not change the state."""
    setattr(function, _MARK, "read")
    return function


def write(function: _Function) -> _Function:
    """Mark a tool that may change the state."""
    setattr(function, _MARK, "write")
    return function


def destructive(function: _Function) -> _Function:
    """Mark a tool whose effect cannot be undone: it deletes, pays or cancels."""
    setattr(function, _MARK, "destructive")
    return function


def access_of(function: Handler) -> Access | None:
    """The access mark of a function; None if it is not a tool."""
    access: Access | None = getattr(function, _MARK, None)
    return access


def did_you_mean(name: str, known: Sequence[str]) -> str:
    """`; did you mean 'x'?` for the end of an error message, or "" if no known name is close."""
    match = closest(name, known)
    return "" if match is None else f"; did you mean {match!r}?"
