"""`agentft eval import`: a file of a public set as a suite. Every record is kept, or rejected with a reason."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agentft.errors import InputError, ToolError
from agentft.evaluation.checking import check_cases
from agentft.evaluation.plan import make_plan
from agentft.evaluation.public_sets import READERS, Draft
from agentft.evaluation.suites import load_suite
from agentft.files import naming, path_argument, write_text
from agentft.imports.world import default_base_url, unique_name
from agentft.metrics.calls import ABSTAINING
from agentft.rows.reading import Row, read_rows
from agentft.toolset import load_toolset
from agentft.toolset.arguments import ArgumentCheck
from agentft.toolset.declared import write_world
from agentft.types import Json, ToolDefinition

__all__ = ["ImportedSet", "import_set"]

_FOREIGN = (KeyError, TypeError, ValueError, AttributeError, SyntaxError, RecursionError, MemoryError)
"""What reading a record of another set can raise."""


@dataclass
class ImportedSet:
    """The result: the suite's folder, its cases by id, its tools, and for each rejected record its line and reason."""

    folder: Path
    cases: dict[str, dict[str, Json]] = field(default_factory=dict)
    tools: list[dict[str, Json]] = field(default_factory=list)
    rejected: list[tuple[int, str]] = field(default_factory=list)
    lines: dict[str, int] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, draft: Draft, line: int) -> None:
        """Add a record; its tools get legal names, a different one for each definition.

        Raises:
            InputError: it cannot be a case.
        """
        if draft.id in self.cases:
            raise InputError("its id is that of an earlier record")
        if not draft.messages or draft.messages[-1]["role"] != "user":
            raise InputError("the conversation does not end with the user")
        if draft.category != "dependent" and not draft.tools:
            raise InputError("it offers no tools, so that nothing could be called")
        offered: dict[str, Any] = {tool.name: tool for tool, _ in draft.tools}
        for name, arguments in draft.calls if offered else ():
            if name not in offered:
                raise InputError("an expected call names a tool that is not offered")
            if not arguments.keys() <= offered[name].parameters["properties"].keys():
                raise InputError("an expected call has an argument that its tool does not declare")
            try:
                ArgumentCheck(offered[name])(arguments)
            except ToolError:
                raise InputError("an expected call violates the schema of its tool") from None
        shown = {tool.name: self._name(tool, returns) for tool, returns in draft.tools}
        history: list[Any] = list(draft.messages)
        for function in (call["function"] for message in history for call in message.get("tool_calls", ())):
            function["name"] = shown.get(function["name"], function["name"])
        last = history.pop()
        calls: list[Json] = [{"name": shown.get(name, name), "arguments": made} for name, made in draft.calls]
        one = "parallel" if len(calls) > 1 else "several_tools" if len(shown) > 1 else "single"
        named = draft.category or one
        text = str(last["content"])
        self.lines[draft.id] = line
        self.cases[draft.id] = {
            "id": draft.id,
            "category": named if calls or named in ABSTAINING else "irrelevance",
            "lang": "zh" if any("\u4e00" <= character <= "\u9fff" for character in text) else "en",
            "turns": [{"user": text, "calls": calls}],
            **({"tools": [*shown.values()]} if shown else {}),
            **({"history": history} if history else {}),
        }

    def _name(self, tool: ToolDefinition, returns: Mapping[str, Json]) -> str:
        origin = json.dumps([tool.name, tool.description, tool.parameters], sort_keys=True)
        if origin not in self.names:
            self.names[origin] = unique_name(tool.name, origin, self.taken)
            made = {"name": self.names[origin], "description": tool.description or tool.name, "access": "read"}
            self.tools.append({**made, "parameters": dict(tool.parameters), "returns": dict(returns)})
        return self.names[origin]


def import_set(path: Path, kind: str, folder: Path, world: str | None = None) -> ImportedSet:
    """Write the suite `folder`, with a world `<folder>-tools` in it that answers any call of its tools.

    `world`: the world of tau2's tools, which its tasks do not describe.

    Raises:
        InputError: the folder is not empty, the file cannot be read, or no record can be a case.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise InputError(f"{folder} already exists and is not empty; remove it, or choose another --output")
    if (kind == "tau2") != (world is not None):
        raise InputError("tau2's tasks do not describe its tools, which --tools WORLD must name; no other set needs it")
    beside = path.parent / "possible_answer" / path.name
    rows = (row for row in (read_rows(beside) if kind == "acebench" else ()) if isinstance(row, Row))
    answers: Any = {str(row.value.get("id")): row.value.get("ground_truth") for row in rows}
    made = ImportedSet(folder)
    for row in read_rows(path):
        if not isinstance(row, Row):
            made.rejected.append((row.line, row.reason))
            continue
        try:
            made.add(READERS[kind](row.value, answers), row.line)
        except InputError as error:
            made.rejected.append((row.line, str(error)))
        except _FOREIGN as error:
            made.rejected.append((row.line, f"it is no record of {kind} ({type(error).__name__}: {error!s:.60})"))
    _require_cases(made, path)
    partial = folder.resolve().with_name(f".{folder.resolve().name}.{os.getpid()}.partial")
    try:
        with naming(folder):
            _write(made, partial, path, kind, world)
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return made


def _write(made: ImportedSet, folder: Path, path: Path, kind: str, world: str | None) -> None:
    """Write the suite to `folder`, check it, and write it again without the flawed cases."""
    tools = f"{made.folder.resolve().name}-tools"
    if world is None:
        readme = f"# {tools}\n\nThe tools of {path.name} ({kind}); each answers with a value drawn from its schema.\n"
        write_world(folder / tools, made.tools, default_base_url(tools), readme)
        place = f"./{tools}"
    else:
        place = os.path.relpath(world, folder) if Path(world).exists() else world
        place = place if "/" not in place or place.startswith(".") else f"./{place}"
    head = {
        "name": made.folder.resolve().name,
        "description": f"{path.name} of {kind}.",
        "worlds": [place],
        "source": kind,
    }
    _write_cases(made, folder)
    write_text(folder / "suite.toml", "".join(f"{key} = {json.dumps(value)}\n" for key, value in head.items()))
    suite = load_suite(path_argument(folder))
    plan = make_plan([suite], [load_toolset(world or str(folder / tools))], strict=False)
    for flaw in check_cases(plan):
        if made.cases.pop(flaw.case, None):
            made.rejected.append((made.lines[flaw.case], flaw.problem))
    _require_cases(made, path)
    _write_cases(made, folder)
    rejected = ({"line": line, "reason": reason} for line, reason in sorted(made.rejected))
    write_text(folder / "rejected.jsonl", "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in rejected))


def _write_cases(made: ImportedSet, folder: Path) -> None:
    lines = [json.dumps(case, ensure_ascii=False) + "\n" for case in made.cases.values()]
    write_text(folder / "cases.jsonl", "".join(lines))


def _require_cases(made: ImportedSet, path: Path) -> None:
    if not made.cases:
        line, reason = min(made.rejected)
        raise InputError(f"{path}: no record can be a case (of {len(made.rejected)}); {path}:{line}: {reason}")
