"""Reads the tables of tests/metrics/*.toml: what a case expects, what the model wrote, and the expected score.

[[case]]
name = "..."                  # shown when the test fails
category = "single"           # optional
entry = {category = "simple_python", answers = [...]}          # optional: of BFCL, with the tools below
format = "hermes"             # optional: the call format that `said` is written in
turns = [{calls = [...], answer = [...], failing = 0}]         # as in a suite's cases.jsonl, without `user`
said = [{turn = 0, text = "..."}, {calls = [{name = "...", arguments = {}}], error = true, sent = true},
        {calls = [...], fault = "503", received = "..."}]   # the fault of each exchange, and what it brought
                              # a step may have a `finish` (see `Finish`)
forbidden = [{name = "...", arguments = {}}]                   # optional: calls that must not be made
value = 1.0                   # or "n/a"
reason = "..."                # the reason of the score, or its beginning followed by `...`
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from agentft.calls import call_format
from agentft.metrics import Context
from agentft.metrics.bfcl import BfclEntry
from agentft.toolserver.faults import FAULT_KINDS
from agentft.types import (
    CallExpectation,
    Case,
    CaseTurn,
    Exchange,
    Json,
    Span,
    Step,
    ToolCall,
    ToolDefinition,
    Trajectory,
)

HERE = Path(__file__).parent
STRING: dict[str, Json] = {"type": "string"}


def tool(name: str, required: list[str], /, **properties: dict[str, Json]) -> ToolDefinition:
    schema: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
    return ToolDefinition(name, f"Does {name}.", schema, (f"http://w.test/{name}", f"http://w.test/v2/{name}"))


TOOLS = {
    definition.name: definition
    for definition in (
        tool("weather", ["city"], city=STRING, unit={"enum": ["celsius", "fahrenheit"]}, days={"type": "integer"}),
        tool("search", ["query"], query=STRING),
        tool("convert", ["value", "to"], value={"type": "number"}, to=STRING),
        tool("alert", ["city"], city=STRING, tags={"type": "array"}),
        tool("ping", []),
    )
}


def read_table(name: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = tomllib.loads((HERE / f"{name}.toml").read_text(encoding="utf-8"))["case"]
    return rows


def make_case(row: dict[str, Any]) -> Case:
    turns = [
        CaseTurn(
            user="Please.",
            calls=tuple(
                CallExpectation(
                    call["name"],
                    call.get("arguments", {}),
                    {key: tuple(values) for key, values in call.get("alternatives", {}).items()},
                    call.get("optional", {}),
                )
                for call in turn.get("calls", [])
            ),
            answer=tuple(turn.get("answer", [])),
            failing=turn.get("failing", 0),
            reference=turn.get("reference", ""),
        )
        for turn in row.get("turns", [{}])
    ]
    forbidden = tuple(CallExpectation(call["name"], call.get("arguments", {})) for call in row.get("forbidden", []))
    category, comparators = row.get("category", "single"), row.get("comparators", {})
    return Case("c", "s", category, "en", ("w",), tuple(turns), comparators, forbidden=forbidden)


def make_trajectory(row: dict[str, Any]) -> Trajectory:
    steps = tuple(make_step(said, row.get("format", "hermes")) for said in row.get("said", []))
    return Trajectory("c", 0, "prompt", steps, row.get("outcome", "done"), row.get("state", ""))


def make_step(said: dict[str, Any], name: str) -> Step:
    fmt = call_format(name)
    text = said.get("text", "")
    if "calls" in said:
        text += fmt.write_parts(
            [
                ToolCall("c", call["name"], call.get("arguments", {}), Span(0, 0), endpoint=call.get("url"))
                for call in said["calls"]
            ]
        )
    parts = fmt.parse(text)
    fault = said.get("fault", "")
    kind = FAULT_KINDS.get(fault)
    status = said.get("status", kind.status if kind else 404 if said.get("error") else 200)
    error = said.get("error", status is None or status >= 400)
    exchanges = tuple(
        Exchange(part, "POST", "", {}, status, said.get("received", "{}"), error, fault)
        if said.get("sent", True)
        else Exchange(part, "", None, None, None, "{}", error)
        for part in parts
        if isinstance(part, ToolCall)
    )
    return Step(said.get("turn", 0), parts, text, said.get("finish", "end"), exchanges)


def make_context(row: dict[str, Any]) -> Context:
    return Context(TOOLS, row.get("gold_state"), make_entry(**row["entry"]) if "entry" in row else None)


def make_entry(category: str, answers: list[Any]) -> BfclEntry:
    functions = [
        {"name": tool.name, "parameters": {**tool.parameters, "required": []}}
        for tool in TOOLS.values()
        if category != "simple_python" or tool.name in answers[0]
    ]
    return BfclEntry(category, tuple(functions), tuple(answers))
