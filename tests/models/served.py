"""An OpenAI-compatible server on a real socket that behaves as each test says, and counts requests in flight."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any, Self, TypeAlias

from agentft.types import Json

__all__ = ["Answer", "Served", "Spoken", "completion", "tool_call"]


@dataclass(frozen=True)
class Spoken:
    """One request: its method, path, headers and parsed body."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(frozen=True)
class Answer:
    """A response. `cut`: bytes of the body after which the connection is closed. `seconds`: the delay before it.

    `held`: bytes of the body after which the server waits until `Served.go_on`, or until the client is gone.
    """

    status: int = 200
    body: Any = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    seconds: float = 0.0
    held: int = 0


Handler: TypeAlias = Callable[[Spoken], Answer | Awaitable[Answer]]


class Served:
    """The server. `handler` answers `POST /v1/chat/completions`; GET /v1/models lists `models`."""

    def __init__(self, handler: Handler | Iterable[Answer], models: Iterable[str] = ("tiny",)) -> None:
        answers = None if callable(handler) else iter(handler)
        self._handler: Handler = handler if callable(handler) else lambda _: next(answers)  # type: ignore[arg-type]
        self._models = models
        self.spoken: list[Spoken] = []
        self.times: list[float] = []
        self.flying = self.most = self.connections = 0
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, daemon=True)
        self._going, self.left = asyncio.Event(), Event()
        self.url = ""

    def go_on(self) -> None:
        """Send the rest of what is held."""
        self._loop.call_soon_threadsafe(self._going.set)

    @property
    def chats(self) -> list[Spoken]:
        return [one for one in self.spoken if one.method == "POST"]

    def __enter__(self) -> Self:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(asyncio.start_server(self._serve, "127.0.0.1", 0), self._loop)
        self._server = started.result()
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _stop(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.connections -= 1
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        first, *lines = head.strip().split("\r\n")
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        content = await reader.readexactly(int(headers.get("content-length", 0)))
        method, path, _ = first.split(" ")
        asked = Spoken(method, path, headers, json.loads(content) if content else None)
        self.spoken.append(asked)
        self.times.append(self._loop.time())
        self.flying += 1
        self.most = max(self.most, self.flying)
        try:
            answer = await self._answer(asked)
            await asyncio.sleep(answer.seconds)
        finally:
            self.flying -= 1
        text = answer.body if isinstance(answer.body, str | bytes) else json.dumps(answer.body)
        body = text.encode() if isinstance(text, str) else text
        given = {"Content-Type": "application/json", "Content-Length": str(len(body)), **answer.headers}
        lines = [f"HTTP/1.1 {answer.status} X", *(f"{name}: {value}" for name, value in given.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body[: answer.held])
        if answer.held:
            going, gone = asyncio.ensure_future(self._going.wait()), asyncio.ensure_future(reader.read(1))
            await asyncio.wait({going, gone}, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                self.left.set()
                return False
            gone.cancel()
        writer.write(body[answer.held : answer.cut])
        await writer.drain()
        return answer.cut is None

    async def _answer(self, asked: Spoken) -> Answer:
        if asked.method == "GET":
            assert re.search(r"/models(\?|$)", asked.path)
            return Answer(body={"object": "list", "data": [{"id": name} for name in self._models]})
        answer = self._handler(asked)
        return answer if isinstance(answer, Answer) else await answer


def completion(message: Mapping[str, Json], finish: str = "stop", **more: Json) -> Answer:
    """A chat completion with this assistant message."""
    usage: Json = {"prompt_tokens": 7, "completion_tokens": 3}
    choice: Json = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return Answer(body={"id": "c", "object": "chat.completion", "choices": [choice], "usage": usage, **more})


def tool_call(name: str, arguments: Json, identity: str | None = "id-0") -> Json:
    """A call as the API returns it; arguments that are text stay as they are."""
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    function: Json = {"name": name, "arguments": text}
    return {"type": "function", "function": function, **({"id": identity} if identity is not None else {})}
