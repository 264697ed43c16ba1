"""Calls, thoughts and results in texts, in a notation that nothing reads: they would pass for plain text."""

from __future__ import annotations

import re
from collections.abc import Iterable

from agentft.types import Text, Turn

__all__ = ["is_call_written", "written_call", "written_calls_of"]

# The tags of model families; then shapes: `f(a=1)` in brackets or alone, `f` above its arguments, and an object.
_CALL = re.compile(
    r"<(?:\w{1,20}[:_|])?(?:(?i:tool_?calls?)|tool_(?:use|code)|function_?calls?|invoke)(?= |>)"
    r"|<(?:function=|function name=|<function>>|start_function_call>|execute>|use_mcp_tool>)"
    r"|<\|(?:startofthink\|>|tool_call|tools_prefix\|>|python_tag\|>|action_start\|>|START_ACTION\|>)"
    r"|\[TOOL_CALLS\]|<｜tool[▁_]call|< ?[|｜]{1,2} ?DSML ?[|｜]{1,2} ?\w+|<\|channel\|>commentary"
    r"|to=(?:functions|multi_tool_use)\.|functions\.(?=\w{1,64}:\d)|```tool_code|✿FUNCTION✿|Action Input ?[:：]"
    r"|functools\[(?=\{)|default_api\.(?=\w+\()|\bcall:(?=[\w.-]+\{)"
    r"|(?P<python>\[[A-Za-z_][\w .-]*\((?:\)|\w+ ?=)|(?:\A|Call: |Action: |\bprint\()[A-Za-z_][\w.]*\(\w+ ?=)"
    r'|(?P<lines>\A(?:>>>)?[A-Za-z_][\w.-]*\n\{")'
    r'|(?P<object>"(?:name|tool_name|tool|function|action|recipient_name)"\s*:\s*"[^"\n]{1,64}"\s*,'
    r'\s*"(?:arguments|parameters|args|input|action_input|tool_input)"\s*:)'
)
# What begins (or, after a prompt that began it, ends) a thought, and the ends of turns.
_OTHER = re.compile(
    r"</?(?:\w{1,20}[:|])?(?i:think(?:ing)?|thoughts?|reasoning|scratch_?pad|longcat_think)>|\[THINK\]|◁think▷"
    r"|<\|(?:begin_of_thought|START_THINKING)\|>|<\|channel\|?>(?:analysis|thought)"
    r"|\[/?INST\]"
    r"|<\|(?:im_end|eot_id|eom_id|end|endoftext|end_of_text)\|>|<end_of_turn>|</s>(?=\s*\Z)"
)
_LABEL = re.compile(r"\s*(?i:(?:thought|think|action) ?\d{0,2}|act) ?[:：]")  # of a step, as in ReAct's prompts
# What begins a result, or a prompt that a chat template has written already.
_TOLD = re.compile(
    r"\s*(?:<tool_response>|<function_results?>|\[TOOL_RESULTS\]"
    r"|<s>|\[INST\]|<\|im_start\|>|<\|start_header_id\|>|<start_of_turn>)"
)
_SHAPES = {"python": "f(a=1)", "lines": "f {...}", "object": '{"name": ..., "arguments": ...}'}


def written_call(text: str) -> str:
    """The notation of the first such call, or else thought, for example `[TOOL_CALLS]`; empty if there is none."""
    found = _CALL.search(text) or _OTHER.search(text) or _LABEL.match(text)
    return _SHAPES.get(found.lastgroup or "", found[0].strip()) if found else ""


def is_call_written(text: str) -> bool:
    """Whether there is such a call."""
    return bool(_CALL.search(text))


def written_calls_of(turns: Iterable[Turn]) -> Iterable[str]:
    """What to name in these turns, each once."""
    parts = ((turn.role, part) for turn in turns for part in turn.parts)
    texts = [(role, part.text) for role, part in parts if isinstance(part, Text) and not part.thought]
    said = map(written_call, (text for role, text in texts if role == "assistant"))
    told = (found[0].strip() for role, text in texts if role == "user" and (found := _TOLD.match(text)))
    return dict.fromkeys(
        [*(f"{kind} in an assistant's text" for kind in said if kind), *(f"{kind} in a user's text" for kind in told)]
    )
