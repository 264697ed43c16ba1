"""Records of public sets as cases: API-Bank, Seal-Tools, ACEBench, tau2 and When2Call.

A reader turns a record into a `Draft`, or raises InputError with the reason for which the record is rejected.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from agentft.errors import InputError
from agentft.evaluation.bfcl_data import json_schema
from agentft.json_text import parse_json
from agentft.records.tools import make_tool
from agentft.types import Category, Json, ToolDefinition

__all__ = ["READERS", "Draft"]

_PROMPT = re.compile(r'api_list = (\[.*\])\ntask_instruction = "(.*)"\nOutput:', re.DOTALL)
_PAIR = re.compile(r"(\w+)='([\[{].*?[\]}]|(?:(?!', ).)*)'(?=, \w+='|$)", re.DOTALL)
_CALLS = re.compile(r"\[.*\]", re.DOTALL)
_CASE = "A customer has been told the following. Act for them as if they had written it themselves.\n\n"
Call = tuple[str, dict[str, Json]]


@dataclass(frozen=True, slots=True)
class Draft:
    """A record before its tools have names of their own. `tools`: each with the schema of its result, or {}.

    `messages`: the conversation as OpenAI messages; the last one is the user's request. `calls`: the expected calls.
    """

    id: str
    messages: Sequence[dict[str, Json]]
    tools: Sequence[tuple[ToolDefinition, Mapping[str, Json]]]
    calls: Sequence[Call]
    category: Category | None = None


def _api_bank(row: Mapping[str, Any], _answers: Mapping[str, Any]) -> Draft:
    """A prompt with one API description a line, a dialogue, and the reply: a request, or a sentence."""
    told, _, listed = row["instruction"].partition("API descriptions:\n")
    documents: Any = [parse_json(line) for line in listed.split("\n") if line]
    tools = [_tool(one, one["input_parameters"], one.get("output_parameters")) for one in documents]
    year = re.search(r"^The current year is .*", told, re.MULTILINE)  # dates in the expected calls depend on it
    messages: list[dict[str, Json]] = [{"role": "system", "content": year[0]}] if year else []
    lines = re.split(r"^(User|AI|API-Request): ?", row["input"].partition("\nGenerate ")[0] + "\n", flags=re.MULTILINE)
    for number, (speaker, text) in enumerate(zip(lines[1::2], lines[2::2], strict=True)):
        if speaker == "API-Request":
            written, _, result = text.strip().partition("]->")
            name, arguments = _python_call(written.removeprefix("["))
            function: Json = {"name": name, "arguments": json.dumps(arguments)}
            messages.append({"role": "assistant", "tool_calls": [{"id": f"c{number}", "function": function}]})
            messages.append({"role": "tool", "tool_call_id": f"c{number}", "content": result})
        else:
            messages.append({"role": "user" if speaker == "User" else "assistant", "content": text.strip()})
    while messages and messages[-1]["role"] == "assistant":  # it announces the call
        messages.pop()
    request = row["expected_output"].strip().removeprefix("API-Request:").strip()
    if request == row["expected_output"].strip():
        raise InputError("the expected reply is a sentence, not a call")
    call = _python_call(request.removeprefix("[").removesuffix("]"))
    if call[0] == "ToolSearcher":
        raise InputError("the keywords of a search for tools are free text")
    return Draft(f"{row['file']}-{row['id']}", messages, tools, [_typed(call, tools)])


def _seal_tools(row: Mapping[str, Any], _: Mapping[str, Any]) -> Draft:
    """`dataset_for_finetune`: a prompt that holds the tools and the request, and the calls as Python literals."""
    if "conversations" not in row:
        raise InputError("the record lists no tools; give a file of dataset_for_finetune")
    asked, answered = (turn["value"] for turn in row["conversations"])
    listed, request = _PROMPT.findall(asked)[0]
    tools = []
    for one in ast.literal_eval(listed):
        tool, result = _tool(one, one["parameters"], one.get("responses"), "api_")
        tools.append((replace(tool, parameters={**tool.parameters, "required": one["required"]}), result))
    calls = [(one["api"], one["parameters"]) for one in ast.literal_eval(answered)]
    if any("API_call_" in str(value) for _, arguments in calls for value in arguments.values()):
        raise InputError("a call needs a value of an earlier result, which the set does not have")
    return Draft(row["id"], [{"role": "user", "content": request}], tools, [_typed(call, tools) for call in calls])


def _acebench(row: Mapping[str, Any], answers: Mapping[str, Any]) -> Draft:
    if "initial_config" in row:
        raise InputError("its calls need ACEBench's own simulators (agent_*)")
    tools = [_tool(one, one.get("parameters", one.get("arguments")), one.get("results")) for one in row["function"]]
    context = "\n".join(text.strip() for text in (row.get("time"), row.get("profile")) if text)
    messages: list[dict[str, Json]] = [{"role": "system", "content": context}] if context else []
    lines = re.split(r"^(user|system): ?", row["question"], flags=re.MULTILINE)
    told = zip(("assistant" if speaker == "system" else speaker for speaker in lines[1::2]), lines[2::2], strict=True)
    # The assistant's calls have no result; the sentence after each one says what came of it.
    kept = ((role, text.strip()) for role, text in told if role == "user" or not _CALLS.fullmatch(text.strip()))
    for role, group in groupby(kept, key=lambda one: one[0]):
        messages.append({"role": role, "content": "\n\n".join(text for _, text in group)})
    if row["id"] not in answers:
        raise InputError("it has no entry in possible_answer")
    truth = answers[row["id"]]
    if isinstance(truth, list) and len(truth) != 1:
        raise InputError("any of several answers counts")
    if row["id"].startswith("special"):
        return Draft(row["id"], messages, tools, [], "missing_tool" if isinstance(truth, str) else "missing_parameter")
    names = {tool.name for tool, _ in tools}
    wanted = truth[0] if isinstance(truth, list) else truth
    # A tool that is called more than once has a number after its name.
    calls = [(name if name in names else re.sub(r"_\d+$", "", name), made) for name, made in wanted.items()]
    return Draft(row["id"], messages, tools, calls)


def _tau2(row: Mapping[str, Any], _: Mapping[str, Any]) -> Draft:
    """A task of the agent alone: its ticket, or what the simulated user is told."""
    actions = (row.get("evaluation_criteria") or {}).get("actions") or []
    if not actions:
        raise InputError("it expects no call, but reading is allowed, so that no reply can be called wrong")
    if any(one.get("requestor", "assistant") != "assistant" for one in actions):
        raise InputError("the user must call tools, for which tau2's user simulator is needed")
    if any(one.get("compare_args") is not None for one in actions):
        raise InputError("only some arguments of a call count (compare_args)")
    if any((row.get("initial_state") or {}).values()):
        raise InputError("it begins in a state of its own (initial_state)")
    told = row["user_scenario"]["instructions"]
    if isinstance(told, dict):
        keys = ("reason_for_call", "known_info", "task_instructions")
        told = "\n\n".join(str(told[key]).strip() for key in keys if told.get(key))
    message: dict[str, Json] = {"role": "user", "content": row.get("ticket") or _CASE + told}
    return Draft(str(row["id"]), [message], (), [(one["name"], one["arguments"]) for one in actions], "dependent")


def _when2call(row: Mapping[str, Any], _: Mapping[str, Any]) -> Draft:
    categories: dict[str, Category] = {
        "direct": "irrelevance",
        "request_for_info": "missing_parameter",
        "cannot_answer": "missing_tool",
    }
    documents: Any = [parse_json(one) if isinstance(one, str) else one for one in row["tools"]]
    tools = [_tool(one, one.get("parameters"), None) for one in documents]
    message: dict[str, Json] = {"role": "user", "content": row["question"]}
    category, calls = categories.get(row["correct_answer"]), []
    if category is None:
        written = row["answers"]["tool_call"]
        text = re.search(r"[\[{].*[\]}]", written, re.DOTALL) if isinstance(written, str) else None
        made: Any = parse_json(text[0]) if text else written
        calls = [(one["name"], one["arguments"]) for one in (made if isinstance(made, list) else [made])]
    return Draft(row["uuid"], [message], tools, calls, category)


READERS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any]], Draft]] = {
    "api-bank": _api_bank,
    "seal-tools": _seal_tools,
    "acebench": _acebench,
    "tau2": _tau2,
    "when2call": _when2call,
}
"""By set: (record, ACEBench's answers by id) -> its draft. A KeyError, TypeError and the like: no record of the set."""


def _python_call(text: str) -> Call:
    """`Name(key='value')`, also with unescaped quotes in a value; nothing is evaluated."""
    try:
        made: Any = ast.parse(text.strip(), mode="eval").body
        return made.func.id, {word.arg: ast.literal_eval(word.value) for word in made.keywords}
    except (SyntaxError, ValueError, AttributeError, RecursionError, MemoryError):
        name, _, listed = text.strip().removesuffix(")").partition("(")
        pairs = _PAIR.findall(listed)
        if not pairs or ", ".join(f"{key}='{value}'" for key, value in pairs) != listed:
            raise InputError("a call cannot be read as Name(key='value')") from None
        return name, dict(pairs)


def _tool(document: Any, parameters: Json, result: Json, before: str = "") -> tuple[ToolDefinition, Mapping[str, Json]]:
    """A tool and the schema of its result. `before`: what the keys of its name and description begin with."""
    name = document[f"{before}name"]
    tool = make_tool(name, document.get(f"{before}description"), parameters)
    one = result if isinstance(result, dict) else {}
    named = "properties" in one or all(isinstance(value, dict) for value in one.values())
    schema = json_schema(make_tool(name, "", result).parameters) if named and one else {}
    return ToolDefinition(name, tool.description, json_schema(tool.parameters)), schema


def _typed(call: Call, tools: Sequence[tuple[ToolDefinition, Mapping[str, Json]]]) -> Call:
    """Arguments that a set writes as text, with the type that the tool declares."""
    name, arguments = call
    schemas: Any = next((tool.parameters["properties"] for tool, _ in tools if tool.name == name), {})

    def typed(key: str, value: Json) -> Json:
        kind = schemas.get(key, {}).get("type")
        if not isinstance(value, str) or kind not in ("integer", "number", "boolean", "array", "object"):
            return value
        try:
            made: Json = ast.literal_eval(value) if kind in ("array", "object") else parse_json(value.lower())
            return made
        except (ValueError, SyntaxError):
            return value

    return name, {key: typed(key, value) for key, value in arguments.items()}
