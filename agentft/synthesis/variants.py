"""Training rows from the cases of a suite, without a model: in the words of a recipe, or with other values.

Every call of a row has been sent to its world, and every result is the world's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from random import Random
from typing import Any, Literal, cast

from agentft.errors import InputError
from agentft.synthesis.build import write_row
from agentft.synthesis.plan import Planned, Planner
from agentft.synthesis.play import Caller, Stage, result_value
from agentft.synthesis.recipe import BuildRecipe, CallPattern, Intent, SystemPattern
from agentft.synthesis.slots import Decks
from agentft.toolset import Toolset
from agentft.toolset.sampling import UnsatisfiableError, draw
from agentft.types import CallExpectation, Case, Json, Span, ToolCall, ToolDefinition, ToolResult

__all__ = ["Proposal", "Studio", "argument_values"]

Kind = Literal["template", "values"]
_NOWHERE = Span(0, 0)
_PLANNED = 60  # conversations that a recipe plans for a category and language, to choose from
_TRIES = 12  # choices of other values
_FEW = 4  # with fewer free values, those of the evaluation's cases are used too: a world may have no others
_Rounds = list[tuple[str, Sequence[ToolCall], Sequence[ToolResult], str]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A training row proposed for a failed case.

    `kind`: `template`: wording and values of a recipe; `values`: the case's wording with other values. `said`: the user
    turns; `calls`: the calls that the row ends with.
    """

    case: str
    kind: Kind
    said: tuple[str, ...]
    calls: tuple[ToolCall, ...]
    row: dict[str, Json]


@dataclass
class Studio:
    """Makes rows for the cases of one suite.

    Args:
        client: sends calls to the running worlds.
        toolsets: these worlds.
        persona: the suite's.
        taken: by tool and argument, the values (see `argument_values`) that rows use only if there are no others.
        known: by tool and argument, values that training data use.
        recipe: the wordings to draw from; None: no templates.
        seed: fixes every choice.
    """

    client: Caller
    toolsets: Sequence[Toolset]
    persona: str
    taken: Mapping[tuple[str, str], Collection[str]]
    known: Mapping[tuple[str, str], Sequence[Json]]
    recipe: BuildRecipe | None = None
    seed: int = 0
    _plays: int = 0
    _decks: Decks | None = None
    _plans: dict[tuple[str, str], list[Planned]] = field(default_factory=dict)

    def variants(self, case: Case, last: int | None, tools: Sequence[ToolDefinition], count: int) -> Iterator[Proposal]:
        """At most `count` rows: templates first, since they teach other words too. `last`: see `values`; None: none."""
        values = () if last is None else self.values(case, last, tools)
        yield from islice(chain(self.templates(case, tools), values), count)

    def templates(self, case: Case, tools: Sequence[ToolDefinition]) -> Iterator[Proposal]:
        """Rows of the case's category and language that call the same tools, in the words of the recipe.

        Rows that pass the same arguments come first; no row is made twice.
        """
        if self.recipe is None:
            return
        wanted, keys = sorted(call.name for call in case.calls), sorted(map(_keys, case.calls))
        planned = self._planned(self.recipe, case, tools)
        fitting = [one for one in planned if sorted(call.tool for call in _calls_of(one[0])) == wanted]
        fitting.sort(key=lambda one: sorted(map(_keys, _calls_of(one[0]))) != keys)
        self._decks = self._decks or Decks(self.seed)
        stage = Stage(self.recipe, self._decks, {tool.name: tool for tool in tools}, self.client)
        for one in fitting:
            planned.remove(one)
            with suppress(InputError):  # the world answers otherwise than the recipe expects
                played = stage.play(one, self._session())
                rounds: _Rounds = [(item.user, item.calls, item.results, item.answer) for item in played.rounds]
                yield self._proposal(case, "template", tools, rounds)

    def values(self, case: Case, last: int, tools: Sequence[ToolDefinition]) -> Iterator[Proposal]:
        """The case up to turn `last` with other values for what the user names, as far as the worlds accept them."""
        turns, original = case.turns[: last + 1], self._play(case, last, {}, [])
        choices = self._choices(case, last, {tool.name: tool for tool in tools})
        if original is None or not any(choices.values()):
            return
        random, made = Random(f"{self.seed}/{case.id}"), {tuple(turn.user for turn in turns)}
        for _ in range(_TRIES):
            swap = {text: random.choice(values) for text, values in choices.items() if values}
            said = tuple(_reworded(turn.user, swap) for turn in turns)
            if said not in made and len(set(map(_text, swap.values()))) == len(swap):
                made.add(said)
                if rounds := self._play(case, last, swap, original):
                    yield self._proposal(case, "values", tools, rounds)

    def _proposal(self, case: Case, kind: Kind, tools: Sequence[ToolDefinition], rounds: _Rounds) -> Proposal:
        said = tuple(user for user, *_ in rounds)
        return Proposal(case.id, kind, said, tuple(rounds[-1][1]), write_row("", self.persona, tools, rounds, case.id))

    def _planned(self, recipe: BuildRecipe, case: Case, tools: Sequence[ToolDefinition]) -> list[Planned]:
        if (case.category, case.lang) not in self._plans:
            known = {toolset.name: toolset.tools for toolset in self.toolsets}
            world_of = {tool.name: name for name in case.worlds for tool in tools if tool.name in known[name]}
            inside = tuple(one for one in recipe.intents if all(call.tool in world_of for call in _calls_of(one)))
            system = SystemPattern(self.persona, case.worlds, tools=tuple(world_of))
            own = replace(recipe, counts={case.category: _PLANNED}, languages={case.lang: 1.0}, systems=(system,))
            plans = self._plans[case.category, case.lang] = []
            with suppress(InputError):  # it has no such rows
                plans += Planner(replace(own, intents=inside), Decks(self.seed), world_of).plan()
        return self._plans[case.category, case.lang]

    def _play(self, case: Case, last: int, swap: Mapping[str, Json], original: _Rounds | None) -> _Rounds | None:
        """Play the turns up to `last` with swapped values; None if a world refuses a call that it should take.

        Values that the user does not name and that an earlier result of the original holds come from the same place of
        the new result.
        """
        session, rounds, results = self._session(), _Rounds(), list[Json]()
        before = [result_value(result.content) for _, _, found, _ in original or () for result in found]
        said = ""
        for index, turn in enumerate(case.turns[: last + 1]):
            said += f"\n{turn.user}"
            calls, answers = list[ToolCall](), list[ToolResult]()
            change = _changer(said, swap, before, results)
            for expected in turn.calls:
                call = self._as_call(expected, change, len(results))
                exchange = self.client.call(call, session)
                if exchange.is_error:
                    return None
                results.append(result_value(exchange.received))
                calls.append(call)
                answers.append(ToolResult(call.id, exchange.received, _NOWHERE))
            answer = _answer(case, index, change) if index < last or not calls else ""
            if not calls and not answer:
                return None
            rounds.append((_reworded(turn.user, swap), calls, answers, answer))
        return rounds

    def _as_call(self, expected: CallExpectation, change: Callable[[Json], Json], number: int) -> ToolCall:
        arguments = {name: _mapped(value, change) for name, value in expected.arguments.items()}
        tools = {name: tool.definition for toolset in self.toolsets for name, tool in toolset.tools.items()}
        endpoint = next(iter(tools[expected.name].endpoints), None)
        return ToolCall(f"call_{number + 1}", expected.name, arguments, _NOWHERE, endpoint=endpoint)

    def _session(self) -> str:
        self._plays += 1
        return f"variant-{self._plays}"

    def _choices(self, case: Case, last: int, tools: Mapping[str, ToolDefinition]) -> dict[str, list[Json]]:
        """What the user names, as text, with other values for it."""
        said = "\n".join(turn.user for turn in case.turns[: last + 1])
        found: dict[str, list[Json]] = {}
        for call in case.calls:
            for name, value in call.arguments.items():
                for leaf in _leaves(value):
                    if _spoken(leaf, said) and _text(leaf) not in found:
                        found[_text(leaf)] = self._others(tools[call.name], name, leaf, case.id)
        return found

    def _others(self, tool: ToolDefinition, name: str, value: Json, place: str) -> list[Json]:
        """Other values for an argument: of its enum, else of the world and of training data, else drawn."""
        properties: Any = tool.parameters.get("properties", {})
        schema = properties.get(name, {})
        if "enum" in schema:
            return [other for other in schema["enum"] if other != value]
        others = [*self.known.get((tool.name, name), ())]
        others += [other for toolset in self.toolsets for other in _siblings(toolset.new_state(), value)]
        if isinstance(value, int | float) or not others:  # the numbers of a state mean many things
            near = {"minimum": value // 2, "maximum": value * 2 + 2} if isinstance(value, int | float) else {}
            with suppress(UnsatisfiableError):
                others = [draw(near | schema, f"{self.seed}/{place}/{name}/{n}", formats=True) for n in range(9)]
        same = {_text(other).casefold(): other for other in (value, *others) if type(other) is type(value)}
        del same[_text(value).casefold()]
        free = [other for text, other in same.items() if text not in self.taken.get((tool.name, name), ())]
        return free if len(free) >= _FEW else list(same.values())


def argument_values(cases: Collection[Case]) -> dict[tuple[str, str], set[str]]:
    """The values of every expected argument, by tool and argument, as texts in lower case."""
    found: dict[tuple[str, str], set[str]] = {}
    for call in (call for case in cases for call in case.calls):
        for name, value in call.arguments.items():
            leaves = [leaf for one in (value, *call.alternatives.get(name, ())) for leaf in _leaves(one)]
            found.setdefault((call.name, name), set()).update(_text(leaf).casefold() for leaf in leaves)
    return found


def _calls_of(intent: Intent) -> list[CallPattern]:
    return [call for item in intent.rounds for call in item.calls]


def _keys(call: CallPattern | CallExpectation) -> list[str]:
    return sorted(call.arguments)


def _answer(case: Case, index: int, change: Callable[[Json], Json]) -> str:
    """A short reply that ends a turn; empty if somebody would have to write it."""
    turn = case.turns[index]
    if turn.calls:
        return ", ".join(_text(change(value)) for value in turn.answer) or "Done."
    ask = "请再具体说明一下，好吗？" if case.lang == "zh" else "Could you tell me more?"
    return ask if case.category == "missing_parameter" else turn.reference


def _changer(
    said: str, swap: Mapping[str, Json], before: Sequence[Json], after: Sequence[Json]
) -> Callable[[Json], Json]:
    """What becomes of a value: swapped if the user names it, else taken from the place where a result held it."""

    def change(value: Json) -> Json:
        if _text(value) in swap:
            return swap[_text(value)]
        if not _spoken(value, said):
            for old, new in zip(before, after, strict=False):  # `before` is empty in the first play
                for path, leaf in _places(old):
                    if _text(leaf) == _text(value):
                        with suppress(LookupError, TypeError):
                            return _at(new, path)
        return value

    return change


def _places(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """Every value inside a JSON value that is not a list or an object, with its path."""
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _places(inner, (*path, key))
    else:
        yield path, value


def _leaves(value: Json) -> list[Json]:
    return [leaf for _, leaf in _places(value) if isinstance(leaf, str | int | float) and not isinstance(leaf, bool)]


def _at(value: Any, path: Sequence[str | int]) -> Json:
    for key in path:
        value = value[key]
    return cast("Json", value)


def _mapped(value: Json, change: Callable[[Json], Json]) -> Json:
    if isinstance(value, dict):
        return {key: _mapped(inner, change) for key, inner in value.items()}
    return [_mapped(inner, change) for inner in value] if isinstance(value, list) else change(value)


def _siblings(state: Any, value: Json) -> list[Json]:
    """What stands beside `value` in a world's state: other keys, other items, the same field of other records."""
    inner = list(state.values()) if isinstance(state, dict) else state if isinstance(state, list) else []
    found: list[Json] = []
    if isinstance(value, str | int | float) and value in state:
        found = list(state)
    fields = {key for one in inner if isinstance(one, dict) for key, held in one.items() if held == value}
    found += [one[key] for key in sorted(fields) for one in inner if isinstance(one, dict) and key in one]
    for one in inner:
        if isinstance(one, dict | list):
            found += _siblings(one, value)
    return found


def _pattern(text: str) -> str:
    """A text as whole words; in Chinese, words have no boundaries."""
    start = r"(?<![A-Za-z0-9])" if re.match(r"[A-Za-z0-9]", text) else ""
    return f"{start}{re.escape(text)}" + (r"(?![A-Za-z0-9])" if re.search(r"[A-Za-z0-9]$", text) else "")


def _spoken(value: Json, said: str) -> bool:
    text = _text(value)
    return bool(text.strip()) and re.search(_pattern(text), said, re.IGNORECASE) is not None


def _reworded(user: str, swap: Mapping[str, Json]) -> str:
    """The user's words with every swapped value replaced, the longest first."""
    if not swap:
        return user
    texts = {text.casefold(): _text(value) for text, value in swap.items()}
    pattern = "|".join(map(_pattern, sorted(swap, key=len, reverse=True)))
    return re.sub(pattern, lambda match: texts[match[0].casefold()], user, flags=re.IGNORECASE)


def _text(value: Json) -> str:
    """A value as a user would write it."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
