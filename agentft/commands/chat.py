"""`agentft chat`: the terminal agent."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from agentft.commands.endpoints import AllowHttp, EndpointUrl, choose_endpoint

if TYPE_CHECKING:
    from agentft.models import Model
    from agentft.models.transport import Endpoint
    from agentft.repl.loop import Reader
    from agentft.toolset import Toolset

__all__ = ["chat_command"]

WORLDS = ("weather", "search", "calculator")
FEW = 6


TopP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Sample from the most likely tokens whose probabilities add up to P.")
]


def chat_command(
    *,
    model: Annotated[str | None, typer.Option(help="A folder, a hub id or an embedded name.")] = None,
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last` for the run that finished last.")] = None,
    tools: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated worlds or `world.tool`; '' for none. Default: the adapter's, or three worlds."
        ),
    ] = None,
    bits: Annotated[Literal["4", "8", "16"], typer.Option(help="Bits per weight in memory.")] = "16",
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer while it is generated.")] = True,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_p: TopP = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample from the K most likely tokens; 0: from all.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Token limit of one reply.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed for sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="The system prompt; the tools are added after it.")] = None,
    save: Annotated[Path | None, typer.Option(help="Append the chat to this JSONL file of MS-Agent rows.")] = None,
    endpoint: EndpointUrl = None,
    allow_http: AllowHttp = False,
) -> None:
    """Chat with a model that calls tools; the calls go to mock servers on this machine.

    Type questions, or pipe them to standard input, one per line. /help lists the commands.

    Example:
      agentft chat --adapter last --tools weather
      echo "What is 17% of 2,340?" | agentft chat --save chats.jsonl
    """
    from agentft.display.chat import ChatView
    from agentft.display.terminal import open_console
    from agentft.models import Sampling
    from agentft.repl.loop import PERSONA, Repl, Session
    from agentft.repl.saving import check_place
    from agentft.toolserver import ToolServer

    if save is not None:
        check_place(save)
    toolsets = _toolsets(tools, adapter)
    opened = _open(model, adapter, int(bits), choose_endpoint(endpoint, allow_http=allow_http))
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    view = ChatView(open_console(), open_console(stderr=True), streaming=stream)
    sampling = Sampling(max_new_tokens, temperature, top_p, top_k, seed)
    with ToolServer(toolsets) as server:
        definitions = tuple(tool for toolset in toolsets for tool in toolset.definitions)
        session = Session(opened, server.client(), sampling, definitions, PERSONA if system is None else system)
        view.welcome(opened.name, opened.source, _offered(toolsets))
        Repl(session, view, _reader(interactive), toolsets, save_to=save, interactive=interactive).run()


def _toolsets(tools: str | None, adapter: str | None) -> tuple[Toolset, ...]:
    """The tools of `--tools`, or those the adapter was trained on: unfamiliar tools would confuse a small model."""
    from agentft.runs import find_finished
    from agentft.toolset import find_tools, load_toolsets, shipped_worlds

    if tools is not None:
        return load_toolsets([name.strip() for name in tools.split(",") if name.strip()])
    known = find_finished(adapter).tools if adapter else ()
    return (known and find_tools(known, shipped_worlds())) or load_toolsets(WORLDS)


def _offered(toolsets: Sequence[Toolset]) -> list[str]:
    """The names in the greeting: the tools if there are at most `FEW`, otherwise their worlds."""
    names = [name for toolset in toolsets for name in toolset.tools]
    return names if len(names) <= FEW else [toolset.name for toolset in toolsets]


def _open(model: str | None, adapter: str | None, bits: int, endpoint: Endpoint | None) -> Model:
    """The model; an embedded one is pulled first if it is not in the cache."""
    if endpoint is not None:
        from agentft.models.endpoint import open_served

        return open_served(endpoint, model, adapter)
    from agentft.display.pulling import ensure_pulled
    from agentft.display.terminal import say, waiting
    from agentft.models.opening import DEFAULT_MODEL, doubt_bits, open_model
    from agentft.runs import find_finished

    if doubt := doubt_bits(adapter, bits):
        say(f"note: {doubt}", err=True)
    run = find_finished(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    ensure_pulled(name)
    with waiting(f"loading {name}"):
        return open_model(model, adapter, bits)


def _reader(interactive: bool) -> Reader:
    from agentft.models.wheels import cache_folder
    from agentft.repl.loop import NAMES, line_reader, terminal_reader

    return terminal_reader(cache_folder() / "chat_history", NAMES) if interactive else line_reader(sys.stdin)
