"""Ollama's Go template for a frame with Hermes calls, and what it renders.

Ollama's templates cannot trim, and its JSON has other spaces and sorted keys than training's. So the declarations of
the tools that were trained on, and the order of their arguments, are literal texts of the template. `render` does what
Ollama does with `source`; a test compares the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agentft.calls import call_format
from agentft.calls.format import declare_tool, dump_json
from agentft.errors import FrameError
from agentft.rendering.frame import Frame
from agentft.types import Json, ToolDefinition

__all__ = ["OllamaTemplate", "ollama_template"]

MAX_TOOLS = 256
_REMEDY = "export it --to vllm, whose templates can render any run"


@dataclass(frozen=True)
class OllamaTemplate:
    """The texts of the template. `bare`: before the first user message without system text and tools.

    `system`: before and after the system text. `reply`: between a user's message and the reply. `following`: between a
    reply and what follows. `prompt`: at the end. `declarations`: tool -> its line. `arguments`: tool -> its parameters
    in order. `around`: before and after all declarations. `start`: before them without system text. `thinking`: replies
    have thoughts.
    """

    bare: str
    system: tuple[str, str]
    reply: str
    following: str
    prompt: str
    declarations: Mapping[str, str]
    arguments: Mapping[str, Sequence[str]]
    around: tuple[str, str]
    start: str
    thinking: bool

    def source(self) -> str:
        """The Go template."""
        known = [_when(name, _text(line)) for name, line in self.declarations.items()]
        texts = dict(zip(("before", "after", "declare", "declared"), (*self.system, *self.around), strict=True))
        texts |= {key: getattr(self, key) for key in ("start", "bare", "following", "reply", "prompt")}
        parts = {key: _text(text) for key, text in texts.items()} | {
            "rows": _choose(known, _text('\n{"type": "function", "function": ') + "{{ json .Function }}" + _text("}")),
            "thought": "{{ with .Thinking }}<think>\n{{ . }}\n</think>\n\n{{ end }}" if self.thinking else "",
            "arguments": self._arguments(),
        }
        source = Path(__file__).with_name("ollama.gotmpl").read_text(encoding="utf-8").removesuffix("\n")
        return re.sub("@([a-z]+)@", lambda found: parts[found[1]], source)

    def render(self, messages: Sequence[Mapping[str, Any]], tools: Sequence[Json], prompt: bool) -> str:
        """What Ollama renders."""
        del prompt  # Ollama always asks for a reply
        system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
        text, last = self.bare, ""
        if system or tools:
            names: list[Any] = [tool["function"]["name"] for tool in tools if isinstance(tool, dict)]  # type: ignore[call-overload,index]
            rows = "".join(self.declarations.get(name, "\n(unknown)") for name in names)
            start = self.around[0] if system else self.start
            text = self.system[0] + system + (start + rows + self.around[1] if tools else "") + self.system[1]
        for message in messages:
            role, content = message["role"], message["content"]
            if role == "user":
                text += (self.following if last else "") + content
            elif role == "assistant":
                thought = message.get("reasoning_content") if self.thinking else ""
                block = f"<think>\n{thought}\n</think>\n\n" if thought else ""
                calls = [self._call(one["function"]) for one in message.get("tool_calls") or []]
                text += self.reply + block + content + ("\n" if content and calls else "") + "\n".join(calls)
            elif role == "tool":
                text += ("\n" if last == "tool" else self.following) + f"<tool_response>\n{content}\n</tool_response>"
            last = last if role == "system" else role
        return text + self.prompt

    def _arguments(self) -> str:
        """The arguments of the call `$c`: the tool's parameters in order, then all others."""

        def rest(names: Sequence[str]) -> str:
            each = '{{ $s }}{{ json $k }}: {{ json $v }}{{ $s = ", " }}'
            if names:
                each = f"{{{{ if not (eq $k {' '.join(map(_quoted, names))}) }}}}{each}{{{{ end }}}}"
            return f"{{{{ range $k, $v := $c.Function.Arguments }}}}{each}{{{{ end }}}}"

        def one(name: str) -> str:
            pair = f'{{{{ $s }}}}{_text(dump_json(name))}: {{{{ json $v }}}}{{{{ $s = ", " }}}}'
            each = f"{{{{ if eq $k {_quoted(name)} }}}}{pair}"
            return f"{{{{ range $k, $v := $c.Function.Arguments }}}}{each}{{{{ end }}}}{{{{ end }}}}"

        known = [_when(tool, "".join(map(one, names)) + rest(names)) for tool, names in self.arguments.items() if names]
        return _choose(known, rest(()))

    def _call(self, function: Mapping[str, Any]) -> str:
        name, given = function["name"], function["arguments"]
        order = [key for key in self.arguments.get(name, ()) if key in given]
        order += sorted(given.keys() - set(order))
        known = self.arguments.get(name, ())
        pairs = [f"{dump_json(key) if key in known else _go_json(key)}: {_go_json(given[key])}" for key in order]
        return f'<tool_call>\n{{"name": {_go_json(name)}, "arguments": {{{", ".join(pairs)}}}}}\n</tool_call>'


def ollama_template(frame: Frame, given: str, tools: Iterable[ToolDefinition], *, thinking: bool) -> OllamaTemplate:
    """The template for a frame.

    Args:
        frame: the base model's.
        given: what serving adds to the frame's generation prompt.
        tools: those of the training data.
        thinking: the run was trained on thoughts.

    Raises:
        FrameError: the frame writes a turn differently in different places.
    """
    if thinking and frame.thinker:
        raise FrameError(f"the chat template has thoughts of its own, which a Go template cannot move; {_REMEDY}")
    turns = ("user", "assistant", "user", "assistant", "user")
    outline = frame.outline(turns, generation_prompt=False)
    bare, trim = outline.pieces, outline.trims[0]
    if frame.has_system:
        outline = frame.outline(("system", *turns), generation_prompt=False)
        whole, trim = outline.pieces, outline.trims[0]
        system, regular = (whole[0], whole[1]), whole[2:] == bare[1:]
    else:
        system, regular = (bare[0], "\n\n"), True
    if not regular or bare[1] != bare[3]:
        raise FrameError(f"the chat template writes turns differently in different places; {_REMEDY}")
    prompt = frame.outline(("user",), generation_prompt=True).pieces[-1] + given
    declared: dict[str, str] = {}
    order: dict[str, Sequence[str]] = {}
    for tool in tools:
        if tool.name not in declared and len(declared) < MAX_TOOLS:
            declared[tool.name] = "\n" + dump_json(declare_tool(tool))
            properties = tool.parameters.get("properties")
            order[tool.name] = tuple(properties) if isinstance(properties, dict) else ()
    probe = ToolDefinition("probe", "", {})
    before, _, after = call_format("hermes").write_system("", [probe]).partition("\n" + dump_json(declare_tool(probe)))
    start = before.lstrip(trim[0])
    return OllamaTemplate(bare[0], system, bare[1], bare[2], prompt, declared, order, (before, after), start, thinking)


def _text(text: str) -> str:
    """A literal text."""
    return f"{{{{ {_quoted(text)} }}}}" if "{{" in text or text.endswith("{") else text


def _quoted(text: str) -> str:
    """A Go string; those of JSON are."""
    return json.dumps(text, ensure_ascii=False)


def _when(tool: str, text: str) -> str:
    return f"if eq .Function.Name {_quoted(tool)} }}}}{text}"


def _choose(known: Sequence[str], other: str) -> str:
    """`known` for the tools that were trained on, else `other`."""
    if not known:
        return other
    return "{{ " + "{{ else ".join(known) + "{{ else }}" + other + "{{ end }}"


def _go_json(value: Json) -> str:
    """JSON as Go writes it: sorted keys, no spaces, `<`, `>` and `&` escaped, whole floats without a fraction."""
    text = json.dumps(_whole(value), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _whole(value: Json) -> Json:
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        return int(value)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    return {key: _whole(item) for key, item in value.items()} if isinstance(value, dict) else value
