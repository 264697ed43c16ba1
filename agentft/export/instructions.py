"""How to serve an export: commands for its README.md and the terminal."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from agentft.files import read_object
from agentft.rendering import FramedRendering
from agentft.rendering.native import NativeRendering
from agentft.runs import FinishedRun

__all__ = ["how_to_serve", "tool_parser"]

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
_PARSERS = {"<tool_call>": "hermes", "[TOOL_CALLS]": "mistral", "<|python_tag|>": "llama3_json"}


def tool_parser(rendering: FramedRendering | NativeRendering) -> str | None:
    """vLLM's parser of the calls; None if it has none that is known to read them."""
    if isinstance(rendering, FramedRendering):
        return rendering.format.server_parser
    syntax = rendering.syntax
    found = next((parser for mark, parser in _PARSERS.items() if mark in syntax.head), None)
    bare = not syntax.head.strip() and syntax.keys is not None and syntax.keys.arguments == "parameters"
    return found or ("llama3_json" if bare else None)


def how_to_serve(to: str, output: Path, run: FinishedRun, rendering: FramedRendering | NativeRendering) -> str:
    """Markdown with the commands, which a shell takes as they are."""
    name, base = quote(run.path.resolve().name), quote(run.model)
    folder, template = quote(str(output)), quote(f"{output}/chat_template.jinja")
    if to == "ollama":
        return _shell(f"ollama create {name} -f {quote(f'{output}/Modelfile')}", f"ollama run {name}")
    if to == "gguf":
        return _shell(f"llama-server -m {quote(f'{output}/model.gguf')} --jinja")
    if to == "adapter":
        return (
            f"Load it with peft's `AutoPeftModelForCausalLM.from_pretrained({str(output)!r})`, or evaluate the run:\n\n"
            + (_shell(f"agentft eval basics --adapter {quote(str(run.path))}"))
        )
    evaluate = _shell(f"agentft eval basics --model {folder} --format {run.call_format}")
    if to == "merged":
        return f"{_shell(f'transformers serve {folder}')}\nTo evaluate it:\n\n{evaluate}"
    parser = tool_parser(rendering)
    options = f"--chat-template {template}"
    if parser:
        options += f" --enable-auto-tool-choice --tool-call-parser {parser}"
    text = _shell(f"vllm serve {folder} {options}")
    if rank := _served_rank(run):
        lora = f"--enable-lora --max-lora-rank {rank} --lora-modules {name}={quote(f'{output}/adapter')}"
        text += f"\nOr the adapter on top of its base:\n\n{_shell(f'vllm serve {base} {lora} {options}')}"
    if parser is None and rendering.name == "msagent":
        text += (
            '\nvLLM has no parser for MS-Agent calls: they arrive as text. Ask with `"stop": ["<|endofthink|>"], '
            '"include_stop_str_in_output": true`. For `tool_calls` in the responses, train with `--format hermes`.\n'
        )
    elif parser is None:
        text += "\nNo parser of vLLM is known to read this template's calls; see its list for your base model.\n"
    return text


def _served_rank(run: FinishedRun) -> int | None:
    """vLLM's smallest --max-lora-rank for the run's adapter; None if there is none, or vLLM cannot load it."""
    if run.is_whole:
        return None
    config = read_object(run.weights / "adapter_config.json")
    if any(config.get(key) for key in ("use_dora", "modules_to_save", "trainable_token_indices")):
        return None
    return next((size for size in _RANKS if size >= config.get("r", 0)), None)


def _shell(*lines: str) -> str:
    return "\n".join(["```sh", *lines, "```", ""])
