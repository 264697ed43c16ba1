"""`agentft chat`: the terminal agent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from agentft.calls import CallFormat
    from agentft.models import Backend
    from agentft.repl.loop import Reader
    from agentft.toolset import Toolset

__all__ = ["chat_command"]

WORLDS = ("weather", "search", "calculator")
FEW = 6


def chat_command(
    *,
    model: Annotated[str | None, typer.Option(help="A folder, a hub id or an embedded name.")] = None,
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last` for the newest run.")] = None,
    tools: Annotated[
        str | None,
        typer.Option(
            help="Worlds, or tools as `world.tool`, with commas; '' for none. Default: the adapter's, or three worlds."
        ),
    ] = None,
    bits: Annotated[Literal["4", "8", "16"], typer.Option(help="Bits of a weight in memory.")] = "16",
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer as it is written.")] = True,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.0,
    top_p: Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample from this share of probability.")] = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample from the likeliest K tokens; 0: all.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Limit of one completion.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed of the sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="The persona, told to the model before the tools.")] = None,
    save: Annotated[Path | None, typer.Option(help="Add the chat to this JSONL file of MS-Agent rows.")] = None,
) -> None:
    """Talk to a model that calls tools; its calls go to mock servers on this machine.

    Questions are typed, or read from standard input one a line. /help shows what else can be typed.

    Example:
      agentft chat --adapter last --tools weather
      echo "What is 17% of 2,340?" | agentft chat --save chats.jsonl
    """
    from rich.console import Console

    from agentft.display.chat import ChatView
    from agentft.models import Sampling
    from agentft.repl.loop import PERSONA, Repl, Session
    from agentft.repl.saving import check_place
    from agentft.toolserver import ToolServer

    if save is not None:
        check_place(save)
    toolsets = _toolsets(tools, adapter)
    backend, fmt = _open(model, adapter, int(bits))
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    view = ChatView(Console(highlight=False), Console(stderr=True, highlight=False), fmt.parse, streaming=stream)
    sampling = Sampling(max_new_tokens, temperature, top_p, top_k, seed)
    with ToolServer(toolsets) as server:
        definitions = tuple(tool for toolset in toolsets for tool in toolset.definitions)
        persona = PERSONA if system is None else system
        session = Session(backend, fmt, server.client(), sampling, definitions, persona)
        view.welcome(backend.name, fmt.name, _offered(toolsets))
        Repl(session, view, _reader(interactive), toolsets, save_to=save, interactive=interactive).run()


def _toolsets(tools: str | None, adapter: str | None) -> tuple[Toolset, ...]:
    """The tools that were asked for, or those that the adapter knows: others would only confuse a small model."""
    from agentft.runs import find_finished
    from agentft.toolset import find_tools, load_toolsets, shipped_worlds

    if tools is not None:
        return load_toolsets([name.strip() for name in tools.split(",") if name.strip()])
    known = find_finished(adapter).tools if adapter else ()
    return (known and find_tools(known, shipped_worlds())) or load_toolsets(WORLDS)


def _offered(toolsets: Sequence[Toolset]) -> list[str]:
    """What the greeting names: a few tools themselves, many by their worlds."""
    names = [name for toolset in toolsets for name in toolset.tools]
    return names if len(names) <= FEW else [toolset.name for toolset in toolsets]


def _open(model: str | None, adapter: str | None, bits: int) -> tuple[Backend, CallFormat]:
    """The model, and the call format that its adapter was trained with."""
    from agentft.calls import call_format
    from agentft.display.pulling import ensure_pulled
    from agentft.models.opening import DEFAULT_MODEL, doubt_bits, open_backend
    from agentft.runs import find_finished

    if doubt := doubt_bits(adapter, bits):
        typer.echo(f"note: {doubt}", err=True)
    run = find_finished(adapter) if adapter else None
    ensure_pulled(model or (run.model if run else DEFAULT_MODEL))
    return open_backend(model, adapter, bits), call_format(run.call_format if run else "msagent")


def _reader(interactive: bool) -> Reader:
    from agentft.models.embedded import cache_folder
    from agentft.repl.loop import NAMES, line_reader, terminal_reader

    return terminal_reader(cache_folder() / "chat_history", NAMES) if interactive else line_reader(sys.stdin)
