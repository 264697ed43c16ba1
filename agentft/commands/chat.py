"""`agentft chat`: the terminal agent."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TextIO, cast

import typer

from agentft.commands.endpoints import AllowHttp, EndpointUrl, PromptTokenizer, choose_endpoint
from agentft.errors import InputError, MissingError

if TYPE_CHECKING:
    from agentft.models import Model
    from agentft.models.transport import Endpoint
    from agentft.repl.gate import Approval
    from agentft.repl.session import Session
    from agentft.repl.store import SessionStore, StoredSession
    from agentft.runs import FinishedRun
    from agentft.toolserver import ToolServer
    from agentft.toolset import Toolset
    from agentft.types import Json

__all__ = ["chat_command"]

WORLDS = ("weather", "search", "calculator")
FEW = 6


Tools = Annotated[
    str | None,
    typer.Option(help="Comma-separated worlds or `world.tool`; '' for none. Default: the adapter's, or three worlds."),
]
Penalty = Annotated[float, typer.Option(min=0.01, help="Above 1: tokens used already become less likely.")]
Approve = Annotated[
    Literal["never", "writes", "always"] | None,
    typer.Option(help="Which calls a person must allow before they are sent. Default: never; with --mcp: always."),
]
Mcp = Annotated[str | None, typer.Option(help="Call the tools for real: the command or URL of their MCP server.")]
Env = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME[=VALUE]", help="Pass an environment variable to the command of --mcp. Repeatable."),
]
TopP = Annotated[float, typer.Option(min=0.0, max=1.0, help="Sample from the likeliest tokens of total probability P.")]


def chat_command(  # noqa: RET503  (nothing is returned)
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="With --resume: the session's name.")] = None,
    *,
    model: Annotated[str | None, typer.Option(help="A folder, a hub id or an embedded name.")] = None,
    adapter: Annotated[str | None, typer.Option(help="A run folder, or `last` for the run that finished last.")] = None,
    tools: Tools = None,
    bits: Annotated[Literal["4", "8", "16", "32"], typer.Option(help="Bits per weight in memory.")] = "16",
    stream: Annotated[bool, typer.Option("--stream/--no-stream", help="Show the answer while it is generated.")] = True,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.0,
    top_p: TopP = 1.0,
    top_k: Annotated[int, typer.Option(min=0, help="Sample from the K most likely tokens; 0: from all.")] = 0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Maximum number of tokens in one reply.")] = 256,
    repetition_penalty: Penalty = 1.0,
    seed: Annotated[int, typer.Option(help="Seed for sampling.")] = 0,
    system: Annotated[str | None, typer.Option(help="The system prompt; the tools are added after it.")] = None,
    save: Annotated[Path | None, typer.Option(help="Append the chat to this JSONL file of MS-Agent rows.")] = None,
    approve: Approve = None,
    mcp: Mcp = None,
    env: Env = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document: the rounds with calls.")] = False,
    acp: Annotated[bool, typer.Option("--acp", help="Serve an editor over stdio: Agent Client Protocol.")] = False,
    resume: Annotated[bool, typer.Option("--resume", "--continue", help="Go on with chat NAME, or the last.")] = False,
    endpoint: EndpointUrl = None,
    allow_http: AllowHttp = False,
    tokenizer: PromptTokenizer = None,
) -> None:
    """Chat with a model that calls tools; the calls go to mock servers on this machine, or with --mcp to a real one.

    Type questions, or pipe them, one per line. /help lists the commands.

    Example:
      agentft chat --adapter last --tools weather
    """
    interactive = sys.stdin.isatty() and sys.stdout.isatty() and not as_json and not acp
    stored = _stored(name, resume=resume, interactive=interactive)
    if stored:
        model, adapter, tools, endpoint, tokenizer = stored.options(model, adapter, tools, endpoint, tokenizer)
        mcp, env = (mcp, env) if mcp is not None else stored.server()
    approval = _approval(approve, mcp, resume=resume, asks=interactive or (acp and not resume))
    store = _store((model, adapter, tools, endpoint, tokenizer), _said(mcp, env)) if interactive else None
    served = choose_endpoint(endpoint, allow_http=allow_http, tokenizer=tokenizer)
    sampling = (max_new_tokens, temperature, top_p, top_k, seed, repetition_penalty)
    edits = interactive and os.environ.get("TERM", "") not in {"", "dumb", "unknown"}
    opening = _Opening(model, adapter, int(bits), served, edits)
    with _quiet(edits), ExitStack() as server:
        opened = _Sessions(opening, _toolsets(tools, adapter), sampling, system, approval, mcp, env or (), server)
        if acp:
            return _serve(opened)
        _chat(opened, save, store, resumed=stored, edits=edits, stream=stream, as_json=as_json)


def _stored(name: str | None, *, resume: bool, interactive: bool) -> StoredSession | None:
    """The session to go on with."""
    if name is not None and not resume:
        raise InputError(f"{name[:60]!r} is not an option; pipe a question to ask it; --resume NAME is for sessions")
    return _store().find(name or "") if resume and interactive else None


def _quiet(edits: bool) -> AbstractContextManager[None]:
    """Keys that are pressed while the chat prints are kept for its input line, if it `edits` one."""
    from agentft.repl.reading import quiet_terminal

    return quiet_terminal() if edits else nullcontext()


def _approval(approve: Approval | None, mcp: str | None, *, resume: bool, asks: bool) -> Approval:
    """Which calls are asked about. `asks`: there is a person to ask."""
    approval = approve or ("always" if mcp else "never")
    if not asks and (resume or approval != "never"):
        what = "--resume" if resume else f"--approve {approval}"
        remedy = "--mcp needs --approve never to send calls unasked" if mcp and not resume else "omit it"
        raise InputError(f"{what} needs a person at a terminal; {remedy}")
    return approval


@dataclass
class _Opening:
    """The model of a chat, which is opened later.

    Args:
        served: the endpoint, if it is not on this machine.
        warms: it reads the tools before the first question; what it has read is kept.
    """

    model: str | None
    adapter: str | None
    bits: int
    served: Endpoint | None
    warms: bool = False

    @cached_property
    def name(self) -> str:
        """The name of the model without its adapter."""
        from agentft.models.opening import DEFAULT_MODEL

        served = self.served and (self.model or self.served.url)
        return served or self.model or (self.run and self.run.model) or DEFAULT_MODEL

    @cached_property
    def run(self) -> FinishedRun | None:
        """The adapter's run."""
        from agentft.runs import find_finished

        return find_finished(self.adapter) if self.adapter else None

    @property
    def about(self) -> list[str]:
        """What the status line says of it."""
        adapter = [f"adapter {self.run.path.resolve().name}"] if self.run else []
        return [self.name, *adapter] if self.served else [Path(self.name).name, *adapter, f"{self.bits} bits"]

    def base(self) -> Model:
        """The model without its adapter, in the adapter's call format."""
        from agentft.models.opening import open_model

        return open_model(self.name, None, self.bits, self.run.call_format if self.run else None)

    def __call__(self) -> Model:
        """The model; an embedded one is pulled first if it is not in the cache."""
        if self.served is not None:
            from agentft.models.endpoint import open_served

            return open_served(self.served, self.model, self.adapter)
        from agentft.display.pulling import ensure_pulled
        from agentft.display.terminal import say, waiting
        from agentft.models.opening import doubt_bits, open_model
        from agentft.models.wheels import cache_folder

        if doubt := doubt_bits(self.adapter, self.bits):
            say(f"note: {doubt}", err=True)
        ensure_pulled(self.name)
        with nullcontext() if sys.stdin.isatty() and sys.stdout.isatty() else waiting(f"loading {self.name}"):
            kept = cache_folder() / "prefixes" if self.warms else None
            return open_model(self.model, self.adapter, self.bits, prefixes=kept)


@dataclass
class _Sessions:
    """Opens sessions, which share the model and a server for the tools. `mcp`: the MCP server that answers calls."""

    opening: _Opening
    toolsets: tuple[Toolset, ...]
    sampling: tuple[Any, ...]
    persona: str | None
    approval: Approval
    mcp: str | None
    env: Sequence[str]
    open: ExitStack

    @cached_property
    def _model(self) -> Model:
        from agentft.models import ConcurrentModel

        model = self.opening()
        if isinstance(model, ConcurrentModel):
            self.open.callback(model.close)
        return model

    @cached_property
    def _server(self) -> ToolServer:
        from agentft.toolserver import ToolServer

        if not self.mcp:
            return self.open.enter_context(ToolServer(self.toolsets))
        from agentft.repl.mcp import McpService

        return self.open.enter_context(ToolServer(self.toolsets, source=McpService(self.mcp, self.toolsets, self.env)))

    def __call__(self) -> Session:
        from agentft.models import Sampling
        from agentft.repl.gate import CallGate
        from agentft.repl.session import PERSONA, Session

        definitions = tuple(tool for toolset in self.toolsets for tool in toolset.definitions)
        gate = CallGate(self._server.client(30 if self.mcp else 10), approve=self.approval)
        gate.access = {name: tool.access for toolset in self.toolsets for name, tool in toolset.tools.items()}
        persona = PERSONA if self.persona is None else self.persona
        worlds = None if self.mcp else self._server.sessions
        return Session(self._model, gate, Sampling(*self.sampling), definitions, persona, worlds)


def _chat(
    opened: _Sessions,
    save: Path | None,
    store: SessionStore | None,
    *,
    resumed: StoredSession | None,
    edits: bool,
    stream: bool,
    as_json: bool,
) -> None:
    """`store`: None unless a person types. `edits`: the terminal can move its cursor, so there is an input line."""
    from agentft.display.chat import ChatView
    from agentft.display.live import LiveArea
    from agentft.display.terminal import SafeConsole, open_console, say_json
    from agentft.models.opening import SCRIPTED
    from agentft.models.wheels import cache_folder
    from agentft.repl.loop import Repl
    from agentft.repl.reading import line_reader, plain_reader
    from agentft.repl.saving import check_place
    from agentft.toolset import stdout_to_stderr

    opening, toolsets = opened.opening, opened.toolsets
    if save is not None:
        check_place(save)
    live = LiveArea() if edits else None
    drawn = live and SafeConsole(file=cast(TextIO, live), markup=False, emoji=False, highlight=False)
    console = drawn or open_console(quiet=as_json)
    if store is None and not as_json:  # for handlers that print
        console.file = opened.open.enter_context(stdout_to_stderr())
    view = ChatView(console, console if live else open_console(stderr=True), streaming=stream, live=live)
    repl = Repl(
        opened, view, plain_reader if store else line_reader(sys.stdin), toolsets, save, store is not None, store
    )
    repl.resumed, repl.open_base = resumed, opening.base if opening.run else None
    scripted = opening.name.startswith(SCRIPTED)
    repl.tokenizer_of = opening.served.tokenizer if opening.served else "" if scripted else opening.name
    if store is not None:
        view.welcome(" + ".join([opening.name, *([opening.run.path.name] if opening.run else [])]), _offered(toolsets))
    if live is not None:
        from agentft.repl.terminal import Terminal

        Terminal(repl, live, cache_folder() / "chat_history", f"loading {opening.name}", opening.about).run()
    else:
        repl.run()
    if as_json:
        say_json({"model": repl.session.model.name, "rounds": repl.answered})


def _store(options: Sequence[Json] = (None,) * 5, server: Mapping[str, Json] | None = None) -> SessionStore:
    from agentft.models.wheels import cache_folder
    from agentft.repl.store import SessionStore

    origin = dict(zip(("model", "adapter", "tools", "endpoint", "tokenizer"), options, strict=True))
    return SessionStore(cache_folder() / "chats", {**origin, **(server or {})})


def _said(mcp: str | None, env: Sequence[str] | None) -> dict[str, Json]:
    """The MCP server for the stored session, without secrets; `again`: there are some, to be named again."""
    from agentft.redaction import redacted_command

    if not mcp:
        return {}
    shown, names = redacted_command(mcp), [one.partition("=")[0] for one in env or ()]
    return {"mcp": shown, "env": [*names], "again": shown != mcp or names != [*(env or ())]}


def _serve(opened: Callable[[], Session]) -> None:
    if find_spec("acp") is None:
        raise MissingError("--acp needs the SDK of the protocol: pip install 'agentft-suite[acp]'")
    from agentft.repl.acp import serve_editor

    serve_editor(opened)


def _toolsets(tools: str | None, adapter: str | None) -> tuple[Toolset, ...]:
    """The tools of `--tools`, or those the adapter was trained on: unfamiliar tools would confuse a small model."""
    from agentft.display.terminal import say
    from agentft.runs import find_finished
    from agentft.toolset import find_tools, load_toolsets, shipped_worlds

    if tools is not None:
        return load_toolsets([name.strip() for name in tools.split(",") if name.strip()])
    known = find_finished(adapter).tools if adapter else ()
    found = find_tools(known, shipped_worlds()) if known else ()
    if known and not found:
        names = f"{', '.join(known):.60}"
        say(f"note: the adapter was trained with {names}, which no shipped world has; name yours: --tools", err=True)
    return found or load_toolsets(WORLDS)


def _offered(toolsets: Sequence[Toolset]) -> list[str]:
    """The names in the greeting: the tools if there are at most `FEW`, otherwise their worlds."""
    names = [name for toolset in toolsets for name in toolset.tools]
    return names if len(names) <= FEW else [toolset.name for toolset in toolsets]
