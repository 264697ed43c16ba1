"""Playing a planned conversation: slots are filled, and every call is executed against the world."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agentft.errors import InputError
from agentft.synthesis.plan import Planned
from agentft.synthesis.recipe import BuildRecipe, CallPattern, Round, SystemPattern
from agentft.synthesis.slots import Decks, Filler
from agentft.types import Exchange, Json, Span, ToolCall, ToolDefinition, ToolResult

__all__ = ["Caller", "Played", "PlayedRound", "Stage"]

NOWHERE = Span(0, 0)


class Caller(Protocol):
    """Sends a call to a running tool server."""

    def call(self, call: ToolCall, session: str) -> Exchange:
        """The call's way over the wire; state is kept per `session`."""


@dataclass(frozen=True, slots=True)
class PlayedRound:
    """One user turn with what followed: calls, their patterns and their results; the answer; what it must hold.

    `template` is the wording that `user` was filled from.
    """

    template: str
    user: str
    calls: tuple[ToolCall, ...]
    patterns: tuple[CallPattern, ...]
    results: tuple[ToolResult, ...]
    answer: str
    holds: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Played:
    """A conversation that took place against the worlds."""

    category: str
    lang: str
    system: SystemPattern
    rounds: tuple[PlayedRound, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """Where conversations are played: the recipe's words, the decks, all tools by name, a client of the worlds."""

    recipe: BuildRecipe
    decks: Decks
    tools: Mapping[str, ToolDefinition]
    client: Caller

    def play(self, planned: Planned, session: str) -> Played:
        """Play every round in a session of its own.

        Raises:
            InputError: a world answered otherwise than the recipe expects, or a template names what is not there.
        """
        intent, system = planned
        filler = Filler(self.decks, self.recipe.values, intent.lang, intent.id)
        filler.words = self.recipe.words.get(intent.lang, {})
        rounds = tuple(
            self._round(item, filler, f"{intent.id}/{index}", session) for index, item in enumerate(intent.rounds)
        )
        return Played(intent.category, intent.lang, system, rounds)

    def _round(self, item: Round, filler: Filler, place: str, session: str) -> PlayedRound:
        template = self.decks.draw(f"say {place}", item.say)
        user = filler.text(template)
        made = [self._call(pattern, filler, place, session) for pattern in item.calls]
        answer = filler.text(self.decks.draw(f"answer {place}", item.answer)) if item.answer else ""
        return PlayedRound(
            template=template,
            user=user,
            calls=tuple(call for call, _ in made),
            patterns=tuple(pattern.mapped(filler.value) for pattern in item.calls),
            results=tuple(result for _, result in made),
            answer=answer,
            holds=tuple(filler.text(text) for text in item.holds),
        )

    def _call(self, pattern: CallPattern, filler: Filler, place: str, session: str) -> tuple[ToolCall, ToolResult]:
        arguments = {key: filler.value(value) for key, value in pattern.arguments.items()}
        endpoint = next(iter(self.tools[pattern.tool].endpoints), None)
        call = ToolCall(f"call_{len(filler.results) + 1}", pattern.tool, arguments, NOWHERE, endpoint=endpoint)
        exchange = self.client.call(call, session)
        if exchange.is_error != pattern.fails:
            wanted = "refused" if pattern.fails else "answered"
            said = f"{pattern.tool}{json.dumps(arguments, ensure_ascii=False)}"
            raise InputError(f"{place}: {said} was to be {wanted}, but the world said {exchange.received[:200]}")
        filler.results.append(_result_value(exchange.received))
        return call, ToolResult(call.id, exchange.received, NOWHERE, exchange.is_error)


def _result_value(received: str) -> Json:
    try:
        value: Json = json.loads(received)
    except ValueError:
        return received
    return value
