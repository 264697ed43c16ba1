"""How a derived suite shows the tools of its worlds: under other names, with other arguments and values; and back.

A suite with `view = "view.json"` shows exactly the tools of that file: `{"tools": [ShownTool, ...]}`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from agentft.errors import InputError
from agentft.strict import read_as, read_bytes, read_json_line
from agentft.toolset.arguments import ArgumentCheck
from agentft.types import CallExpectation, Json, ToolCall, ToolDefinition

__all__ = ["ShownTool", "read_view", "shown_name"]


@dataclass(frozen=True)
class ShownTool:
    """A tool as a model sees it. `tool`: its name in its world.

    `arguments`: shown name -> the world's, if they differ. `values`: shown argument -> shown value -> the world's.
    `factors`: shown argument -> how many times the world's number is shown.
    """

    name: str
    tool: str
    parameters: Mapping[str, Any]
    description: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    values: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    factors: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def _check(self) -> ArgumentCheck:
        return ArgumentCheck(ToolDefinition(self.name, self.description, self.parameters))

    def served(self, call: ToolCall) -> ToolCall:
        """The call as the world takes it.

        Raises:
            ToolError: the arguments do not satisfy the shown schema; the message names what the model sees.
        """
        arguments = {
            self.arguments.get(name, name): self._world_value(name, value)
            for name, value in self._check(call.arguments).items()
        }
        return replace(call, name=self.tool, arguments=arguments, endpoint=None)

    def _world_value(self, name: str, value: Any) -> Json:
        if isinstance(value, list):
            return [self._world_value(name, item) for item in value]
        if (factor := self.factors.get(name)) and isinstance(value, int | float):
            return value / factor if value % factor else int(value // factor)
        known: Json = self.values.get(name, {}).get(value, value) if isinstance(value, str) else value
        return known

    def expected(self, call: CallExpectation) -> CallExpectation:
        """An expected call of the world as it is shown."""
        names = {inner: shown for shown, inner in self.arguments.items()}

        def shown(table: Mapping[str, Any]) -> dict[str, Any]:
            return {names.get(key, key): self._shown_value(names.get(key, key), value) for key, value in table.items()}

        others = {key: tuple(values) for key, values in shown(call.alternatives).items()}
        return CallExpectation(self.name, shown(call.arguments), others, shown(call.optional))

    def _shown_value(self, name: str, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self._shown_value(name, item) for item in value]
        if (factor := self.factors.get(name)) and isinstance(value, int | float):
            return value * factor
        return next((shown for shown, inner in self.values.get(name, {}).items() if inner == value), value)


def shown_name(tools: Iterable[ShownTool], name: str) -> ShownTool | None:
    """The first shown tool that stands for a world's tool."""
    return next((tool for tool in tools if tool.tool == name), None)


@dataclass(frozen=True, slots=True)
class _File:
    tools: tuple[ShownTool, ...]


def read_view(path: Path) -> tuple[ShownTool, ...]:
    """The tools of a view.json.

    Raises:
        InputError: it cannot be read, or a tool in it is invalid or has the name of another.
    """
    content = read_bytes(path, "derive the suite again")
    tools = read_as(_File, read_json_line(content, str(path)), str(path)).tools
    names = [tool.name for tool in tools]
    for tool in tools:
        if names.count(tool.name) > 1:
            raise InputError(f"{path}: two tools are named {tool.name!r}; rename one")
        try:
            ArgumentCheck(ToolDefinition(tool.name, tool.description, tool.parameters))
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
    return tools
