"""Suites: a folder `evals/<name>/` of `suite.toml` and `cases.jsonl`, read strictly.

suite.toml::

    name = "weather"                       # required, the folder's name
    description = "..."                    # one sentence
    persona = "You are ..."                # the system text before the declared tools
    worlds = ["weather", "../mine"]        # required: shipped tool worlds, or folders, relative to this one
    tools = ["current_weather"]            # optional: offer only these tools
    [comparators]                          # optional: "<tool>.<argument>" = "exact" | "casefold" | "spaceless"
    "calculate.expression" = "spaceless"
    of, transform, view = "weather", "renamed", "view.json"    # only in derived suites; see `views`

cases.jsonl, one object a line::

    {"id": "w001", "category": "single", "lang": "en", "turns": [
        {"user": "...",
         "calls": [{"name": "...", "arguments": {...},
                    "alternatives": {"arg": [value, ...]}, "optional": {"arg": value}}],
         "answer": ["21.5", "Paris"],       # texts that the final answer must contain
         "failing": 1,                      # how many leading calls return an error; see CaseTurn
         "reference": "..."}],              # a complete reference answer, for ROUGE-L only
     "forbidden": [{"name": "...", "arguments": {...}}],    # optional: calls that must not be made; see Case
     "tools": ["..."],                      # optional: only these tools, in place of the suite's
     "history": [{"role": "...", "content": "..."}]}        # optional: OpenAI messages before the first turn
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agentft.content import content_root, find_content
from agentft.errors import InputError, RowError
from agentft.evaluation.views import ShownTool, read_view
from agentft.metrics.calls import ABSTAINING
from agentft.records.openai import parse_openai
from agentft.strict import one_of, read_as, read_bytes, read_json_line, read_toml
from agentft.toolset import Toolset, check_path, load_toolsets, locate_world
from agentft.types import COMPARATORS, CallExpectation, Case

__all__ = ["Suite", "load_suite", "load_worlds", "select_suites", "shipped_suites", "stratified"]


@dataclass(frozen=True, slots=True)
class Suite:
    """A suite. `folder` holds its two files, and `digest` is their SHA-256.

    `worlds`: names of tool worlds. `places`: by name, where they are (see `locate_world`). `of`, `transform`: the suite
    that it is derived from, and how; `shown`: the tools of its `view`, in place of those of the worlds.
    """

    name: str
    worlds: tuple[str, ...]
    folder: Path
    description: str = ""
    persona: str = ""
    tools: tuple[str, ...] = ()
    comparators: Mapping[str, str] = field(default_factory=dict)
    cases: tuple[Case, ...] = ()
    digest: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    source: str = ""
    of: str = ""
    transform: str = ""
    view: str = ""
    shown: tuple[ShownTool, ...] = ()


def load_suite(name: str) -> Suite:
    """The suite with this name, or in this folder.

    Raises:
        InputError: there is no such suite, or one of its files is wrong (with file, line and remedy).
    """
    folder = find_content("evals", name)
    if folder is None:
        known = ", ".join(shipped_suites()) or "none"
        raise InputError(f"there is no suite {name!r}; shipped suites: {known}; write a folder as ./folder")
    remedy = "a suite is a folder with suite.toml and cases.jsonl; a tool world goes to --tools"
    head, path = folder / "suite.toml", folder / "cases.jsonl"
    suite = read_as(Suite, read_toml(head, remedy), str(head), folder=folder, cases=(), digest="", places={}, shown=())
    if not suite.worlds:
        raise InputError(f"{head}: `worlds` is empty; name at least one tool world")
    places = [locate_world(world, folder) for world in suite.worlds]
    named = {Path(place).name: place for place in places}
    if len(named) < len(places):
        raise InputError(f"{head}: two of the `worlds` have the same name ({', '.join(places)}); rename one folder")
    suite = replace(suite, worlds=tuple(named), places=named)
    for key, comparator in suite.comparators.items():
        if key.count(".") != 1:
            raise InputError(f'{head}: comparator key {key!r} must be "tool.argument"')
        one_of(comparator, COMPARATORS, str(head), f"comparators.{key}")
    raw = read_bytes(path, remedy)
    cases = tuple(_cases(suite, path, raw))
    if not cases:
        raise InputError(f"{path}: it has no cases; write one JSON object per line")
    content = head.read_bytes() + b"\0" + raw
    if suite.view:
        suite = replace(suite, shown=read_view(folder / suite.view))
        content += b"\0" + (folder / suite.view).read_bytes()
    return replace(suite, cases=cases, digest=hashlib.sha256(content).hexdigest())


def shipped_suites() -> tuple[str, ...]:
    """The names of the suites that come with agentft, sorted."""
    root = content_root() / "evals"
    return tuple(sorted(entry.parent.name for entry in root.glob("*/suite.toml")))


def select_suites(names: Sequence[str], worlds: Sequence[str], tools: Collection[str] = ()) -> tuple[Suite, ...]:
    """The named suites; without names, every shipped suite that needs no other worlds and tools than these.

    An empty `worlds` or `tools` sets no limit.

    Raises:
        InputError: no suite qualifies.
    """
    suites = [load_suite(name) for name in dict.fromkeys(names or shipped_suites())]
    if not names:
        suites = [suite for suite in suites if not worlds or set(suite.worlds) <= set(worlds)]
        suites = [suite for suite in suites if not tools or _needed(suite) <= set(tools)]
    if not suites:
        raise InputError(f"no shipped suite fits the tools {', '.join(worlds)}; name your own suite (docs/evaluate.md)")
    return tuple(suites)


def load_worlds(suites: Sequence[Suite]) -> tuple[Toolset, ...]:
    """Load the worlds of suites, which the user has not named: shipped ones, and folders that hold no code.

    Raises:
        InputError: a world does not exist, has a tools.py, or is broken.
    """
    places = {place: suite for suite in suites for place in suite.places.values()}
    for place, suite in places.items():
        check_path(place, f"{suite.folder / 'suite.toml'}")
    return load_toolsets(list(places))


def _needed(suite: Suite) -> set[str]:
    """The tools that its cases call, and those that it names."""
    return {call.name for case in suite.cases for turn in case.turns for call in turn.calls} | set(suite.tools)


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


def _cases(suite: Suite, path: Path, raw: bytes) -> Iterable[Case]:
    seen: dict[str, int] = {}
    for number, line in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        if not line.strip():
            continue
        at = f"{path}:{number}"
        row = read_json_line(line, at)
        case = read_as(Case, row, at, suite=suite.name, worlds=suite.worlds, comparators=suite.comparators)
        case = replace(case, tools=case.tools or suite.tools)
        _check(case, at)
        if case.id in seen:
            raise InputError(f"{at}: case id {case.id!r} was used in line {seen[case.id]}; ids must differ")
        seen[case.id] = number
        yield case


def _check(case: Case, at: str) -> None:
    if not case.turns:
        raise InputError(f"{at}: `turns` is empty; a case needs at least one user turn")
    if case.category in ("irrelevance", "missing_tool") and any(turn.calls for turn in case.turns):
        raise InputError(f"{at}: a case of {case.category} must expect no calls")
    judged = case.forbidden or any(turn.calls or turn.answer for turn in case.turns)
    if not judged and case.category not in ABSTAINING:
        remedy = "add `calls` or `answer`, or make it a case of irrelevance"
        raise InputError(f"{at}: a case of {case.category} that expects nothing is solved by any reply; {remedy}")
    for index, turn in enumerate(case.turns):
        if not 0 <= turn.failing <= len(turn.calls):
            what = f"`failing` is {turn.failing}; it must be a count from 0 to {len(turn.calls)}"
            raise InputError(f"{at}: turns[{index}]: {what}")
        for number, call in enumerate(turn.calls):
            _check_call(call, f"{at}: turns[{index}].calls[{number}]")
    for number, call in enumerate(case.forbidden):
        _check_call(call, f"{at}: forbidden[{number}]")
    try:
        turns, _ = parse_openai(case.history)
    except RowError as error:
        raise InputError(f"{at}: history[{error.turn}]: {error}; write OpenAI messages") from None
    if turns and turns[-1].role == "user":
        raise InputError(f"{at}: `history` ends with the user; that message belongs in `turns`")


def _check_call(call: CallExpectation, at: str) -> None:
    if unknown := set(call.alternatives) - set(call.arguments):
        raise InputError(f"{at}: `alternatives` has {min(unknown)!r}, which is not in `arguments`; add it there")
    if both := set(call.optional) & set(call.arguments):
        raise InputError(f"{at}: {min(both)!r} is in both `arguments` and `optional`; keep one")
