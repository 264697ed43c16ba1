"""`agentft eval derive`: suites with the same requests but other tools, arguments, words or choices of tools.

A model that understands descriptions solves them as often as the suite; one that remembers its training does not.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from agentft.content import content_root
from agentft.errors import InputError
from agentft.evaluation.checking import check_cases
from agentft.evaluation.plan import Plan, make_plan
from agentft.evaluation.suites import Suite, load_suite
from agentft.evaluation.views import ShownTool, shown_name
from agentft.files import write_text
from agentft.strict import one_of, read_toml
from agentft.toolset import Toolset
from agentft.types import CallExpectation, Case, CaseTurn, ToolDefinition

__all__ = ["TRANSFORMS", "Derived", "derive"]

_OTHERS = 5  # tools that `missing` offers instead of the needed ones
_TYPOS = 2  # in a request
_CLOSED = {"allOf", "anyOf", "oneOf", "not", "if", "dependentRequired", "dependentSchemas", "patternProperties"}
Tools = list[ShownTool]


@cache
def _words() -> dict[str, dict[str, Any]]:
    """`words`: what a renamed tool or argument says instead; `units`: the smaller unit and how many it is."""
    return read_toml(content_root() / "evals" / "renames.toml", "install agentft again")


@dataclass(frozen=True, slots=True)
class Derived:
    """A derived suite: its folder, the number of its cases, of those that could not be derived, and added worlds."""

    transform: str
    folder: Path
    cases: int
    left_out: int
    worlds: tuple[str, ...]


def derive(
    plan: Plan, suite: Suite, transforms: Sequence[str], others: Sequence[Toolset], out: Path, *, seed: int = 0
) -> Iterator[Derived]:
    """Write a suite for each transform into `out/<suite>-<transform>`; each passes `agentft eval --check`.

    Args:
        plan: the suite's cases and worlds.
        others: worlds whose tools are distractors.
        seed: fixes every choice.

    Raises:
        InputError: there is no such transform, or no case can be derived; if all are named, those that suit are taken.
    """
    for name in transforms:
        one_of(name, list(TRANSFORMS), "--transforms", "transform")
        folder = out / f"{suite.name}-{name}"
        cases = [case for case in plan.cases if case.suite == suite.name]
        tools = [_shown(tool) for tool in plan.tools(cases[0])]
        extra = [_shown(tool) for toolset in others for tool in toolset.definitions]
        random = Random(f"{seed}/{suite.name}/{name}")
        shown = TRANSFORMS[name](tools, extra, random)
        found = [made for case in cases if (made := _derived(case, name, shown, random))]
        found = list({tuple(turn.user for turn in case.turns): case for case in reversed(found)}.values())[::-1]
        if not found and len(transforms) == len(TRANSFORMS):
            continue
        if not found:
            raise InputError(f"suite {suite.name}: no case can be derived by {name}; leave it out of --transforms")
        used = {tool.tool for tool in shown} - {tool.tool for tool in tools}
        worlds = [toolset for toolset in others if used & set(toolset.tools)]
        added = tuple(toolset.name for toolset in worlds)
        with TemporaryDirectory() as work:  # a killed command leaves no suite with unchecked cases
            _write(checked := Path(work, folder.name), suite, shown, added, found)
            flaws = check_cases(make_plan([load_suite(str(checked))], [*plan.toolsets, *worlds]))
        flawed = {flaw.case for flaw in flaws}
        kept = [case for case in found if case.id not in flawed]
        _write(folder, suite, shown, added, kept)
        yield Derived(name, folder, len(kept), len(cases) - len(kept), added)


def _shown(tool: ToolDefinition) -> ShownTool:
    return ShownTool(tool.name, tool.name, tool.parameters, tool.description)


def _renamed(tools: Tools, _: Tools, __: Random) -> Tools:
    """Other names of tools and arguments; descriptions stay."""
    taken = {tool.name for tool in tools}
    return [_with_names(replace(tool, name=_other_name(tool.name, taken)), _other_name) for tool in tools]


def _shuffled(tools: Tools, _: Tools, random: Random) -> Tools:
    """Another order of tools and arguments."""
    mixed = random.sample(tools, len(tools))
    return [
        replace(tool, parameters={**tool.parameters, "properties": dict(random.sample([*found.items()], len(found)))})
        for tool, found in ((tool, tool.parameters.get("properties", {})) for tool in mixed)
    ]


def _lookalikes(tools: Tools, _: Tools, __: Random) -> Tools:
    """Before each tool one that is called almost the same, for a purpose that nobody asks for."""
    text = "Only for the archive of closed past years, never for a current request. "
    twins = (replace(tool, name=f"{tool.name}_archive", description=text + tool.description) for tool in tools)
    return [one for pair in zip(twins, tools, strict=True) for one in pair]


def _distractors(count: int) -> Callable[[Tools, Tools, Random], Tools]:
    def add(tools: Tools, extra: Tools, random: Random) -> Tools:
        if not extra:
            raise InputError("no other world's tools can be added; leave out the distractors")
        taken = {tool.name for tool in tools}
        more: Tools = []
        for number in range(count):  # after all tools of all worlds come further versions of them
            version, tool = number // len(extra), extra[number % len(extra)]
            more.append(replace(tool, name=f"{tool.name}_v{version + 1}") if version else tool)
        return random.sample(both := [*tools, *(tool for tool in more if tool.name not in taken)], len(both))

    return add


def _missing(_: Tools, extra: Tools, random: Random) -> Tools:
    """Only tools of other worlds, none of which can do what is asked."""
    able = [tool for tool in extra if "search" not in tool.name]  # a search may answer anything
    return random.sample(able, min(_OTHERS, len(able)))


TRANSFORMS: dict[str, Callable[[Tools, Tools, Random], Tools]] = {
    "renamed": _renamed,
    "shuffled": _shuffled,
    "undescribed": lambda tools, _, __: [
        replace(tool, description="", parameters=_without_descriptions(tool.parameters)) for tool in tools
    ],
    "values": lambda tools, _, __: [_with_units(_with_enums(tool)) for tool in tools],
    "lookalikes": _lookalikes,
    **{f"distractors-{count}": _distractors(count) for count in (3, 10, 30, 100)},
    "missing": _missing,
    "typos": lambda tools, _, __: tools,
}
"""The tools of a derived suite, by its transform: a function of those of the suite and those of other worlds."""


def _derived(case: Case, name: str, shown: Tools, random: Random) -> Case | None:
    """The case with its expected calls as they are shown; None if it cannot be derived."""
    turns = case.turns
    if name == "missing":
        if not turns[0].calls:
            return None
        return replace(
            case, id=f"{case.id}~{name}", category="missing_tool", turns=(CaseTurn(turns[0].user),), forbidden=()
        )
    if name == "typos":
        turns = tuple(replace(turn, user=_with_typos(turn, case, random)) for turn in turns)
        if turns == case.turns:
            return None

    def translated(calls: Sequence[CallExpectation]) -> tuple[CallExpectation, ...]:
        found = ((shown_name(shown[::-1], call.name), call) for call in calls)
        return tuple(tool.expected(call) for tool, call in found if tool)

    made = tuple(replace(turn, calls=translated(turn.calls)) for turn in turns)
    if any(len(turn.calls) < len(before.calls) for turn, before in zip(made, turns, strict=True)):
        return None
    names = {
        f"{tool.tool}.{tool.arguments.get(key, key)}": f"{tool.name}.{key}" for tool in shown for key in _keys(tool)
    }
    comparators = {names[key]: value for key, value in case.comparators.items() if key in names}
    return replace(
        case, id=f"{case.id}~{name}", turns=made, comparators=comparators, forbidden=translated(case.forbidden)
    )


def _keys(tool: ShownTool) -> Mapping[str, Any]:
    found: Mapping[str, Any] = tool.parameters.get("properties", {})
    return found


def _other_name(name: str, taken: set[str]) -> str:
    """A name with other words; in the other style if no word is known."""
    words = [word.lower() for word in re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+", name)] or [name]
    other = "_".join(_words()["words"].get(word, word) for word in words)
    if other == name:
        camel = words[0] + "".join(word.title() for word in words[1:])
        other = camel if camel != name else f"{name}_given"
    while other in taken:
        other += "_2"
    taken.add(other)
    return other


def _with_names(tool: ShownTool, rename: Callable[[str, set[str]], str]) -> ShownTool:
    """The tool with renamed arguments, if no other part of its schema names them."""
    found = _keys(tool)
    if _CLOSED & tool.parameters.keys():
        return tool
    taken = set(found)
    names = {key: rename(key, taken) for key in found}
    schema = {**tool.parameters, "properties": {names[key]: inner for key, inner in found.items()}}
    if "required" in schema:
        schema["required"] = [names.get(key, key) for key in schema["required"]]
    inside = {
        shown: tool.arguments.get(key, key) for key, shown in names.items() if shown != tool.arguments.get(key, key)
    }
    return replace(
        tool,
        parameters=schema,
        arguments=inside,
        values={names[key]: table for key, table in tool.values.items()},
        factors={names[key]: factor for key, factor in tool.factors.items()},
    )


def _without_descriptions(schema: Any) -> Any:
    if isinstance(schema, dict):
        texts = ("description", "title")
        return {
            key: _without_descriptions(value)
            for key, value in schema.items()
            if not (key in texts and isinstance(value, str))
        }
    return [_without_descriptions(item) for item in schema] if isinstance(schema, list) else schema


def _with_enums(tool: ShownTool) -> ShownTool:
    found, values = dict(_keys(tool)), dict(tool.values)
    for name, schema in found.items():
        listed = schema.get("enum") if isinstance(schema, dict) else None
        if listed and all(isinstance(value, str) and _swapped(value) != value for value in listed):
            values[name] = {_swapped(value): value for value in listed}
            changed: dict[str, Any] = {"enum": [*values[name]]}
            if isinstance(schema.get("default"), str):
                changed["default"] = _swapped(schema["default"])
            found[name] = {key: value for key, value in schema.items() if key != "examples"} | changed
    return replace(tool, parameters={**tool.parameters, "properties": found}, values=values) if values else tool


def _swapped(value: str) -> str:
    return value.lower() if value.isupper() else value.upper()


def _with_units(tool: ShownTool) -> ShownTool:
    found, factors = dict(_keys(tool)), {}
    for name, schema in found.items():
        unit = next((word for word in name.lower().split("_") if word in _words()["units"]), None)
        if unit and isinstance(schema, dict) and schema.get("type") in ("integer", "number"):
            shown, factor = _words()["units"][unit]
            factors[name] = factor
            bounds = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "default", "multipleOf"}
            scaled = {key: value * factor if key in bounds else value for key, value in schema.items()}
            kept = {key: value for key, value in scaled.items() if key not in ("examples", "description")}
            found[name] = kept | {"description": f"How many {shown}."}
    changed = replace(tool, parameters={**tool.parameters, "properties": found}, factors=factors)

    def rename(key: str, _: set[str]) -> str:
        return "_".join(
            _words()["units"][word][0] if word in _words()["units"] and key in factors else word
            for word in key.split("_")
        )

    return _with_names(changed, rename) if factors else tool


def _with_typos(turn: CaseTurn, case: Case, random: Random) -> str:
    """The request with neighbouring letters exchanged in some words, but not in values that are needed."""
    tables = [table for one in case.turns for call in one.calls for table in (call.arguments, call.optional)]
    kept = json.dumps([turn.answer, *(list(table.values()) for table in tables)], ensure_ascii=False).lower()
    words = [match for match in re.finditer(r"\b[A-Za-z]{5,}\b", turn.user) if match[0].lower() not in kept]
    text = turn.user
    for match in random.sample(words, min(_TYPOS, len(words))):
        at = match.start() + random.randrange(1, len(match[0]) - 2)
        text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    return text


def _write(folder: Path, suite: Suite, shown: Tools, worlds: Sequence[str], cases: Sequence[Case]) -> None:
    name = folder.name.removeprefix(f"{suite.name}-")
    places = [suite.places[world] for world in suite.worlds]
    own = [os.path.relpath(place, folder) if os.path.isabs(place) else place for place in places]
    head = {
        "name": folder.name,
        "description": f"{suite.name}, {name}: derived by agentft eval derive.",
        "persona": suite.persona,
        "worlds": [place if "/" not in place or place.startswith(".") else f"./{place}" for place in own] + [*worlds],
        "of": suite.name,
        "transform": name,
        "view": "view.json",
    }
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()]
    comparators = {key: value for case in cases for key, value in case.comparators.items()}
    lines += ["[comparators]", *(f"{json.dumps(key)} = {json.dumps(value)}" for key, value in comparators.items())]
    tools = [{key: value for key, value in asdict(tool).items() if value or key == "parameters"} for tool in shown]
    (folder / "suite.toml").unlink(missing_ok=True)  # it comes last again
    write_text(folder / "view.json", json.dumps({"tools": tools}, ensure_ascii=False, indent=1) + "\n")
    write_text(folder / "cases.jsonl", "".join(json.dumps(_row(case), ensure_ascii=False) + "\n" for case in cases))
    write_text(folder / "suite.toml", "\n".join(lines) + "\n")


def _row(case: Case) -> dict[str, Any]:
    turns = [_filled(asdict(turn) | {"calls": [_filled(asdict(call)) for call in turn.calls]}) for turn in case.turns]
    forbidden = [_filled(asdict(call)) for call in case.forbidden]
    return _filled(
        {"id": case.id, "category": case.category, "lang": case.lang, "turns": turns, "forbidden": forbidden}
    )


def _filled(table: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in table.items() if value or key == "arguments"}
