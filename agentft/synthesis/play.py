"""Plays a planned conversation: fills the slots and sends every call to its world."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from agentft.errors import InputError
from agentft.json_text import UnreadableError, parse_json
from agentft.synthesis.plan import Planned
from agentft.synthesis.recipe import BuildRecipe, CallPattern, Round, SystemPattern
from agentft.synthesis.slots import REFERENCE, Decks, Filler
from agentft.types import Exchange, Json, Span, ToolCall, ToolDefinition, ToolResult

__all__ = ["Caller", "Played", "PlayedRound", "Stage", "result_value"]

NOWHERE = Span(0, 0)


class Caller(Protocol):
    """Sends a call to a running tool server."""

    def call(self, call: ToolCall, session: str) -> Exchange:
        """Send the call and return the exchange; each session has its own state."""


@dataclass(frozen=True, slots=True)
class PlayedRound:
    """One user turn, the calls with their patterns and results, the answer, and what an answer must contain (`holds`).

    `template` is the wording before its slots were filled, which gave `user`.
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
    """A conversation that was played against the worlds."""

    category: str
    lang: str
    system: SystemPattern
    rounds: tuple[PlayedRound, ...]


@dataclass(frozen=True, slots=True)
class Stage:
    """Executes conversations, given a recipe, its decks, all tools by name, and a client of the tool server."""

    recipe: BuildRecipe
    decks: Decks
    tools: Mapping[str, ToolDefinition]
    client: Caller

    def play(self, planned: Planned, session: str) -> Played:
        """Play all rounds of a conversation in one session.

        Raises:
            InputError: a world answered differently than the recipe expects, or a template has an unknown reference.
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
        played = [self._call(pattern, filler, place, session) for pattern in item.calls]
        answer = filler.text(self.decks.draw(f"answer {place}", item.answer)) if item.answer else ""
        patterns = tuple(pattern.mapped(filler.value) for pattern in item.calls)
        holds = tuple(filler.text(text) for text in item.holds)
        for text in (user, answer, *holds):
            _check_filled(place, text, filler.unfilled(text))
        for pattern in patterns:
            _check_arguments(place, pattern.tool, {**pattern.optional, **pattern.alternatives})
        calls, results = tuple(call for call, _ in played), tuple(result for _, result in played)
        return PlayedRound(template, user, calls, patterns, results, answer, holds)

    def _call(self, pattern: CallPattern, filler: Filler, place: str, session: str) -> tuple[ToolCall, ToolResult]:
        arguments = {key: filler.value(value) for key, value in pattern.arguments.items()}
        _check_arguments(place, pattern.tool, arguments)
        endpoint = next(iter(self.tools[pattern.tool].endpoints), None)
        call = ToolCall(f"call_{len(filler.results) + 1}", pattern.tool, arguments, NOWHERE, endpoint=endpoint)
        exchange = self.client.call(call, session)
        if exchange.is_error != pattern.fails:
            expected = "fail" if pattern.fails else "succeed"
            written = f"{pattern.tool}{json.dumps(arguments, ensure_ascii=False)}"
            answer = f"{exchange.received[:200]}; correct the call or its `fails`"
            raise InputError(f"{place}: {written} should {expected}, but the world answered {answer}")
        filler.results.append(result_value(exchange.received))
        return call, ToolResult(call.id, exchange.received, NOWHERE, exchange.is_error)


def _check_arguments(place: str, tool: str, arguments: Mapping[str, Json]) -> None:
    """Arguments are the recipe's own, so whatever looks like a reference is one."""
    written = f"{tool}{json.dumps(arguments, ensure_ascii=False)}"
    found = REFERENCE.search(written)
    _check_filled(place, written, found[0] if found else "")


def _check_filled(place: str, text: str, reference: str) -> None:
    if reference:
        raise InputError(
            f"{place}: {reference} is still unfilled in {text[:200]!r}; slots are filled in texts and in the "
            "values of arguments, not in names, nor in what a slot or a result gave"
        )


def result_value(received: str) -> Json:
    """A result as JSON; as text if it is none."""
    try:
        return parse_json(received)
    except UnreadableError:
        return received
