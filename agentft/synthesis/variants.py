"""Training rows from the cases of a suite, without a model: in the words of a recipe, or with other values.

Every call of a row has been sent to its world, and every result is the world's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, Literal, cast

from agentft.errors import InputError
from agentft.synthesis.build import write_row
from agentft.synthesis.plan import Planned, Planner
from agentft.synthesis.play import Caller, Stage, result_value
from agentft.synthesis.recipe import BuildRecipe, CallPattern, SystemPattern
from agentft.synthesis.slots import Decks
from agentft.toolset import Toolset
from agentft.toolset.sampling import UnsatisfiableError, draw
from agentft.types import CallExpectation, Case, Json, Span, ToolCall, ToolDefinition, ToolResult

__all__ = ["Kind", "Proposal", "Studio", "argument_values"]

Kind = Literal["template", "values", "case"]
_NOWHERE = Span(0, 0)
_PLANNED = 60  # conversations that a recipe plans for a category and language, to choose from
_TRIES = 4  # plays for each row that is wanted
_FEW = 4  # with fewer free values, those of the evaluation's cases are used too: a world may have no others
_Rounds = list[tuple[str, Sequence[ToolCall], Sequence[ToolResult], str]]


@dataclass(frozen=True, slots=True)
class Proposal:
    """A training row proposed for a failed case.

    `kind`: `template`: wording and values of a recipe; `values`: the case's wording with other values; `case`: the
    case itself. `said`: the user turns; `calls`: the calls that the row ends with.
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

    def templates(self, case: Case, tools: Sequence[ToolDefinition], count: int) -> Iterator[Proposal]:
        """Rows of the case's category and language that call the same tools, in the words of the recipe.

        Rows that pass the same arguments come first.
        """
        if self.recipe is None:
            return
        wanted = sorted(call.name for turn in case.turns for call in turn.calls)
        keys = sorted(str(sorted(call.arguments)) for turn in case.turns for call in turn.calls)
        planned = self._planned(self.recipe, case, tools)
        fitting = [one for one in planned if sorted(call.tool for call in _patterns(one)) == wanted]
        fitting.sort(key=lambda one: sorted(str(sorted(call.arguments)) for call in _patterns(one)) != keys)
        self._decks = self._decks or Decks(self.seed)
        stage = Stage(self.recipe, self._decks, {tool.name: tool for tool in tools}, self.client)
        for one in fitting[: count * _TRIES]:
            with suppress(InputError):  # the world answers otherwise than the recipe expects
                played = stage.play(one, self._session())
                planned.remove(one)
                rounds: _Rounds = [(item.user, item.calls, item.results, item.answer) for item in played.rounds]
                yield self._proposal(case, "template", tools, rounds)
                count -= 1
            if not count:
                return

    def values(self, case: Case, last: int, tools: Sequence[ToolDefinition], count: int) -> Iterator[Proposal]:
        """The case up to turn `last` with other values for what the user names, as far as the worlds accept them."""
        turns = case.turns[: last + 1]
        original = self._play(case, last, {}, None)
        if original is None or any(turn.calls and turn.failing == len(turn.calls) for turn in turns):
            return
        by_name = {tool.name: tool for tool in tools}
        choices, mistakes = self._choices(case, last, by_name), self._mistakes(case, last, by_name)
        random = Random(f"{self.seed}/{case.id}")
        made: set[tuple[str, ...]] = {tuple(turn.user for turn in turns)}
        for _ in range(count * _TRIES if any((*choices.values(), *mistakes.values())) else 0):
            swap = {text: random.choice(values) for text, values in choices.items() if values}
            for (wrong, right), values in mistakes.items():
                swap[right] = random.choice(values)
                swap[wrong] = _misspelt(_text(swap[right]), random)
            said = tuple(_reworded(turn.user, swap) for turn in turns)
            if said in made or len({_text(value).casefold() for value in swap.values()}) < len(swap):
                continue
            made.add(said)
            rounds = self._play(case, last, swap, original)
            if rounds is not None and all(_is_told(swap[right], rounds) for _, right in mistakes):
                yield self._proposal(case, "values", tools, rounds)
                count -= 1
            if not count:
                return

    def itself(self, case: Case, last: int, tools: Sequence[ToolDefinition]) -> Proposal | None:
        """The case itself up to turn `last`; None if a reply to the user would have to be written."""
        rounds = self._play(case, last, {}, None)
        return None if rounds is None else self._proposal(case, "case", tools, rounds)

    def _proposal(self, case: Case, kind: Kind, tools: Sequence[ToolDefinition], rounds: _Rounds) -> Proposal:
        said = tuple(user for user, *_ in rounds)
        return Proposal(case.id, kind, said, tuple(rounds[-1][1]), write_row("", self.persona, tools, rounds, case.id))

    def _planned(self, recipe: BuildRecipe, case: Case, tools: Sequence[ToolDefinition]) -> list[Planned]:
        if (case.category, case.lang) not in self._plans:
            world_of = {tool.name: name for name in case.worlds for tool in tools if tool.name in self._tools(name)}
            inside = [
                intent
                for intent in recipe.intents
                if all(call.tool in world_of for item in intent.rounds for call in item.calls)
            ]
            system = SystemPattern(self.persona, case.worlds, tools=tuple(world_of))
            own = replace(recipe, counts={case.category: _PLANNED}, languages={case.lang: 1.0}, systems=(system,))
            plans = self._plans[case.category, case.lang] = []
            with suppress(InputError):  # it has no such rows
                plans += Planner(replace(own, intents=tuple(inside)), Decks(self.seed), world_of).plan()
        return self._plans[case.category, case.lang]

    def _tools(self, world: str) -> Collection[str]:
        return next(toolset.tools for toolset in self.toolsets if toolset.name == world)

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
            for number, expected in enumerate(turn.calls):
                change = _changer(said, swap, before, results)
                call = self._as_call(expected, change, len(results))
                exchange = self.client.call(call, session)
                if exchange.is_error != (number < turn.failing):
                    return None
                results.append(result_value(exchange.received))
                calls.append(call)
                answers.append(ToolResult(call.id, exchange.received, _NOWHERE, exchange.is_error))
            change = _changer(said, swap, before, results)
            answer = _answer(case, index, said, change) if index < last or not calls else ""
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
        wrong = {text for pair in self._mistakes(case, last, tools) for text in pair}
        found: dict[str, list[Json]] = {}
        for call in (call for turn in case.turns for call in turn.calls):
            for name, value in call.arguments.items():
                for leaf in _leaves(value):
                    if _spoken(leaf, said) and _text(leaf) not in (*found, *wrong):
                        found[_text(leaf)] = self._others(tools[call.name], name, leaf, case.id)
        return found

    def _mistakes(
        self, case: Case, last: int, tools: Mapping[str, ToolDefinition]
    ) -> dict[tuple[str, str], list[Json]]:
        """Values that a tool refuses with those that correct them, as texts, and other values to misspell.

        Only corrections that the user does not name: those that the tool's refusal suggests.
        """
        said = "\n".join(turn.user for turn in case.turns[: last + 1])
        found: dict[tuple[str, str], list[Json]] = {}
        for turn in case.turns[: last + 1]:
            for wrong, right in zip(turn.calls[: turn.failing], turn.calls[turn.failing :], strict=False):
                for name, value in right.arguments.items():
                    bad = wrong.arguments.get(name, value)
                    if (
                        wrong.name == right.name
                        and bad != value
                        and isinstance(value, str)
                        and not _spoken(value, said)
                    ):
                        found[_text(bad), value] = self._others(tools[right.name], name, value, case.id)
        return {key: values for key, values in found.items() if values}

    def _others(self, tool: ToolDefinition, name: str, value: Json, place: str) -> list[Json]:
        """Other values for an argument: of its enum, else of the world and of training data, else drawn."""
        schema = _property(tool, name)
        if isinstance(listed := schema.get("enum"), list):
            return [other for other in listed if other != value]
        random = Random(f"{self.seed}/{place}/{name}")
        reserved = self.taken.get((tool.name, name), ())
        others = [*self.known.get((tool.name, name), ())]
        for toolset in self.toolsets:
            others += _siblings(toolset.new_state(), value)
        drawn: list[Json] = []
        bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"} & schema.keys()
        if isinstance(value, int) and not bounds:
            drawn = [random.randint(value // 2, value * 2 + 2) for _ in range(9)]
        elif isinstance(value, float) and not bounds:
            drawn = [round(value * random.uniform(0.5, 2), 2) for _ in range(9)]
        elif bounds or not others:
            with suppress(UnsatisfiableError):
                drawn = [draw(schema, f"{self.seed}/{place}/{name}/{number}", formats=True) for number in range(9)]
        if isinstance(value, int | float):
            others = []  # the numbers of a state mean many things
        same = {_text(other).casefold(): other for other in (value, *others, *drawn) if type(other) is type(value)}
        del same[_text(value).casefold()]
        free = [other for text, other in same.items() if text not in reserved]
        return free if len(free) >= _FEW else list(same.values())


def argument_values(cases: Collection[Case]) -> dict[tuple[str, str], set[str]]:
    """The values of every expected argument, by tool and argument, as texts in lower case."""
    found: dict[tuple[str, str], set[str]] = {}
    for call in (call for case in cases for turn in case.turns for call in turn.calls):
        for name, value in call.arguments.items():
            leaves = [leaf for one in (value, *call.alternatives.get(name, ())) for leaf in _leaves(one)]
            found.setdefault((call.name, name), set()).update(_text(leaf).casefold() for leaf in leaves)
    return found


def _patterns(planned: Planned) -> Iterator[CallPattern]:
    return (call for item in planned[0].rounds for call in item.calls)


def _answer(case: Case, index: int, said: str, change: Callable[[Json], Json]) -> str:
    """A short reply that ends a turn: the values of its answer, or a question for what the next turn supplies.

    Empty if somebody would have to write it.
    """
    turn = case.turns[index]
    if turn.calls:
        return ", ".join(_text(change(value)) for value in turn.answer) or "Done."
    asked = [
        name.replace("_", " ")
        for call in (case.turns[index + 1].calls if index + 1 < len(case.turns) else ())
        for name, value in call.arguments.items()
        if not all(_spoken(leaf, said) for leaf in _leaves(value))
    ]
    if turn.reference or not asked:
        return turn.reference
    return "请再具体说明一下，好吗？" if case.lang == "zh" else f"Could you tell me the {' and the '.join(asked)}?"


def _misspelt(text: str, random: Random) -> str:
    """Two neighbouring letters exchanged."""
    at = random.randrange(1, max(2, len(text) - 1))
    return text[:at] + text[at + 1 : at + 2] + text[at : at + 1] + text[at + 2 :]


def _is_told(value: Json, rounds: _Rounds) -> bool:
    """Whether a refusal names the value, so that a model can correct its call."""
    return any(_text(value) in result.content for _, _, found, _ in rounds for result in found if result.is_error)


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


def _property(tool: ToolDefinition, name: str) -> dict[str, Any]:
    properties = tool.parameters.get("properties")
    schema = properties.get(name) if isinstance(properties, dict) else None
    return schema if isinstance(schema, dict) else {}


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
