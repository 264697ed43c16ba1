"""The clients of an evaluation's tool server: each suite has one, which knows only the tools that the suite offers."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Self

from agentft.evaluation.plan import Plan
from agentft.toolserver import ToolClient, ToolServer
from agentft.types import Case, ToolCall

__all__ = ["SuiteClients"]

_LIMIT = 1 << 20  # bytes of a benchmark's result, some of which are long on purpose


class SuiteClients:
    """Opens a client when its suite first needs it. A context manager, which closes them."""

    def __init__(self, plan: Plan, server: ToolServer, timeout: float = 10.0) -> None:
        self._plan, self._server, self._timeout = plan, server, timeout
        self._clients: dict[str, ToolClient] = {}
        self._open = ExitStack()

    def of(self, case: Case) -> ToolClient:
        """The client of the case's suite."""
        if case.suite not in self._clients:
            view, own = self._plan.view(case), [one for one in self._plan.cases if one.suite == case.suite]
            tools = tuple({tool.name: tool for one in own for tool in self._plan.tools(one)}.values())
            if case.id in self._plan.setups:  # a benchmark runs whatever is called
                tools = tuple(tool for toolset in self._plan.toolsets for tool in toolset.definitions)

            def served(call: ToolCall) -> ToolCall:
                return view[call.name].served(call)

            client = ToolClient(
                self._server.address,
                self._server.token,
                tools,
                timeout=self._timeout,
                limit=_LIMIT if case.id in self._plan.setups else None,
                served=served if view else None,
            )
            self._clients[case.suite] = self._open.enter_context(client)
        return self._clients[case.suite]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
