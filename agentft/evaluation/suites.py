"""Suites: a folder `evals/<name>/` of `suite.toml` and `cases.jsonl`, read strictly.

suite.toml::

    name = "weather"                       # required, the folder's name
    description = "..."                    # one sentence
    persona = "You are ..."                # the system text before the declared tools
    worlds = ["weather"]                   # required: the tool worlds that its cases see
    [comparators]                          # optional: "<tool>.<argument>" = "exact" | "casefold" | "spaceless"
    "calculate.expression" = "spaceless"

cases.jsonl, one object a line::

    {"id": "w001", "category": "single", "lang": "en", "turns": [
        {"user": "...",
         "calls": [{"name": "...", "arguments": {...},
                    "alternatives": {"arg": [value, ...]}, "optional": {"arg": value}}],
         "answer": ["21.5", "Paris"],       # texts that the final answer must hold
         "failing": 1,                      # how many leading calls are answered with an error; see CaseTurn
         "reference": "..."}]}              # a whole model answer, for ROUGE-L only
"""

from __future__ import annotations

import hashlib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentft.content import content_root, find_content
from agentft.errors import InputError
from agentft.evaluation.strict import Place, read_json_line
from agentft.types import CallExpectation, Case, CaseTurn

__all__ = [
    "CATEGORIES",
    "COMPARATORS",
    "Suite",
    "load_suite",
    "read_suite",
    "select_suites",
    "shipped_suites",
    "stratified",
]

CATEGORIES = (
    "single",
    "several_tools",
    "parallel",
    "multi_round",
    "missing_parameter",
    "irrelevance",
    "tool_error",
)
COMPARATORS = ("exact", "casefold", "spaceless")
SUITE_KEYS = ("name", "description", "persona", "worlds", "comparators")


@dataclass(frozen=True, slots=True)
class Suite:
    """A read suite. `digest` is the SHA-256 of its two files; `folder` is where they lie."""

    name: str
    description: str
    persona: str
    worlds: tuple[str, ...]
    comparators: Mapping[str, str]
    cases: tuple[Case, ...]
    digest: str
    folder: Path


def load_suite(name: str) -> Suite:
    """The suite of that name or folder.

    Raises:
        InputError: there is no such suite, or one of its files is wrong (with file, line and remedy).
    """
    folder = find_content("evals", name)
    if folder is None:
        known = ", ".join(shipped_suites()) or "none"
        raise InputError(f"there is no suite {name!r}; shipped suites: {known}; a folder is given as ./folder")
    return read_suite(folder)


def shipped_suites() -> tuple[str, ...]:
    """The names of the suites that come with agentft, sorted."""
    root = content_root() / "evals"
    return tuple(sorted(entry.parent.name for entry in root.glob("*/suite.toml")))


def select_suites(names: Sequence[str], worlds: Sequence[str]) -> tuple[Suite, ...]:
    """The named suites; with no names, every shipped suite that needs only `worlds` (any, if none are given).

    Raises:
        InputError: a named suite needs a world that is not given, or nothing fits.
    """
    if not names:
        suites = [load_suite(name) for name in shipped_suites()]
        fitting = tuple(suite for suite in suites if not worlds or set(suite.worlds) <= set(worlds))
        if not fitting:
            raise InputError(f"no shipped suite fits the tools {', '.join(worlds)}; name a suite or add tools")
        return fitting
    chosen = tuple(load_suite(name) for name in dict.fromkeys(names))
    for suite in chosen:
        lacking = [world for world in suite.worlds if worlds and world not in worlds]
        if lacking:
            raise InputError(f"suite {suite.name} needs the tools {', '.join(lacking)}; add them to --tools")
    return chosen


def read_suite(folder: Path) -> Suite:
    """Read and check the two files of a suite folder."""
    head = folder / "suite.toml"
    table, raw_head = _read_toml(head)
    place = Place(str(head))
    place.known_keys(table, SUITE_KEYS, "suite")
    worlds = place.texts(table, "worlds", required=True)
    if not worlds:
        raise InputError(f"{place.at}: `worlds` is empty; name at least one tool world")
    comparators = _comparators(table.get("comparators", {}), place)
    path = folder / "cases.jsonl"
    raw_cases = _read_bytes(path)
    name = place.text(table, "name", required=True)
    cases = tuple(_cases(path, raw_cases, name, worlds, comparators))
    if not cases:
        raise InputError(f"{path}: it holds no case; write one JSON object a line")
    return Suite(
        name=name,
        description=place.text(table, "description"),
        persona=place.text(table, "persona"),
        worlds=worlds,
        comparators=comparators,
        cases=cases,
        digest=hashlib.sha256(raw_head + b"\0" + raw_cases).hexdigest(),
        folder=folder,
    )


def stratified(cases: Sequence[Case], limit: int | None) -> tuple[Case, ...]:
    """At most `limit` cases, spread over suites and categories in proportion, the same ones every time.

    The cases of a smaller limit are among those of a larger one.
    """
    if limit is None or limit >= len(cases):
        return tuple(cases)
    groups: dict[tuple[str, str], list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault((case.suite, case.category), []).append(index)
    ranked: list[tuple[float, int, int]] = []
    for order, members in enumerate(groups.values()):
        shuffled = sorted(members, key=lambda index: hashlib.sha256(cases[index].id.encode()).digest())
        ranked.extend(((rank + 0.5) / len(members), order, index) for rank, index in enumerate(shuffled))
    taken = sorted(index for _, _, index in sorted(ranked)[:limit])
    return tuple(cases[index] for index in taken)


def _read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); a suite is suite.toml and cases.jsonl") from None


def _read_toml(path: Path) -> tuple[dict[str, Any], bytes]:
    raw = _read_bytes(path)
    try:
        return tomllib.loads(raw.decode("utf-8-sig")), raw
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: it is not TOML: {error}") from None


def _comparators(value: object, place: Place) -> dict[str, str]:
    if not isinstance(value, dict):
        raise InputError(f'{place.at}: `comparators` must be a table of "tool.argument" = "comparator"')
    for key, name in value.items():
        if key.count(".") != 1:
            raise InputError(f'{place.at}: comparator key {key!r} must be "tool.argument"')
        if name not in COMPARATORS:
            raise InputError(f"{place.at}: comparator {name!r} is not known; known: {', '.join(COMPARATORS)}")
    return dict(value)


def _cases(
    path: Path, raw: bytes, suite: str, worlds: tuple[str, ...], comparators: Mapping[str, str]
) -> Iterable[Case]:
    seen: dict[str, int] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        place = Place(f"{path}:{number}")
        row = read_json_line(line, place)
        case = _case(row, place, suite, worlds, comparators)
        if case.id in seen:
            raise InputError(f"{place.at}: case id {case.id!r} was used in line {seen[case.id]}; ids must differ")
        seen[case.id] = number
        yield case


def _case(
    row: Mapping[str, Any], place: Place, suite: str, worlds: tuple[str, ...], comparators: Mapping[str, str]
) -> Case:
    place.known_keys(row, ("id", "category", "lang", "turns"), "case")
    category = place.choice(row, "category", CATEGORIES)
    turns = tuple(
        _turn(turn, place.inside(f"turns[{index}]"))
        for index, turn in enumerate(place.objects(row, "turns", required=True))
    )
    if not turns:
        raise InputError(f"{place.at}: `turns` is empty; a case asks at least one thing")
    if category == "irrelevance" and any(turn.calls for turn in turns):
        raise InputError(f"{place.at}: an irrelevance case must expect no calls")
    return Case(
        id=place.text(row, "id", required=True),
        suite=suite,
        category=category,
        lang=place.text(row, "lang", required=True),
        worlds=worlds,
        turns=turns,
        comparators=comparators,
    )


def _turn(row: Mapping[str, Any], place: Place) -> CaseTurn:
    place.known_keys(row, ("user", "calls", "answer", "failing", "reference"), "turn")
    calls = tuple(
        _call(call, place.inside(f"calls[{index}]")) for index, call in enumerate(place.objects(row, "calls"))
    )
    failing = row.get("failing", 0)
    if type(failing) is not int or not 0 <= failing <= len(calls):
        raise InputError(f"{place.at}: `failing` is {failing!r}; it must be a count from 0 to {len(calls)}")
    return CaseTurn(
        user=place.text(row, "user", required=True),
        calls=calls,
        answer=place.texts(row, "answer"),
        failing=failing,
        reference=place.text(row, "reference"),
    )


def _call(row: Mapping[str, Any], place: Place) -> CallExpectation:
    place.known_keys(row, ("name", "arguments", "alternatives", "optional"), "call")
    arguments = place.mapping(row, "arguments", required=True)
    alternatives = place.mapping(row, "alternatives")
    optional = place.mapping(row, "optional")
    for name, values in alternatives.items():
        if not isinstance(values, list) or name not in arguments:
            raise InputError(f"{place.at}: alternatives of {name!r} must be a list for one of `arguments`")
    for name in optional:
        if name in arguments:
            raise InputError(f"{place.at}: {name!r} is in both `arguments` and `optional`; keep one")
    return CallExpectation(
        name=place.text(row, "name", required=True),
        arguments=arguments,
        alternatives={name: tuple(values) for name, values in alternatives.items()},
        optional=optional,
    )
