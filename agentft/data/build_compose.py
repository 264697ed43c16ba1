"""Joining small intents into larger ones, by rewriting their templates: slots get tags, results get numbers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agentft.data.build_recipe import CallPattern, Intent, Round
from agentft.data.build_slots import REFERENCE, Decks
from agentft.types import Json

__all__ = ["chain", "follow_up", "join", "retag", "wrap"]


def wrap(clause: str, pattern: str, number: str = "") -> str:
    """Put a `do` clause into a pattern: `{do}` as it is, `{Do}` with a capital at its start."""
    mark = f":{number}" if number else ""
    return pattern.replace(f"{{do{mark}}}", clause).replace(f"{{Do{mark}}}", clause[:1].upper() + clause[1:])


def join(parts: Sequence[Intent], pattern: str, decks: Decks, category: str) -> Intent:
    """One request for all of `parts` (single-round intents with `do` clauses), joined by `pattern`."""
    say, calls, answers = pattern, list[CallPattern](), list[str]()
    for index, part in enumerate(parts, start=1):
        own = retag(part.rounds[0], str(index), offset=len(calls))
        clause = _retag_text(decks.draw(f"do {part.id}", part.do), str(index), 0, None)
        say = wrap(clause, say, str(index))
        answers.append(decks.draw(f"answer {part.id}", own.answer) if own.answer else "")
        calls += own.calls
    joined = Round((say,), tuple(calls), (" ".join(filter(None, answers)),))
    return Intent("+".join(part.id for part in parts), parts[0].lang, category, 1, (joined,))


def follow_up(intent: Intent, decks: Decks, rounds: int) -> Intent:
    """The intent, then `rounds` follow-ups, each with new values for the slots that it mentions."""
    chained, newest = list(intent.rounds), intent.rounds[-1]
    for number in range(rounds):
        phrase = decks.draw(f"follow {intent.id}", intent.follow)
        fresh = {match["slot"] for match in REFERENCE.finditer(phrase)}
        renamed = replace(newest, say=(phrase,))
        chained.append(retag(renamed, f"f{number}", offset=len(newest.calls), only=fresh))
        newest = retag(newest, f"f{number}", offset=len(newest.calls), only=fresh)
    return replace(intent, category="multi_round", rounds=tuple(chained))


def chain(first: Intent, second: Intent) -> Intent:
    """The rounds of one intent, then those of another."""
    offset = sum(len(item.calls) for item in first.rounds)
    rounds = tuple(retag(item, "z", offset=offset) for item in second.rounds)
    return replace(first, id=f"{first.id}>{second.id}", category="multi_round", rounds=(*first.rounds, *rounds))


def retag(item: Round, tag: str, *, offset: int = 0, only: set[str] | None = None) -> Round:
    """The round with `tag` added to its slots (to those in `only`, if given) and `offset` to its result numbers."""

    def texts(values: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_retag_text(value, tag, offset, only) for value in values)

    def values(table: Mapping[str, Json]) -> dict[str, Json]:
        return {key: _retag_value(value, tag, offset, only) for key, value in table.items()}

    calls = tuple(
        replace(
            call,
            arguments=values(call.arguments),
            optional=values(call.optional),
            alternatives=values(call.alternatives),
        )
        for call in item.calls
    )
    return Round(texts(item.say), calls, texts(item.answer), texts(item.holds))


def _retag_value(value: Json, tag: str, offset: int, only: set[str] | None) -> Json:
    if isinstance(value, list):
        return [_retag_value(item, tag, offset, only) for item in value]
    return _retag_text(value, tag, offset, only) if isinstance(value, str) else value


def _retag_text(text: str, tag: str, offset: int, only: set[str] | None) -> str:
    def renamed(match: re.Match[str]) -> str:
        field = f".{match['field']}" if match["field"] else ""
        if match["slot"].isdigit():
            return f"{{{int(match['slot']) + offset}{field}}}"
        if only is not None and match["slot"] not in only:
            return match[0]
        return f"{{{match['slot']}:{match['tag'] or ''}{tag}{field}}}"

    return REFERENCE.sub(renamed, text)
