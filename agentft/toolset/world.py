"""A loaded tool world: its definitions, its handlers and its state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentft.errors import AgentftError, InputError, ToolError
from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.containment import Interruption, foreign_code
from agentft.toolset.marks import Access, Handler, State, did_you_mean
from agentft.toolset.routes import Route
from agentft.toolset.state import copy_json, digest, draft, freeze
from agentft.types import Json, ToolDefinition

__all__ = ["HandlerError", "Tool", "Toolset"]


class HandlerError(AgentftError):
    """A handler failed because of a bug; `__cause__` is what it raised. Sent as a 500."""


@dataclass(frozen=True, slots=True)
class Tool:
    """One tool of a world.

    `example`: the arguments of the documented example. `returns`: the JSON Schema of its result, {} if unknown.
    `route`: only for a tool of an imported API; every tool is also served at `POST /tools/<name>`.
    `operation`: its name where it was imported from.
    """

    definition: ToolDefinition
    handler: Handler
    access: Access
    check: ArgumentCheck
    example: Mapping[str, Json]
    returns: Mapping[str, Json] = field(default_factory=dict)
    route: Route | None = None
    operation: str = ""


class Toolset:
    """The tools of one world. It holds no session: callers make states with `new_state` and pass them to `call`.

    Args:
        name: the world's name, which is that of its folder.
        base_url: the address that models see: a tool's endpoint is `<base_url>/<tool>`.
        tools: by name.
        initial: the state that sessions start with.
        seed: fixes every result, together with the arguments and the state. Handlers find it at `state["seed"]`.
        comparators: `tool.argument` -> name of the comparison that scoring uses instead of equality.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        tools: Mapping[str, Tool],
        initial: State,
        *,
        seed: int = 0,
        comparators: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.base_url = base_url
        self.tools = dict(tools)
        self.comparators = dict(comparators or {})
        self._initial: State = freeze({**initial, "seed": seed})

    @property
    def definitions(self) -> tuple[ToolDefinition, ...]:
        """The definitions that a model sees, in the order of the file."""
        return tuple(tool.definition for tool in self.tools.values())

    def only(self, names: Sequence[str]) -> Toolset:
        """The same world with only these tools.

        Raises:
            InputError: it has no such tool.
        """
        for name in names:
            if name not in self.tools:
                raise InputError(f"tool world {self.name} has no tool {name!r}{did_you_mean(name, list(self.tools))}")
        tools = {name: tool for name, tool in self.tools.items() if name in names}
        return Toolset(
            self.name, self.base_url, tools, self._initial, seed=self._initial["seed"], comparators=self.comparators
        )

    def new_state(self, seed: int | None = None) -> State:
        """A fresh state with frozen parts; `seed` replaces the seed that the world was loaded with."""
        return {**self._initial, "seed": self._initial["seed"] if seed is None else seed}

    def is_write(self, name: str) -> bool:
        """Whether the tool may change the state; False for an unknown name."""
        return name in self.tools and self.tools[name].access != "read"

    def digest(self, state: State) -> str:
        """SHA-256 of the state; 25 and 25.0 are the same number."""
        return digest(state)

    def call(self, name: str, arguments: Mapping[str, Json], state: State) -> Json:
        """Run a tool. A read gets `state` frozen; a write gets a draft, which replaces the state if it succeeds.

        Callers must not run two calls on one state at the same time.

        Raises:
            ToolError: the tool or an argument is refused; the message is meant for the model.
            HandlerError: the handler or the tool's schema has a bug.
        """
        tool = self.tools.get(name)
        if tool is None:
            raise ToolError(f"there is no tool {name!r}{did_you_mean(name, list(self.tools))}", status=404)
        with foreign_code():
            try:
                return _run(tool, tool.check(arguments), state)
            except (ToolError, Interruption):
                raise
            # The tool boundary: whatever a world's code raises, the server and the other sessions keep running.
            except BaseException as error:
                if isinstance(error, UnicodeEncodeError) and not _is_text(arguments):
                    raise ToolError("an argument contains half a surrogate pair, which is not text") from error
                raise HandlerError(f"internal error in tool {name}") from error


def _run(tool: Tool, arguments: Mapping[str, Json], state: State) -> Json:
    frozen = freeze(state)
    working: State = frozen if tool.access == "read" else draft(frozen)
    result: Json = copy_json(tool.handler(working, **arguments))
    # A result that cannot be sent must fail here, before the state is replaced.
    json.dumps(result, ensure_ascii=False, allow_nan=False).encode()
    if tool.access != "read":
        kept: State = freeze(working)
        state.clear()
        state.update(kept)
    return result


def _is_text(arguments: Mapping[str, Json]) -> bool:
    """Whether the arguments can be encoded."""
    try:
        json.dumps(dict(arguments), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True
