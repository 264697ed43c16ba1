"""`agentft chat`: the terminal agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import typer

from agentft.commands.endpoints import AllowHttp, EndpointUrl, choose_endpoint
from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.models import Model
    from agentft.models.transport import Endpoint
    from agentft.repl.gate import Approval
    from agentft.repl.session import Session
    from agentft.repl.store import SessionStore
    from agentft.toolset import Toolset
    from agentft.types import Json

__all__ = ["chat_command"]

WORLDS = ("weather", "search", "calculator")
FEW = 6


Tools = Annotated[
    str | None,
    typer.Option(help="Comma-separated worlds or `world.tool`; '' for none. Default: the adapter's, or three worlds."),
]
Approve = Annotated[
    Literal["never", "writes", "always"], typer.Option(help="Which calls a person must allow before they are sent.")
]
TopP = Annotated[
    float, typer.Option(min=0.0, max=1.0, help="Sample from the most likely tokens whose probabilities add up to P.")
]


def chat_command(
    *,
    model: Annotated[str | None, typer.Option(help="A folder, a hub id or an embedded name.")] = None,
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last` for the run that finished last.")] = None,
    tools: Tools = None,
    bits: Annotated[Literal["4", "8", "16"], typer.Option(help="Bits per weight in memory.")] = "16",
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer while it is generated.")] = True,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_p: TopP = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample from the K most likely tokens; 0: from all.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Token limit of one reply.")] = 256,
    seed: Annotated[int, typer.Option(help="Seed for sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="The system prompt; the tools are added after it.")] = None,
    save: Annotated[Path | None, typer.Option(help="Append the chat to this JSONL file of MS-Agent rows.")] = None,
    approve: Approve = "never",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document: the rounds with calls.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the session that was used last.")] = False,
    endpoint: EndpointUrl = None,
    allow_http: AllowHttp = False,
) -> None:
    """Chat with a model that calls tools; the calls go to mock servers on this machine.

    Type questions, or pipe them, one per line. /help lists the commands.

    Example:
      agentft chat --adapter last --tools weather
      echo "What is 17% of 2,340?" | agentft chat --save chats.jsonl
    """
    from agentft.repl.reading import quiet_terminal
    from agentft.repl.saving import check_place

    if save is not None:
        check_place(save)
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not as_json
    if not interactive and (resume or approve != "never"):
        raise InputError(f"{'--resume' if resume else f'--approve {approve}'} needs a person at a terminal; omit it")
    if resume:
        model, adapter, tools, endpoint = _store({}).find().options(model, adapter, tools, endpoint)
    store = _store({"model": model, "adapter": adapter, "tools": tools, "endpoint": endpoint}) if interactive else None
    served = choose_endpoint(endpoint, allow_http=allow_http)
    settings = (max_new_tokens, temperature, top_p, top_k, seed)
    edits = interactive and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    with quiet_terminal() if edits else nullcontext(), ExitStack() as server:
        opening = partial(_open, model, adapter, int(bits), served)
        start = _Start(opening, _toolsets(tools, adapter), settings, system, approve, server)
        about = _about(model, adapter, bits, served)
        _chat(start, about, save, store, resume=resume, edits=edits, stream=stream, as_json=as_json)


class _Start:
    """Opens the session of a chat: the model, and the tools in a server of their own."""

    def __init__(
        self,
        opening: Callable[[], Model],
        toolsets: tuple[Toolset, ...],
        settings: tuple[Any, ...],
        system: str | None,
        approve: Approval,
        server: ExitStack,
    ) -> None:
        self.toolsets = toolsets
        self._opening = opening
        self._settings = settings
        self._system = system
        self._approve = approve
        self._server = server

    def __call__(self) -> Session:
        from agentft.models import Sampling
        from agentft.repl.gate import CallGate
        from agentft.repl.session import PERSONA, Session
        from agentft.toolserver import ToolServer

        model = self._opening()
        server = self._server.enter_context(ToolServer(self.toolsets))
        definitions = tuple(tool for toolset in self.toolsets for tool in toolset.definitions)
        persona = PERSONA if self._system is None else self._system
        gate = CallGate(server.client(), approve=self._approve)
        return Session(model, gate, Sampling(*self._settings), definitions, persona, server.sessions)


def _chat(
    start: _Start,
    about: tuple[str, list[str]],
    save: Path | None,
    store: SessionStore | None,
    *,
    resume: bool,
    edits: bool,
    stream: bool,
    as_json: bool,
) -> None:
    """`store`: None unless a person types. `edits`: the terminal can move its cursor, so there is an input line."""
    from agentft.display.chat import ChatView
    from agentft.display.live import LiveArea
    from agentft.display.terminal import SafeConsole, open_console, say_json
    from agentft.models.wheels import cache_folder
    from agentft.repl.loop import Repl
    from agentft.repl.reading import line_reader, plain_reader

    live = LiveArea() if edits else None
    if live is not None:
        console = SafeConsole(file=cast(TextIO, live), markup=False, emoji=False, highlight=False)
        view = ChatView(console, console, streaming=stream, live=live)
    else:
        view = ChatView(open_console(quiet=as_json), open_console(stderr=True), streaming=stream)
    reader = plain_reader if store is not None else line_reader(sys.stdin)
    repl = Repl(start, view, reader, start.toolsets, save_to=save, interactive=store is not None, store=store)
    repl.resumes = resume
    if store is not None:
        view.welcome(about[0], "", _offered(start.toolsets))
    if live is not None:
        from agentft.repl.terminal import Terminal

        Terminal(repl, live, cache_folder() / "chat_history", f"loading {about[0]}", about[1]).run()
    else:
        repl.run()
    if as_json:
        say_json({"model": repl.session.model.name, "rounds": repl.answered})


def _store(origin: dict[str, Json]) -> SessionStore:
    from agentft.models.wheels import cache_folder
    from agentft.repl.store import SessionStore

    return SessionStore(cache_folder() / "chats", origin)


def _about(model: str | None, adapter: str | None, bits: str, served: Endpoint | None) -> tuple[str, list[str]]:
    """The model's name, and the parts of the status line that are known before it is loaded."""
    from agentft.models.opening import DEFAULT_MODEL
    from agentft.runs import find_finished

    if served is not None:
        return (f"{model} at {served.url}" if model else served.url), [model or served.url]
    run = find_finished(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    shown = Path(name).name if len(name) > FEW * 4 else name
    if run is None:
        return name, [shown, f"{bits} bits"]
    return f"{name} + {run.path.name}", [shown, f"adapter {run.path.resolve().name}", f"{bits} bits"]


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
    with nullcontext() if sys.stdin.isatty() and sys.stdout.isatty() else waiting(f"loading {name}"):
        return open_model(model, adapter, bits)
