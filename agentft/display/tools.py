"""Tables of tool worlds and their tools."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from rich.table import Table
from rich.text import Text

from agentft.display.safe import safe_name, safe_text
from agentft.toolset import Toolset
from agentft.toolset.proof import BrokenPromise

__all__ = ["proof_table", "tool_list", "tool_table", "world_table"]

_MARKS = {"read": "green", "write": "yellow", "destructive": "red"}


def tool_table(toolsets: Sequence[Toolset]) -> Table:
    """Every tool with its arguments, and whether it reads or writes."""
    table = Table("tool", "", "what it does, and its arguments", box=None, padding=(0, 2, 1, 0), header_style="bold")
    for toolset in toolsets:
        for tool in toolset.tools.values():
            definition = tool.definition
            about = Text("\n").join([safe_text(definition.description), *_arguments(definition.parameters)])
            mark = Text(tool.access, _MARKS[tool.access])
            table.add_row(safe_name(definition.name, "bold cyan"), mark, about)
    return table


def tool_list(toolsets: Sequence[Toolset], off: Collection[str] = ()) -> Table:
    """One line per tool: whether it reads or writes, or is `off`, what it does, and the names of its arguments."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, tool in ((name, tool) for toolset in toolsets for name, tool in toolset.tools.items()):
        mark = Text("off", "dim") if name in off else Text(tool.access, _MARKS[tool.access])
        names = cast(dict[str, Any], tool.definition.parameters.get("properties", {}))
        about = safe_name(tool.definition.description).append_text(safe_text(f" ({', '.join(names)})", "dim"))
        table.add_row(safe_name(name, "bold cyan"), mark, about)
    return table


def world_table(toolsets: Sequence[Toolset]) -> Table:
    """One row per world: its address, and its tools (* writes, ** is destructive)."""
    table = Table(
        "world", "address", "tools (* writes, ** destructive)", box=None, padding=(0, 2, 0, 0), header_style="bold"
    )
    for toolset in toolsets:
        stars = {"read": "", "write": "*", "destructive": "**"}
        names = [name + stars[tool.access] for name, tool in toolset.tools.items()]
        table.add_row(safe_name(toolset.name, "bold cyan"), safe_text(toolset.base_url), safe_name(", ".join(names)))
    return table


def proof_table(found: Mapping[str, Sequence[BrokenPromise]], promises: Mapping[str, str]) -> Table:
    """One line per world that passes its checks, and one per failed check, with location and fix."""
    table = Table("where", "check", "problem and remedy", box=None, padding=(0, 2, 0, 0), header_style="bold")
    for world, findings in found.items():
        for finding in findings:
            where = f"{finding.world}.{finding.tool}" if finding.tool else finding.world
            problem = Text.assemble(safe_name(finding.problem), "\n", (promises[finding.promise], "dim"))
            table.add_row(safe_name(where, "bold cyan"), Text(finding.promise, "red"), problem)
        if not findings:
            table.add_row(safe_name(world, "bold cyan"), Text("all passed", "green"), Text(", ".join(promises), "dim"))
    return table


def _arguments(schema: Mapping[str, Any]) -> list[Text]:
    """One line per argument: `days: integer 1..7 = 1  how many days`."""
    required = schema.get("required", [])
    lines = []
    for name, spec in schema.get("properties", {}).items():
        line = Text.assemble("  ", safe_name(name, "bold"), safe_text(f": {_kind(spec)}", "dim"))
        if name not in required:
            default = spec.get("default", "")
            line.append_text(safe_text(" (optional)" if default == "" else f" = {default}", "dim"))
        if spec.get("description"):
            line.append_text(safe_text(f"  {spec['description']}"))
        lines.append(line)
    return lines


def _kind(spec: Mapping[str, Any]) -> str:
    if "enum" in spec:
        return " | ".join(str(value) for value in spec["enum"])
    types = spec.get("type", "any")
    kind = " or ".join(types) if isinstance(types, list) else str(types)
    if properties := spec.get("properties"):
        return f"{kind} of {', '.join(properties)}"
    low, high = spec.get("minimum"), spec.get("maximum")
    if low is not None and high is not None:
        return f"{kind} {low}..{high}"
    least, most = f" at least {low}", f" at most {high}"
    return kind + (least if low is not None else "") + (most if high is not None else "")
