"""Plans the conversations of a recipe: their intents, wordings and system texts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TypeAlias

from agentft.errors import InputError
from agentft.synthesis.compose import chain, follow_up, join, wrap
from agentft.synthesis.recipe import BuildRecipe, Intent, Phrases, SystemPattern
from agentft.synthesis.slots import Decks
from agentft.types import Category

__all__ = ["Planned", "Planner"]

Planned: TypeAlias = tuple[Intent, SystemPattern]
QUIET: Category = "irrelevance"


class Planner:
    """Draws intents from `decks` until the recipe's counts are met. Skips intents whose tools are in no system prompt.

    `world_of`: tool name -> the name of its world.
    """

    def __init__(self, recipe: BuildRecipe, decks: Decks, world_of: Mapping[str, str]) -> None:
        self._recipe = recipe
        self._decks = decks
        self._world_of = world_of
        self._systems = [system for system in recipe.systems for _ in range(system.share)]
        for system in recipe.systems:
            _check_known(f"{recipe.path}", system.tools, [tool for tool in world_of if world_of[tool] in system.worlds])
        for intent in recipe.intents:
            _check_known(intent.id, _tools(intent), list(world_of))  # fail before any call is made
        self._usable = [intent for intent in recipe.intents if any(self._fits(intent, one) for one in self._systems)]

    def plan(self) -> Iterator[Planned]:
        """Every conversation of the recipe: its intent, worded but with unfilled slots, and its system text."""
        for category, count in self._recipe.counts.items():
            for lang, share in _portions(count, self._recipe.languages).items():
                joined = round(share * self._recipe.composed.get(category, 0))
                for index in range(share):
                    yield self._composed(category, lang) if index < joined else self._explicit(category, lang)

    def _explicit(self, category: Category, lang: str) -> Planned:
        intent = self._worded(self._draw(f"intent {category} {lang}", self._intents(category, lang), category, lang))
        worlds = {self._world_of[tool] for tool in _tools(intent)}
        fitting = [system for system in self._systems if self._fits(intent, system)]
        system = self._decks.draw(f"system {' '.join(sorted(worlds))}", fitting)
        return self._in_context(replace(intent, category=category), lang), system

    def _composed(self, category: Category, lang: str) -> Planned:
        system = self._decks.draw(f"system for {category}", self._systems)
        inside = [intent for intent in self._intents("single", lang) if intent.calls and self._fits(intent, system)]
        make = {"several_tools": self._several, "parallel": self._parallel, "multi_round": self._multi_round}
        if category not in make:
            raise InputError(f"{self._recipe.path}: {category} rows cannot be `composed`, only {', '.join(make)}")
        deck = f"{category} {lang} {' '.join(sorted(system.worlds))}"
        return self._in_context(make[category](inside, deck, lang), lang), system

    def _several(self, inside: Sequence[Intent], deck: str, lang: str) -> Intent:
        able = [intent for intent in inside if intent.do]
        first = self._draw(deck, able, "several_tools", lang)
        others = [intent for intent in able if _tools(intent).isdisjoint(_tools(first))]
        second = self._draw(f"{deck} after {sorted(_tools(first))}", others, "several_tools", lang)
        return join((first, second), self._joint(lang), self._decks, "several_tools")

    def _parallel(self, inside: Sequence[Intent], deck: str, lang: str) -> Intent:
        intent = self._draw(deck, [intent for intent in inside if intent.do], "parallel", lang)
        return join((intent, intent), self._joint(lang), self._decks, "parallel")

    def _multi_round(self, inside: Sequence[Intent], deck: str, lang: str) -> Intent:
        kind = self._decks.draw(f"{deck} kind", ("follow", "follow", "long", "other", "talk", "greet"))
        if kind in ("follow", "long"):
            able = [intent for intent in inside if intent.follow]
            intent = self._worded(self._draw(f"{deck} follow", able, "multi_round", lang))
            return follow_up(intent, self._decks, 2 if kind == "long" else 1)
        first = self._worded(self._draw(deck, inside, "multi_round", lang))
        if kind == "other":
            return chain(first, self._worded(self._draw(deck, inside, "multi_round", lang)))
        talk = self._worded(self._draw(f"intent {QUIET} {lang}", self._intents(QUIET, lang), QUIET, lang))
        return chain(first, talk) if kind == "talk" else chain(talk, first)

    def _worded(self, intent: Intent) -> Intent:
        """Choose one wording of the first round: one of the intent's own, or a `do` clause in a wrap."""
        wraps = self._phrases(intent.lang).wraps
        wrapped = bool(intent.do and wraps) and (not intent.say or self._decks.chance(f"wrap {intent.id}", 0.4))
        if wrapped:
            clause = self._decks.draw(f"do {intent.id}", intent.do)
            say = wrap(clause, self._decks.draw(f"wrap {intent.lang}", wraps))
        else:
            say = self._decks.draw(f"say {intent.id}", intent.say)
        return replace(intent, say=(say,))

    def _in_context(self, intent: Intent, lang: str) -> Intent:
        """Sometimes add a sentence before or after the first request, unless it is small talk."""
        if intent.category in (QUIET, "multi_round") and not intent.calls:
            return intent
        phrases, say = self._phrases(lang), intent.say[0]
        gap = "" if lang == "zh" else " "
        if phrases.before and self._decks.chance(f"before {lang}", self._recipe.context.get("before", 0)):
            say = self._decks.draw(f"before {lang}", phrases.before) + gap + say
        elif phrases.after and self._decks.chance(f"after {lang}", self._recipe.context.get("after", 0)):
            say = say + gap + self._decks.draw(f"after {lang}", phrases.after)
        return replace(intent, say=(say,))

    def _fits(self, intent: Intent, system: SystemPattern) -> bool:
        return all(self._world_of[tool] in system.worlds and system.has(tool) for tool in _tools(intent))

    def _intents(self, category: Category, lang: str) -> list[Intent]:
        return [
            intent
            for intent in self._usable
            if intent.category == category and intent.lang == lang
            for _ in range(intent.share)
        ]

    def _draw(self, deck: str, intents: Sequence[Intent], category: Category, lang: str) -> Intent:
        if not intents:
            raise InputError(f"{self._recipe.path}: no intent gives a {category} row in {lang!r}; add one")
        return self._decks.draw(deck, intents)

    def _joint(self, lang: str) -> str:
        joins = self._phrases(lang).joins
        if not joins:
            raise InputError(f"{self._recipe.path}: phrases.{lang} has no `joins`; add some or set `composed` to 0")
        return self._decks.draw(f"joins {lang}", joins)

    def _phrases(self, lang: str) -> Phrases:
        return self._recipe.phrases.get(lang, Phrases())


def _tools(intent: Intent) -> set[str]:
    return {call.tool for item in intent.rounds for call in item.calls}


def _check_known(place: str, tools: Iterable[str], known: Sequence[str]) -> None:
    for tool in sorted(tools):
        if tool not in known:
            raise InputError(f"{place}: no world of this recipe has a tool {tool!r}; known: {', '.join(known)}")


def _portions(count: int, languages: Mapping[str, float]) -> dict[str, int]:
    """Split `count` by share; the first language gets the rounding error."""
    total = sum(languages.values())
    portions = {lang: round(count * share / total) for lang, share in languages.items()}
    portions[next(iter(portions))] += count - sum(portions.values())
    return portions
