"""`agentft data build`: builds training rows or a suite's cases from a recipe, with real results of tool worlds.

The output is reproducible to the byte: every choice comes from decks shuffled by the recipe's seed, and the worlds have
a fixed seed.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol, TypeAlias

from agentft.calls import call_format
from agentft.errors import InputError
from agentft.files import write_text
from agentft.records import parse_row
from agentft.synthesis.plan import Planner
from agentft.synthesis.play import NOWHERE, Caller, Played, PlayedRound, Stage
from agentft.synthesis.recipe import BuildRecipe, CallPattern, read_build_recipe
from agentft.synthesis.slots import Decks
from agentft.toolset import Toolset, check_path, load_toolset, load_toolsets, locate_world
from agentft.types import Json, Part, Text, ToolCall, ToolDefinition, ToolResult

__all__ = ["BuildReport", "Serve", "Serving", "build", "play_recipe", "recipe_toolsets", "write_row"]

WORLD_SEED = 0
Spoken: TypeAlias = tuple[str, Sequence[ToolCall], Sequence[ToolResult], str]
"""A round of a row: what the user says, the calls, their results, and the answer (empty: the row ends at the call)."""


class Serving(Protocol):
    """A running tool server."""

    def client(self) -> Caller:
        """A client of this server."""


Serve = Callable[[Sequence[Toolset], int], AbstractContextManager[Serving]]


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Counts over the built file, and its SHA-256. `quiet_turns`: user turns where not calling is correct."""

    output: str
    form: str
    seed: int
    sha256: str
    rows: int
    turns: int
    quiet_turns: int
    systems: int
    categories: Mapping[str, int]
    languages: Mapping[str, int]
    tools: Mapping[str, int]


def build(
    recipe_path: Path, out: Path, serve: Serve, *, seed: int | None = None, tools: Sequence[str] = ()
) -> BuildReport:
    """Build the rows or cases of a recipe and write them atomically to `out` (JSONL).

    `serve` starts a server for toolsets (`agentft.toolserver.ToolServer`); `seed` replaces the recipe's seed; `tools`
    are worlds that the user names, so that the recipe may use them even if they run code.

    Raises:
        InputError: the recipe is invalid, or a world answered differently than the recipe expects.
    """
    recipe = read_build_recipe(recipe_path)
    if seed is not None:
        recipe = replace(recipe, seed=seed)
    toolsets = recipe_toolsets(recipe, tools)
    with serve(list(toolsets.values()), WORLD_SEED) as server:
        played = play_recipe(recipe, toolsets, server.client())
    if recipe.form == "rows":
        rows = _rows(recipe, played, {name: toolset.definitions for name, toolset in toolsets.items()})
    else:
        rows = _cases(recipe, played)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    write_text(out, text)
    return _report(recipe, played, out, hashlib.sha256(text.encode()).hexdigest())


def recipe_toolsets(recipe: BuildRecipe, tools: Sequence[str] = ()) -> dict[str, Toolset]:
    """Load the worlds that the recipe's systems name, relative to its folder. `tools`: see `build`.

    Raises:
        InputError: a world does not exist, or runs code and is not in `tools`.
    """
    given = {toolset.name: toolset for toolset in load_toolsets(tools, WORLD_SEED)}
    loaded: dict[str, Toolset] = {}
    for name in dict.fromkeys(world for system in recipe.systems for world in system.worlds):
        place = locate_world(name, Path(recipe.path).parent)
        if Path(place).name not in given:
            check_path(place, str(recipe.path))
        loaded[name] = given.get(Path(place).name) or load_toolset(place, WORLD_SEED)
    return loaded


def play_recipe(recipe: BuildRecipe, toolsets: Mapping[str, Toolset], client: Caller) -> list[Played]:
    """Play every conversation of the recipe against the worlds, in the order of the output file."""
    decks = Decks(recipe.seed)
    tools = {tool.name: tool for toolset in toolsets.values() for tool in toolset.definitions}
    world_of = {tool.name: world for world, toolset in toolsets.items() for tool in toolset.definitions}
    stage = Stage(recipe, decks, tools, client)
    plan = Planner(recipe, decks, world_of).plan()
    played = [stage.play(planned, f"build-{number}") for number, planned in enumerate(plan)]
    if recipe.shuffle:
        decks.source("order of rows").shuffle(played)
    return played


def _rows(
    recipe: BuildRecipe, played: Sequence[Played], definitions: Mapping[str, Sequence[ToolDefinition]]
) -> Iterable[dict[str, Json]]:
    """MS-Agent rows."""
    chance = random.Random(f"unanswered {recipe.seed}")
    for number, one in enumerate(played):
        ends_at_call = chance.random() < recipe.unanswered
        system = one.system
        tools = [tool for world in system.worlds for tool in definitions[world] if system.has(tool.name)]
        rounds: list[Spoken] = []
        for place, item in enumerate(one.rounds, 1):
            if not item.answer:
                raise InputError(f"{recipe.path}: the request {item.user!r} has no `answer`; rows need one")
            last = place == len(one.rounds) and item.calls and not item.results[-1].is_error
            rounds.append((item.user, item.calls, item.results, "" if ends_at_call and last else item.answer))
        yield write_row(f"{recipe.name}-{number:04d}", system.persona, tools, rounds, str(recipe.path))


def write_row(
    identity: str, persona: str, tools: Sequence[ToolDefinition], rounds: Sequence[Spoken], place: str
) -> dict[str, Json]:
    """An MS-Agent row: call, result, call, result, ..., answer in each round. Without an answer, it ends at a call.

    Raises:
        InputError: read as training does, the row does not hold the calls that were played, and no others.
    """
    fmt = call_format("msagent")
    turns: list[Json] = [{"from": "system", "value": fmt.write_system(persona, tools)}]
    for user, calls, results, answer in rounds:
        parts: list[Part] = [part for pair in zip(calls, results, strict=True) for part in pair]
        parts = [*parts, Text(answer, NOWHERE)] if answer else parts[:-1]
        turns += [{"from": "user", "value": user}, {"from": "assistant", "value": fmt.write_parts(parts)}]
    row: dict[str, Json] = {"id": identity, "conversations": turns}
    found = [part for turn in parse_row(row, "").turns for part in turn.parts if isinstance(part, ToolCall)]
    expected = [call for _, calls, _, _ in rounds for call in calls]
    if [(call.name, call.arguments) for call in found] != [(call.name, call.arguments) for call in expected]:
        requests = ", ".join(repr(user) for user, *_ in rounds)
        raise InputError(
            f"{place}: the row for {requests:.200} reads back with other calls than were executed (calls: "
            f"{len(found)} instead of {len(expected)}); "
            "remove the markers of calls and results from the recipe's texts"
        )
    return row


def _cases(recipe: BuildRecipe, played: Sequence[Played]) -> Iterable[dict[str, Json]]:
    """A suite's cases; `answer` contains values actually returned by the worlds."""
    numbers: Counter[str] = Counter()
    for one in played:
        numbers[one.category] += 1
        name = f"{recipe.name}-{one.category}-{numbers[one.category]:02d}"
        turns: list[Json] = [_case_turn(item) for item in one.rounds]
        yield {"id": name, "category": one.category, "lang": one.lang, "turns": turns}


def _case_turn(item: PlayedRound) -> dict[str, Json]:
    optional: dict[str, Json] = {
        "calls": [_case_call(call, p) for call, p in zip(item.calls, item.patterns, strict=True)],
        "answer": list(item.holds),
        "failing": sum(result.is_error for result in item.results),
        "reference": item.answer,
    }
    return {"user": item.user, **_without_empty(optional)}


def _case_call(call: ToolCall, pattern: CallPattern) -> dict[str, Json]:
    alternatives = _without_empty(pattern.alternatives)
    optional: dict[str, Json] = {"alternatives": alternatives, "optional": dict(pattern.optional)}
    return {"name": call.name, "arguments": dict(call.arguments), **_without_empty(optional)}


def _without_empty(table: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in table.items() if value}


def _report(recipe: BuildRecipe, played: Sequence[Played], out: Path, digest: str) -> BuildReport:
    rounds = [item for one in played for item in one.rounds]
    return BuildReport(
        output=str(out),
        form=recipe.form,
        seed=recipe.seed,
        sha256=digest,
        rows=len(played),
        turns=len(rounds),
        quiet_turns=sum(not item.calls for item in rounds),
        systems=len({one.system for one in played}),
        categories=dict(Counter(one.category for one in played)),
        languages=dict(Counter(one.lang for one in played)),
        tools=dict(sorted(Counter(call.name for item in rounds for call in item.calls).items())),
    )
