"""Combines intents into larger ones by renaming the slots and renumbering the results in their templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agentft.synthesis.recipe import CallPattern, Intent, Round
from agentft.synthesis.slots import REFERENCE, Decks
from agentft.types import Category, Json

__all__ = ["Retag", "chain", "follow_up", "join", "wrap"]


def wrap(clause: str, pattern: str, number: str = "") -> str:
    """Insert a `do` clause into a pattern: unchanged for `{do}`, capitalised for `{Do}`."""
    mark = f":{number}" if number else ""
    return pattern.replace(f"{{do{mark}}}", clause).replace(f"{{Do{mark}}}", clause[:1].upper() + clause[1:])


def join(parts: Sequence[Intent], pattern: str, decks: Decks, category: Category) -> Intent:
    """Combine single-round intents with `do` clauses into one request, in the wording of `pattern`."""
    say, calls, answers, holds = pattern, list[CallPattern](), list[str](), list[str]()
    for number, part in enumerate(parts, start=1):
        tag = Retag(str(number), len(calls))
        own = tag.round(part.rounds[0])
        say = wrap(tag.text(decks.draw(f"do {part.id}", part.do)), say, str(number))
        answers += [decks.draw(f"answer {part.id}", own.answer)] if own.answer else []
        calls += own.calls
        holds += own.holds
    lang = parts[0].lang
    answer = ("" if lang == "zh" else " ").join(answers)
    name = "+".join(part.id for part in parts)
    answered = (answer,) if answer else ()
    return Intent(name, lang, category, say=(say,), calls=tuple(calls), answer=answered, holds=tuple(holds))


def follow_up(intent: Intent, decks: Decks, rounds: int) -> Intent:
    """Add `rounds` follow-ups to an intent, each with new values for the slots that it mentions."""
    base, then = intent.rounds[-1], list(intent.then)
    tags: dict[str, str] = {}
    for number in range(1, rounds + 1):
        phrase = decks.draw(f"follow {intent.id}", intent.follow)
        tags |= {match["slot"]: f"f{number}" for match in REFERENCE.finditer(phrase)}
        then.append(Retag("", number * len(base.calls), tags).round(replace(base, say=(phrase,))))
    return replace(intent, category="multi_round", then=tuple(then))


def chain(first: Intent, second: Intent) -> Intent:
    """Append the rounds of one intent to those of another."""
    tag = Retag("z", sum(len(item.calls) for item in first.rounds))
    then = (*first.then, *map(tag.round, second.rounds))
    return replace(first, id=f"{first.id}>{second.id}", category="multi_round", then=then)


@dataclass(frozen=True, slots=True)
class Retag:
    """Renames references in templates, so that one conversation can hold two intents.

    `tag` is added to every slot; if `tags` is set, each slot gets the tag listed there, if any. `offset` is added to
    result numbers.
    """

    tag: str
    offset: int
    tags: Mapping[str, str] | None = None

    def round(self, item: Round) -> Round:
        """Rename the references in all templates of a round."""
        calls = tuple(call.mapped(self._value) for call in item.calls)
        say, answer, holds = (tuple(map(self.text, texts)) for texts in (item.say, item.answer, item.holds))
        return Round(say, calls, answer, holds)

    def text(self, template: str) -> str:
        """Rename the references in a template."""
        return REFERENCE.sub(self._renamed, template)

    def _value(self, value: Json) -> Json:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if isinstance(value, dict):
            return {key: self._value(item) for key, item in value.items()}
        return self.text(value) if isinstance(value, str) else value

    def _renamed(self, match: re.Match[str]) -> str:
        field = f".{match['field']}" if match["field"] else ""
        if match["slot"].isdecimal():
            return f"{{{int(match['slot']) + self.offset}{field}}}"
        tag = (match["tag"] or "") + (self.tag if self.tags is None else self.tags.get(match["slot"], ""))
        return f"{{{match['slot']}{tag and ':' + tag}{field}}}"
