"""The page at `/`: tools, sessions and recent calls. It has no scripts and loads nothing from other hosts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TypeAlias

from starlette.responses import HTMLResponse

from agentft.strict import own_table
from agentft.toolserver.sessions import Sessions
from agentft.toolset import Toolset
from agentft.types import Json

__all__ = ["RecentCall", "draw_page"]

_SHOWN_SESSIONS = 20
_TEXTS = own_table(__file__, str)  # the beginning, the introduction, and the headers


RecentCall: TypeAlias = tuple[float, str, str, Mapping[str, Json], int]
"""A finished call: its Unix time in seconds, session, tool, arguments and status."""


def draw_page(toolsets: Sequence[Toolset], sessions: Sessions, recent: Sequence[RecentCall]) -> HTMLResponse:
    """The page. Everything in it that comes from a request is escaped and shortened."""
    tools = [
        (_code(toolset.name), _code(name), tool.access, escape(tool.definition.description))
        for toolset in toolsets
        for name, tool in toolset.tools.items()
    ]
    names = sessions.names
    states = [(_code(name), _code(sessions.digest(name)[:16])) for name in reversed(names[-_SHOWN_SESSIONS:])]
    calls = [
        (
            time.strftime("%H:%M:%S", time.localtime(at)),
            _code(session),
            _code(tool),
            _code(json.dumps(arguments, ensure_ascii=False)),
            f'<span class="bad">{status}</span>' if status >= 400 else str(status),
        )
        for at, session, tool, arguments, status in reversed(recent)
    ]
    body = (
        f"<h1>{escape(' and '.join(toolset.name for toolset in toolsets))}</h1>"
        f"{_TEXTS['intro']}"
        f"<h2>Tools</h2>{_table(('world', 'tool', 'access', 'what it does'), tools)}"
        f"<h2>Sessions that have written: {len(names)}</h2>{_table(('session', 'state'), states)}"
        f"<h2>Recent calls</h2>{_table(('time', 'session', 'tool', 'arguments', 'status'), calls)}"
    )
    return HTMLResponse(
        _TEXTS["begin"] + body, headers={name: _TEXTS[name] for name in _TEXTS.keys() - {"begin", "intro"}}
    )


def _code(text: str) -> str:
    shown = text if len(text) <= 120 else f"{text[:117]}..."
    return f"<code>{escape(shown.encode(errors='replace').decode())}</code>"


def _table(heads: Iterable[str], rows: Sequence[Iterable[str]]) -> str:
    if not rows:
        return "<p class=muted>none yet</p>"
    lines = ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    head = "".join(f"<th>{cell}</th>" for cell in heads)
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
