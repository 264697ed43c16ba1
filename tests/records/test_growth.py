"""No reader takes quadratic time over hostile text. `python -m tests.bench.bench_growth` has the exact figures."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable
from math import log

import pytest

from agentft.calls import CALL_FORMATS
from agentft.errors import RowError
from agentft.json_text import UnreadableError, parse_json, read_value
from agentft.records import parse_row
from agentft.records.declarations import parse_system
from agentft.types import Json

DECLARES = '{"name": "a", "description": "'
CALL = "<|startofthink|>"
UNITS = {
    "brace": "{",
    "bracket": "[",
    "closing": "}",
    "nested": '{"a":',
    "nested-lists": '[{"a":',
    "declarations": '{"name": "a", "description": ',
    "broken": '{"name": "a", "description": "x", ',
    "broken-lines": '{"name": "a", "description": "x", \n\n',
    "both-parities": '{":{":',
    "python": "{'name': 'a', 'description': 'b'} ",
    "escapes": '\\"',
    "quotes": '"',
    "backslashes": "\\",
    "spaces": " ",
    "lines": "\n",
    "blank-lines": " \n",
    "numbers": "1",
    "commas": ",",
    "calls": CALL,
    "ends": "<|endofthink|>",
    "open-calls": CALL + '{"',
    "literal-calls": CALL + "{'a<|endofthink|>",
    "results": '<|startofexec|>{"x<|endofexec|>',
    "open-results": "<|startofexec|>",
    "tags": "<tool_call>",
    "open-tags": '<tool_call>{"',
    "literal-tags": "<tool_call>{'a</tool_call>",
    "lines-of-tags": "\n<tool_call>\n",
    "tools-tags": "<tools>",
    "closed-tools": "<tools></tools>",
    "tools-in-lines": "<tools>{}\n</tools>\n",
    "response-tags": "<tool_response>",
    "responses": "<tool_response>1</tool_response>",
    "fences": "```json\n",
    "react": "Action: a\n",
    "react-lines": "Action:\n\n",
    "surrogates": "\\ud800",
}
LIMIT = 5.0  # seconds of CPU for a megabyte: quadratic time would be minutes
HEADS = ["", DECLARES, '{"name": "a", "parameters": [', CALL, CALL + "{'", '<tool_call>{"name": "', "[", '{"a": "']


def row(text: str) -> dict[str, Json]:
    turns: list[Json] = [{"role": "user", "content": "u"}]
    function: Json = {"name": "f", "arguments": text}
    turns.append({"role": "assistant", "content": text, "tool_calls": [{"id": "c", "function": function}]})
    turns.append({"role": "tool", "tool_call_id": "c", "content": text})
    return {"messages": turns, "tools": [{"name": "f", "description": text, "parameters": "{}"}]}


def msagent(text: str) -> dict[str, Json]:
    return {"conversations": [{"from": "user", "value": text}, {"from": "assistant", "value": text}]}


def tagged(text: str) -> dict[str, Json]:
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    texts = {"system": f"# Tools <tools>[{text}", "user": text, "assistant": call * 3 + text, "tool": text}
    return {"messages": [{"role": role, "content": content} for role, content in texts.items()]}


READERS: dict[str, Callable[[str], object]] = {
    "system": parse_system,
    "msagent": CALL_FORMATS["msagent"].parse,
    "hermes": CALL_FORMATS["hermes"].parse,
    "value": read_value,
    "json": parse_json,
    "openai-row": lambda text: parse_row(row(text), "r"),
    "msagent-row": lambda text: parse_row(msagent(text), "r"),
    "tagged-row": lambda text: parse_row(tagged(text), "r"),
    "tagged-system": lambda text: parse_row(tagged(f"]</tools>{text}</tools>"), "r"),
    "tools": lambda text: parse_row({**row("{}"), "tools": text}, "r"),
}


def seconds(read: Callable[[str], object], text: str) -> float:
    gc.disable()
    start = time.process_time()
    try:
        read(text)
    except (RowError, UnreadableError):
        pass
    finally:
        gc.enable()
    return time.process_time() - start


def grown(read: Callable[[str], object], head: str, unit: str) -> str:
    """What is too slow about a reader on this text; empty if nothing is."""
    spent = {}
    for size in (10_000, 100_000, 1_000_000):
        spent[size] = seconds(read, head + unit * (size // len(unit)))
        if spent[size] > LIMIT:
            return f"{spent[size]:.1f} s for {size:,} characters"
    if spent[1_000_000] > LIMIT / 4 and (exponent := log(spent[1_000_000] / spent[100_000], 10)) > 1.6:
        return f"exponent {exponent:.2f} ({spent})"
    return ""


@pytest.mark.parametrize("escaped", ['\\"', "[", "{"])
def test_a_broken_declaration_is_refused_in_linear_time(escaped: str) -> None:
    with pytest.raises(RowError, match="a tool's declaration"):
        parse_system(DECLARES + escaped * 32_000)
    assert seconds(parse_system, DECLARES + escaped * 32_000) < LIMIT / 5


def test_the_tools_between_broken_objects_are_found() -> None:
    one, two = '{"name": "a", "description": "b"}', '{"name": "c", "description": "d"}'
    text = f'{{"x": {{"y": 1}}, "z": [{one}, {{"w": {{oops }} {one} {{"u": {two}'
    assert [found.name for found in parse_system(text)[1]] == ["a", "c"]


def test_a_deeply_nested_system_text_is_refused_in_linear_time() -> None:
    with pytest.raises(RowError) as caught:
        parse_system('{"a":' * 200 + "1" + "}" * 200)
    assert caught.value.reason == "too-deep"


@pytest.mark.slow
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", READERS)
def test_readers_take_linear_time(name: str, head: str) -> None:
    slow = {unit: why for unit, text in UNITS.items() if (why := grown(READERS[name], head, text))}
    assert not slow
