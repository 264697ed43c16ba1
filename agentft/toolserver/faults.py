"""Which calls meet a fault, and which one: read from a file, and fixed by seed, session, tool and n-th call.

The format of the file is in docs/faults.md; its keys are the fields of `Fault`, in tables `[[fault]]`, and of `_File`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from agentft.errors import InputError
from agentft.strict import nearest, one_of, read_as, read_toml
from agentft.toolset import Toolset
from agentft.types import Exchange

__all__ = ["KINDS", "Fault", "Schedule", "is_ours", "read_faults", "seconds_of"]

KINDS: Mapping[str, int | None] = {
    **{str(status): status for status in (400, 401, 404, 409, 429, 500, 502, 503, 504)},
    "html": 502,
    **dict.fromkeys(("reset", "timeout", "truncated", "drip")),
    **dict.fromkeys(("wrong-type", "empty", "schema", "huge", "stale", "injection"), 200),
}
"""Kind -> the status that a client sees; None: it may see no whole answer."""

_SECONDS = {"429": 2.0, "drip": 2.0, "timeout": 30.0}
_TEXTS = (*(kind for kind, status in KINDS.items() if status and status >= 400), "injection")


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule: for which calls of which tools (`world.tool` or `tool`, with * and ?; none: all).

    Of `rate` (of the calls) and `calls` (the n-th ones of a tool in a session) one is given. `seconds` 0 stands for the
    kind's own. `after`: a write takes effect before the fault.
    """

    kind: str
    tools: tuple[str, ...] = ()
    rate: float = 0.0
    calls: tuple[int, ...] = ()
    seconds: float = 0.0
    after: bool = False
    text: str = ""


@dataclass(frozen=True, slots=True)
class _File:
    fault: tuple[Fault, ...]
    seed: int = 0
    client_seconds: float = 10.0


class Schedule:
    """The faults of a run. It holds no counts: the same question has the same answer in any order, at any time.

    Args:
        file: what was read.
        tools: for each rule, the tools that it is for.
    """

    def __init__(self, file: _File, tools: Sequence[frozenset[str]]) -> None:
        self.seed = file.seed
        self.client_seconds = file.client_seconds
        self.digest = hashlib.sha256(json.dumps(asdict(file), sort_keys=True).encode()).hexdigest()
        self.stale = any(fault.kind == "stale" for fault in file.fault)
        self._rules = tuple(zip(file.fault, tools, strict=True))

    def at(self, session: str, tool: str, nth: int) -> Fault | None:
        """What the n-th call (from 1) of a tool in a session meets.

        Of a session's name, what follows its last dot counts: it is the same for every model. A first call cannot be
        answered with something stale.
        """
        name = session.rpartition(".")[2]
        for index, (fault, tools) in enumerate(self._rules):
            if tool in tools and not (fault.kind == "stale" and nth == 1):
                drawn = hashlib.sha256(json.dumps([self.seed, index, name, tool, nth]).encode()).digest()
                if nth in fault.calls or int.from_bytes(drawn[:8]) < fault.rate * 2**64:
                    return fault
        return None


def read_faults(source: str, toolsets: Sequence[Toolset]) -> Schedule:
    """The schedule of a faults file, or of a short form such as `timeout=0.1,429=0.05,seed=3`.

    Raises:
        InputError: it cannot be read, a key or value is wrong, or a rule is for no tool of these worlds.
    """
    short = "=" in source and not Path(source).exists()
    at = f"--faults {source}" if short else source
    row = _short(source, at) if short else read_toml(Path(source), "give a faults file, or KIND=RATE such as 429=0.05")
    file = read_as(_File, row, at)
    if not file.fault:
        raise InputError(f"{at}: it holds no fault; write [[fault]] with a kind and a rate")
    places = [f"{at}: fault[{index}]" for index in range(len(file.fault))]
    for fault, place in zip(file.fault, places, strict=True):
        _check(fault, file, place)
    return Schedule(file, [_tools(fault, toolsets, place) for fault, place in zip(file.fault, places, strict=True)])


def is_ours(exchange: Exchange) -> bool:
    """Whether an exchange failed in a way that no fault explains: the server's own doing."""
    failed = exchange.sent is not None and (exchange.status is None or exchange.status >= 500)
    return failed and KINDS.get(exchange.fault, 0) != exchange.status


def seconds_of(fault: Fault) -> float:
    """How long its answer takes, or what its Retry-After says."""
    return fault.seconds or _SECONDS[fault.kind]


def _short(source: str, at: str) -> dict[str, object]:
    row: dict[str, object] = {}
    faults: list[dict[str, object]] = []
    for part in source.split(","):
        key, _, value = part.strip().partition("=")
        try:
            number = int(value) if key == "seed" else float(value)
        except ValueError:
            raise InputError(f"{at}: {part.strip()!r} is not KIND=RATE; write for example timeout=0.1") from None
        if key == "seed":
            row["seed"] = number
        else:
            faults.append({"kind": key, "rate": number})
    return {**row, "fault": faults}


def _check(fault: Fault, file: _File, at: str) -> None:
    one_of(fault.kind, tuple(KINDS), at, "kind")
    if bool(fault.calls) == bool(fault.rate):
        raise InputError(f"{at}: give one of `rate` (of the calls) and `calls` (their numbers)")
    if not 0 <= fault.rate <= 1:
        raise InputError(f"{at}: `rate` is {fault.rate}; it must be over 0 and at most 1")
    if any(nth < 1 for nth in fault.calls):
        raise InputError(f"{at}: `calls` holds {min(fault.calls)}; calls are counted from 1")
    if fault.seconds and (fault.kind not in _SECONDS or not 0 < fault.seconds <= 600):
        raise InputError(f"{at}: `seconds` is {fault.seconds:g}; it is for {', '.join(_SECONDS)}, at most 600")
    if fault.text and fault.kind not in _TEXTS:
        raise InputError(f"{at}: `text` has no place in a fault of kind {fault.kind!r}; leave it out")
    if not 0 < file.client_seconds <= 600:
        raise InputError(f"{at}: `client_seconds` is {file.client_seconds:g}; it must be over 0 and at most 600")
    if fault.kind == "timeout" and seconds_of(fault) <= file.client_seconds:
        what = f"`seconds` is {seconds_of(fault):g}, within the client's {file.client_seconds:g}"
        raise InputError(f"{at}: {what}, so nothing times out; raise it, or lower `client_seconds`")


def _tools(fault: Fault, toolsets: Sequence[Toolset], at: str) -> frozenset[str]:
    names = {f"{toolset.name}.{tool}": tool for toolset in toolsets for tool in toolset.tools}
    chosen: set[str] = set()
    for pattern in fault.tools or ("*",):
        found = {tool for full, tool in names.items() if fnmatchcase(full, pattern) or fnmatchcase(tool, pattern)}
        if not found:
            raise InputError(f"{at}: no tool is called {pattern!r}; {nearest(pattern, [*names, *names.values()])}")
        chosen |= found
    return frozenset(chosen)
