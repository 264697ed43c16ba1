"""The chat template for servers: it takes OpenAI messages and tools, and writes what training wrote.

It rewrites messages and tools as the call format does, then goes on with the base model's own template, as training
does. A native run needs its template only, with the settings of the training (no thoughts, the date).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentft.calls.msagent import INSTRUCTION, ROOT_KEYS
from agentft.errors import FrameError
from agentft.rendering import FramedRendering, Rendering
from agentft.rendering.frame import FIXED_DATE, chat_renderer, wants_tools
from agentft.types import Conversation, Json, Span, Text, ToolDefinition, Turn

__all__ = ["given_text", "served_template"]

_LISTED = "{%- if not tools -%}{%- set tools = [] -%}{%- endif -%}"
_ASKED = Conversation("probe", (Turn("user", (Text("Probe.", Span(0, 6)),), "Probe."),), (), "")


def served_template(
    rendering: Rendering, tokenizer: Any, tools: Iterable[ToolDefinition], *, thinking: bool, gap: bool = True
) -> str:
    """The Jinja source.

    Args:
        rendering: how the run rendered its conversations.
        tokenizer: the base model's.
        tools: those of the training data; their URLs, which a server does not get, are part of MS-Agent's texts.
        thinking: the run was trained on thoughts.
        gap: contents end without the newline that is before a call. vLLM's parser of Hermes calls leaves it there.

    Raises:
        FrameError: the base has several templates, or thoughts of a form that MS-Agent replies cannot go on after.
    """
    base = tokenizer.chat_template
    if not isinstance(base, str):
        raise FrameError("the tokenizer has several chat templates; keep the one for tools in its chat_template.jinja")
    if wants_tools(tokenizer):
        base = _LISTED + base
    given = given_text(rendering, tokenizer, thinking=thinking)
    head = "".join(f"{{%- set {name} = {_literal(thinking)} -%}}" for name in ("enable_thinking", "thinking"))
    head = head if "thinking" in base else ""
    head += FIXED_DATE if "strftime_now" in base else ""
    tail = _literal(given) if given else ""
    if isinstance(rendering, FramedRendering):
        head += _rewriting(rendering, tools, thinking, gap)
        tail = f"({_literal(given)} ~ _chat.tail)"
    if tail:
        base = base.removesuffix("\n") + f"{{{{ {tail} if add_generation_prompt else '' }}}}"
    return f"{head}{{{{ '' }}}}{base}" if head else base


def given_text(rendering: Rendering, tokenizer: Any, *, thinking: bool) -> str:
    """What serving adds to the generation prompt of the base's template, such as the end of an empty thought."""
    asked = chat_renderer(tokenizer)([{"role": "user", "content": "Probe."}], True, thinking)
    return "".join(segment.text for segment in rendering.prompt(_ASKED)).removeprefix(asked)


def _rewriting(rendering: FramedRendering, tools: Iterable[ToolDefinition], thinking: bool, gap: bool) -> str:
    """The part that rewrites messages and tools in the run's call format."""
    fmt, frame = rendering.format, rendering.frame
    form = frame.thinker.form if thinking and frame.thinker else None
    if form and fmt.inline_results:
        raise FrameError(
            f"the call format {fmt.name} puts results inside replies, and this chat template has thoughts of its own, "
            "so no server can go on with such a reply; train with --format hermes or native"
        )
    _, lead, trim = frame.opening(["user"]) if form is None else ("", "", ("", ""))
    constants: dict[str, Json] = {
        "INLINE": fmt.inline_results,
        "GAP": gap,
        "THOUGHTS": thinking,
        "KEYED": form is not None and form.keyed,
        "HAS_SYSTEM": frame.has_system,
        "LEAD": lead,
        "STRIP": False if trim[0] == "" else trim[0],
    }
    if fmt.name == "msagent":
        constants |= {"ROUTES": _routes(tools), "ROOT_KEYS": [*sorted(ROOT_KEYS)], "INSTRUCTION": INSTRUCTION}
    lines = "".join(f"{{%- set {name} = {_literal(value)} -%}}\n" for name, value in constants.items())
    return lines + _source(fmt.name) + _source("shared")


def _routes(tools: Iterable[ToolDefinition]) -> dict[str, Json]:
    """Tool -> [base URL, plugin, path, URL] for each of its endpoints."""
    routes: dict[str, Json] = {}
    for tool in tools:
        rows: list[Json] = []
        for url in filter(None, tool.endpoints):
            parts = urlsplit(url)
            base = f"{parts.scheme}://{parts.netloc}"
            rows.append([base, (parts.hostname or "tools").split(".")[0], url.removeprefix(base), url])
        if rows:
            routes.setdefault(tool.name, rows)
    return routes


def _source(name: str) -> str:
    return Path(__file__).with_name(f"{name}.jinja").read_text(encoding="utf-8")


def _literal(value: Json | Mapping[str, Json]) -> str:
    """A value as Jinja writes it; JSON strings are its strings."""
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
