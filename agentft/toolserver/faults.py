"""Which calls fail, and how: read from a file, and determined by the seed, session, tool and number of the call.

docs/faults.md describes the file. Its keys are the fields of `_File`, and of `Fault` in each `[[fault]]` table.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from agentft.errors import InputError
from agentft.strict import nearest, own_table, read_as, read_toml
from agentft.toolset import Toolset
from agentft.types import Exchange

__all__ = ["FAULT_KINDS", "Fault", "FaultKind", "Schedule", "is_ours", "read_faults"]


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault: the status that a client sees (None: the response may be incomplete) and the message.

    `effect`: the call always takes effect, whatever `Fault.after` is. `seconds`: the default delay or Retry-After.
    """

    status: int | None = None
    text: str = ""
    effect: bool = False
    seconds: float = 0.0


FAULT_KINDS = own_table(__file__, FaultKind)


@dataclass(frozen=True, slots=True)
class Fault:
    """One rule: which calls of which tools fail (`world.tool` or `tool`, with * and ?; empty: all tools).

    Either `rate` (share of the calls) or `calls` (their numbers, per tool and session) is set. `seconds` 0 and `text`
    "" mean the default of the kind. `after`: a write takes effect before the fault.

    Raises:
        InputError: a value is not allowed, or does not apply to the kind.
    """

    kind: str
    tools: tuple[str, ...] = ()
    rate: float = 0.0
    calls: tuple[int, ...] = ()
    seconds: float = 0.0
    after: bool = False
    text: str = ""

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise InputError(f"`kind` is {self.kind!r:.60}, which is not valid; {nearest(self.kind, [*FAULT_KINDS])}")
        if bool(self.calls) == bool(self.rate):
            raise InputError("set either `rate` (the share of the calls) or `calls` (their numbers)")
        if not 0 <= self.rate <= 1:
            raise InputError(f"`rate` is {self.rate}; it must be above 0 and at most 1")
        if any(nth < 1 for nth in self.calls):
            raise InputError(f"`calls` contains {min(self.calls)}; calls are counted from 1")
        if self.seconds and not (self.definition.seconds and 0 < self.seconds <= 600):
            slow = ", ".join(sorted(name for name, kind in FAULT_KINDS.items() if kind.seconds))
            raise InputError(f"`seconds` is {self.seconds:g}; it applies to {slow}, and is at most 600")
        if self.text and not self.definition.text:
            raise InputError(f"`text` does not apply to faults of kind {self.kind!r}; leave it out")

    @property
    def definition(self) -> FaultKind:
        """The definition of the fault's kind."""
        return FAULT_KINDS[self.kind]

    @property
    def delay(self) -> float:
        """The response's delay or its Retry-After, in seconds."""
        return self.seconds or self.definition.seconds


@dataclass(frozen=True, slots=True)
class _File:
    fault: tuple[Fault, ...]
    seed: int = 0
    client_seconds: float = 10.0

    def __post_init__(self) -> None:
        if not self.fault:
            raise InputError("it has no faults; write [[fault]] with a kind and a rate")
        if not 0 < self.client_seconds <= 600:
            raise InputError(f"`client_seconds` is {self.client_seconds:g}; it must be above 0 and at most 600")
        for index, fault in enumerate(self.fault):
            if fault.kind == "timeout" and fault.delay <= self.client_seconds:
                what = f"fault[{index}]: `seconds` is {fault.delay:g}, and the client waits {self.client_seconds:g}"
                raise InputError(f"{what}, so nothing times out; raise it, or lower `client_seconds`")


class Schedule:
    """The faults of a run. Stateless: `at` returns the same fault for the same arguments, in any order of calls.

    Args:
        file: the faults file.
        tools: the tools that each rule applies to.
    """

    def __init__(self, file: _File, tools: Sequence[frozenset[str]]) -> None:
        self.seed = file.seed
        self.client_seconds = file.client_seconds
        self.digest = hashlib.sha256(json.dumps(asdict(file), sort_keys=True).encode()).hexdigest()
        self.stale = any(fault.kind == "stale" for fault in file.fault)
        self._rules = tuple(zip(file.fault, tools, strict=True))

    def at(self, session: str, tool: str, nth: int) -> Fault | None:
        """The fault of the n-th call (from 1) of a tool in a session, or None.

        Only the part of the session's name after its last dot counts, which is the same for every model. The first
        call is never stale, because it has no earlier result.
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
        InputError: it cannot be read, a key or value is wrong, or a rule matches no tool of these worlds.
    """
    short = "=" in source and not Path(source).exists()
    at = f"--faults {source}" if short else source
    row = _short(source, at) if short else read_toml(Path(source), "give a faults file, or KIND=RATE such as 429=0.05")
    file = read_as(_File, row, at)
    return Schedule(file, [_tools(fault, toolsets, f"{at}: fault[{index}]") for index, fault in enumerate(file.fault)])


def is_ours(exchange: Exchange) -> bool:
    """Whether the server itself failed: an exchange failed, and no injected fault explains it."""
    failed = exchange.sent is not None and (exchange.status is None or exchange.status >= 500)
    fault = FAULT_KINDS.get(exchange.fault)
    return failed and (fault is None or fault.status != exchange.status)


def _short(source: str, at: str) -> dict[str, object]:
    faults: list[dict[str, object]] = []
    row: dict[str, object] = {"fault": faults}
    for part in source.split(","):
        key, _, value = part.strip().partition("=")
        try:
            if key == "seed":
                row["seed"] = int(value)
            else:
                faults.append({"kind": key, "rate": float(value)})
        except ValueError:
            raise InputError(f"{at}: {part.strip()!r} is not KIND=RATE; write for example timeout=0.1") from None
    return row


def _tools(fault: Fault, toolsets: Sequence[Toolset], at: str) -> frozenset[str]:
    names = {f"{toolset.name}.{tool}": tool for toolset in toolsets for tool in toolset.tools}
    chosen: set[str] = set()
    for pattern in fault.tools or ("*",):
        found = {tool for full, tool in names.items() if fnmatchcase(full, pattern) or fnmatchcase(tool, pattern)}
        if not found:
            raise InputError(f"{at}: no tool is named {pattern!r}; {nearest(pattern, [*names, *names.values()])}")
        chosen |= found
    return frozenset(chosen)
