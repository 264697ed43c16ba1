"""Calls in an assistant's text are named: no row format reads them, so they would be learnt as plain text."""

from __future__ import annotations

from typing import Any

import pytest

from agentft.errors import RowError
from agentft.records import parse_row
from agentft.records.written import written_call

OBJECT, PYTHON, LINES = '{"name": ..., "arguments": ...}', "f(a=1)", "f {...}"
ARGUMENTS = '{"city": "Rome"}'
WRITTEN = {
    "toolace": ('[Market Trends API(city="Rome", n=1), g()]', PYTHON),
    "llama-3.2": ("[f()]", PYTHON),
    "api-bank": ("API-Request: [f(city='Rome')]", PYTHON),
    "gorilla": ('f.g(city="Rome")', PYTHON),
    "nexus": ("Call: f(city='Rome')<bot_end>", PYTHON),
    "llama-3.1": (f"<function=f>{ARGUMENTS}</function>", "<function="),
    "llama-3.1-python": ('<|python_tag|>f.call(q="Rome")', "<|python_tag|>"),
    "llama-3.1-object": (f'{{"type": "function", "name": "f", "parameters": {ARGUMENTS}}}', OBJECT),
    "xlam": (f'[{{"name": "f", "arguments": {ARGUMENTS}}}]', OBJECT),
    "nemotron": ("<TOOLCALL>[]</TOOLCALL>", "<TOOLCALL"),
    "miroverse": ("<use_mcp_tool>\n<server_name>s</server_name>\n<tool_name>f</tool_name>", "<use_mcp_tool>"),
    "react answer": ("Thought: I know it.\nFinal Answer: 3", "Thought:"),
    "react 2": ("\nThought 2: I know it.\nAction 2: Finish[3]", "Thought 2:"),
    "agenttuning": ("Think: I look.\n\nAct: bash\n\n```bash\nls\n```", "Think:"),
    "mini-swe-agent": ("THOUGHT: I look.\n```bash\nls\n```", "THOUGHT:"),
    "mistral prompt": ("3 [INST] And 4? [/INST] 4", "[INST]"),
    "command-r": (f'Action: ```json\n[{{"tool_name": "f", "parameters": {ARGUMENTS}}}]\n```', OBJECT),
    "command-a": ("<|START_ACTION|>[]<|END_ACTION|>", "<|START_ACTION|>"),
    "mistral": (f'[TOOL_CALLS] [{{"name": "f", "arguments": {ARGUMENTS}}}]', "[TOOL_CALLS]"),
    "react": (f"Thought: so\nAction: f\nAction Input: {ARGUMENTS}", "Action Input:"),
    "kimi": (f"<|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{ARGUMENTS}", "<|tool_call"),
    "kimi-names": (f"functions.f:0 {ARGUMENTS}", "functions."),
    "deepseek": ("<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f", "<｜tool▁call"),
    "deepseek-3.2": ('<｜DSML｜function_calls>\n<｜DSML｜invoke name="f">', "<｜DSML｜function_calls"),
    "gpt-oss": ("<|channel|>commentary to=functions.f<|message|>{}<|call|>", "<|channel|>commentary"),
    "glm-4": (f"f\n{ARGUMENTS}", LINES),
    "functionary": (f">>>f\n{ARGUMENTS}", LINES),
    "glaive": (f'<functioncall> {{"name": "f", "arguments": \'{ARGUMENTS}\'}}', "<functioncall"),
    "granite": ("<|tool_call|>[]", "<|tool_call"),
    "minimax": ('<minimax:tool_call><invoke name="f">', "<minimax:tool_call"),
    "claude": ('<function_calls>\n<invoke name="f">', "<function_calls"),
    "gemma": ("```tool_code\nf()\n```", "```tool_code"),
    "internlm": ("<|action_start|><|plugin|>", "<|action_start|>"),
    **{
        name: (text, kind)
        for name, text, kind in [
            ("deepseek-4", '<｜DSML｜tool_calls\n<｜DSML｜invoke name="f">', "<｜DSML｜tool_calls"),
            ("deepseek-two-bars", '<｜｜DSML｜｜tool_calls>\n<｜｜DSML｜｜invoke name="f">', "<｜｜DSML｜｜tool_calls"),
            ("deepseek-ascii", '< | DSML | tool_use>\n< | DSML | invoke name="f">', "< | DSML | tool_use"),
            ("gemma-4", 'call:f{city:<|"|>Rome<|"|>}', "call:"),
            ("gemini", 'print(default_api.f("Rome"))', "default_api."),
            ("k2-horizon", "<ifm|tool_calls><ifm|tool_call>f", "<ifm|tool_calls"),
            ("phi-4-mini", 'functools[{"name": "f"}]', "functools["),
            ("gpt-oss-bare", 'to=functions.f {"city": "Rome"}', "to=functions."),
            ("print", 'tool_code\nprint(f(city="Rome"))', PYTHON),
            ("apertus", '<|tools_prefix|>[{"f": {"city": "Rome"}}]<|tools_suffix|>', "<|tools_prefix|>"),
            ("solar", "<|tool_call:start|>f\n<|tool_arg:start|>city", "<|tool_call"),
            ("iquest", "<iquestcoder_tool_call>f<arg_key>city</arg_key>", "<iquestcoder_tool_call"),
            ("minicpm", '<function name="f"><param name="city">Rome</param></function>', "<function name="),
            ("gorilla-2", '<<function>>f(city="Rome")', "<<function>>"),
            ("parallel", 'to=multi_tool_use.parallel {"tool_uses": []}', "to=multi_tool_use."),
            ("uses", f'{{"tool_uses": [{{"recipient_name": "functions.f", "parameters": {ARGUMENTS}}}]}}', OBJECT),
            ("gpt-oss-channel", f"<|channel|>commentary<|message|>{ARGUMENTS}<|end|>", "<|channel|>commentary"),
            ("action", 'Action: f(city="Rome")', PYTHON),
            ("tool-use", "<tool_use>\n{}\n</tool_use>", "<tool_use"),
        ]
    },
    **{f"end {end}": (f"It is 3.{end}", end) for end in ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "</s>")},
    "qwen-1": (f"✿FUNCTION✿: f\n✿ARGS✿: {ARGUMENTS}", "✿FUNCTION✿"),
    **{
        f"thought {begin}": (f"{begin}so{end}Yes", begin)
        for begin, end in {
            "<thinking>": "</thinking>",
            "<Thought>": "</Thought>",
            "<reasoning>": "</reasoning>",
            "<scratchpad>": "</scratchpad>",
            "<|begin_of_thought|>": "<|end_of_thought|><|begin_of_solution|>",
            "<|START_THINKING|>": "<|END_THINKING|>",
            "[THINK]": "[/THINK]",
            "<seed:think>": "</seed:think>",
            "<ifm|think>": "</ifm|think>",
            "<longcat_think>": "</longcat_think>",
            "◁think▷": "◁/think▷",
            "<|channel|>analysis": "<|message|>so<|end|>",
            "<|channel>thought": "<channel|>",
        }.items()
    },
}


def chat(text: Any, **more: object) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": text, **more}]}


@pytest.mark.parametrize(("text", "kind"), WRITTEN.values(), ids=WRITTEN)
def test_calls_in_the_notations_of_model_families_are_named(text: str, kind: str) -> None:
    told = (f"{kind} in an assistant's text",)
    assert written_call(f"Let me look.\n{text}") == kind or written_call(text) == kind
    turns: Any = [{"from": "human", "value": text}, {"from": "gpt", "value": text}]
    for row in (chat(text), chat([{"type": "text", "text": text}])):
        assert parse_row(row, "x").unread == told
    if "Action Input" not in text:  # which rejects rows of MS-Agent
        assert parse_row({"conversations": turns}, "x").unread == told


@pytest.mark.parametrize(
    "text",
    [
        "See [the list](http://x.test) and [f (old)](http://x.test), [1] (a=b).",
        'Her record is {"name": "Anna", "age": 3}.',
        "print the sum (x = 1)",
        "The functions.json file",
        "Result:\n{1, 2}",
        "I thought: no. Action is needed.",
        "Active: yes",
        "Act 1: The storm",
        "I print(ed) the call: it is default_api, on the channel commentary.",
        "to=functions",
    ],
)
def test_plain_texts_are_not_taken_for_calls(text: str) -> None:
    assert written_call(text) == ""


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("<tool_response>\n30\n</tool_response>", "<tool_response>"),
        ("Observation: the sky is blue. Why?", ""),
        ('[TOOL_RESULTS] {"content": 30}', "[TOOL_RESULTS]"),
        ("<s>[INST] Rome? [/INST]", "<s>"),
        ("<|im_start|>user\nRome?", "<|im_start|>"),
        ("What does <tool_response> mean?", ""),
    ],
)
def test_results_and_prompts_in_a_users_text_are_named(text: str, kind: str) -> None:
    """The results of calls in `tool_calls`, and texts that went through a chat template before."""
    row = chat("Yes")
    row["messages"][0]["content"] = text
    assert parse_row(row, "x").unread == ((f"{kind} in a user's text",) if kind else ())
    call = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    if kind == "<tool_response>":  # the result of a call in the text is read
        assert parse_row({"messages": [*chat(call)["messages"], row["messages"][0]]}, "x").unread == ()


def test_thoughts_and_calls_that_are_read_are_not_named() -> None:
    call = f'<tool_call>\n{{"name": "f", "arguments": {ARGUMENTS}}}\n</tool_call>'
    block = f'<|startofthink|>{{"api_name": "f", "parameters": {ARGUMENTS}}}<|endofthink|>'
    for row in (chat(call), chat(block), chat(f"<think>I could say [f(a=1)].</think>{call}"), chat("Hello")):
        assert parse_row(row, "x").unread == ()


def test_a_result_whose_call_is_in_the_text_says_so() -> None:
    row = chat("[f(a=1)]")
    row["messages"].append({"role": "tool", "content": "3"})
    with pytest.raises(RowError, match=r"no call is open; keys that are not read: f\(a=1\)"):
        parse_row(row, "x")
