"""A model behind an OpenAI-compatible endpoint, with the server's own tool calls."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any, TypeVar

from agentft.calls import CallFormat
from agentft.calls import call_format as find_format
from agentft.calls.thoughts import read_text
from agentft.errors import InputError
from agentft.json_text import UnreadableError, parse_json
from agentft.models import CallDone, CallStarted, Delta, OnDelta, Reply, Request, Sampling, TextDelta, Usage
from agentft.models.completion import stop_end
from agentft.models.local import PartStream
from agentft.models.messages import ChatResponse, declare, read_response, read_turn, write_messages
from agentft.models.prompting import Prompt, Prompting, open_prompting
from agentft.models.served import served_name
from agentft.models.service_errors import is_filtered, is_unread
from agentft.models.streaming import REASONING, EventStream
from agentft.models.transport import Endpoint, EndpointError, Transport
from agentft.rendering import Rendering, rendering_digest
from agentft.rendering.render import render_messages
from agentft.types import Conversation, Json, Text, ToolCall, Turn

__all__ = ["EndpointModel", "find_model", "identify_served", "open_served"]

T = TypeVar("T")

_RAW = 1000  # characters of an unreadable response in a message
_SIGNED = ("extra_content", "reasoning_details", "thinking_blocks")
"""Where Gemini's server, OpenRouter and LiteLLM put the signatures that they want back."""
_UNKNOWN = re.compile("unsupported|not supported|not permitted|unknown|unrecognized|unexpected", re.IGNORECASE)
"""In errors about a key of a message."""


class EndpointModel:
    """Sends conversations as chat messages with tools. `reply` may be called from many threads at once.

    Args:
        endpoint: the server.
        model: the name under which it serves the model.
        fmt: writes tools, calls and results into the messages' contents and reads calls from the text; None: the
            server does this.
        prompting: writes whole prompts here, for `/completions`; `fmt` is not used then.
    """

    def __init__(
        self, endpoint: Endpoint, model: str, fmt: CallFormat | None = None, prompting: Prompting | None = None
    ) -> None:
        self.rendering: Mapping[str, Json] = {"call_format": fmt.name if fmt else "native"}
        if prompting is not None:
            self.rendering = prompting.rendering.describe()
            self.prompt = lambda conversation: prompting.write(conversation).text
        self._format = fmt
        self._prompting = prompting
        self._rendered = prompting.rendering if prompting else fmt
        self.name = served_name(model, endpoint.url, self._rendered.name if self._rendered else "")
        self.source = self._rendered.name if self._rendered else "openai"
        self._takes_ids = self._streams = True
        self._endpoint = endpoint
        self._model = model
        self._reasoning: str | None = ""  # None: the server does not take thoughts back
        self._signed: dict[str, dict[str, Mapping[str, Json]]] = {}  # by conversation, what its server wants back
        self._limit = "max_tokens"
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="agentft-endpoint", daemon=True)
        self._thread.start()
        self._transport = Transport(endpoint)

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        """See `Model.reply`. With `on_delta`, replies are streamed, from servers that can.

        Raises:
            EndpointError: the endpoint gives no usable response.
            EndpointDownError: nothing gets a response from it.
            InputError: it refuses the key, the address or the model.
        """
        return self._run(self._reply_all(requests, sampling, on_delta))

    def cancel(self) -> None:
        """End every `reply` in progress with an EndpointError."""
        self._loop.call_soon_threadsafe(self._cancel_all)

    def close(self) -> None:
        """Cancel what is in progress and close the connections. Closing twice is fine."""
        if self._loop.is_closed():
            return
        self.cancel()
        self._run(self._transport.close())
        self._run(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _cancel_all(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        try:
            return future.result()
        except CancelledError:
            raise EndpointError(f"{self._endpoint.url}: the request was cancelled") from None
        except BaseException:  # such as Ctrl-C: the request must not go on
            future.cancel()
            raise

    async def _reply_all(
        self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None
    ) -> list[Reply]:
        tasks = [
            asyncio.ensure_future(
                self._stream(request, sampling, partial(on_delta, index))
                if on_delta
                else self._reply(request, sampling)
            )
            for index, request in enumerate(requests)
        ]
        try:
            return await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    async def _stream(self, request: Request, sampling: Sampling, on_delta: Callable[[Delta], None]) -> Reply:
        """A reply whose deltas are sent as they come, or at its end by a server that does not stream."""
        native, text = self._rendered is None, ""
        parse, stops = (self._rendered.parse, self._rendered.stop) if self._rendered else (read_text, ())
        parts = PartStream(parse, on_delta)

        def hear(delta: Delta) -> None:
            """Stream a text up to its first stop string, with the calls and thoughts that a server sends apart."""
            nonlocal text
            if not isinstance(delta, TextDelta) or delta.thought:
                if native:
                    on_delta(delta)
            elif stop_end(text, stops) is None:
                start, text = len(text), text + delta.text
                parts.feed(text[start : stop_end(text, stops)])

        stream = EventStream(hear)
        reply = await self._reply(request, sampling, stream)
        if stream.events:
            parts.close(text if native else reply.raw or "")
        for delta in _deltas(reply.turn) if not stream.events or native else ():
            if not stream.events or isinstance(delta, CallDone):
                on_delta(delta)
        return reply

    async def _reply(self, request: Request, sampling: Sampling, stream: EventStream | None = None) -> Reply:
        conversation = request.conversation
        if self._prompting is not None:
            return await self._reply_prompted(conversation, self._prompting, sampling, stream)
        if self._format is not None:
            return await self._reply_rendered(conversation, self._format, sampling, stream)
        signed = self._signed.setdefault(conversation.id, {})
        sent = self._reasoning or ""
        body: dict[str, Json] = {"messages": write_messages(conversation, sent, signed)}
        if conversation.tools:
            body["tools"] = declare(conversation.tools)
        try:
            choice, text = await self._post("/chat/completions", body, sampling, stream)
        except EndpointError as error:
            if sent and sent in str(error) and _UNKNOWN.search(str(error)) and not (stream and stream.events):
                self._reasoning = None
                return await self._reply(request, sampling, stream)
            if not (conversation.tools and is_unread(str(error))):
                raise
            text = str(error).removeprefix(f"{self._endpoint.url}: ")  # the model is told why
            choice = ChatResponse({}, "", "unread", Usage(), f"the server could not read it: {text}")
        try:
            turn: Turn = read_turn(choice.message, conversation, choice.unread)
        except UnreadableError as error:
            raise self._malformed(error, text) from None
        if self._reasoning is not None:
            self._reasoning = next((key for key in REASONING if choice.message.get(key)), self._reasoning)
        signed.update(_signed_by(choice.message, turn))
        return Reply(turn, choice.finish, choice.usage, response=text)

    def _malformed(self, error: UnreadableError, text: str) -> EndpointError:
        return EndpointError(f"{self._endpoint.url}: malformed response ({error}){f': {text[:_RAW]}' * bool(text)}")

    async def _reply_prompted(
        self, conversation: Conversation, prompting: Prompting, sampling: Sampling, stream: EventStream | None
    ) -> Reply:
        prompt = prompting.write(conversation)
        response, received = await self._complete(prompt, prompting, sampling, stream)
        counted = response.usage.prompt_tokens
        if counted not in (0, len(prompt.ids)):
            raise EndpointError(
                f"{self._endpoint.url}: the server read {counted} tokens where {prompting.name} has {len(prompt.ids)}; "
                "name the tokenizer of the model that it serves with --tokenizer"
            )
        return replace(_read_text(response.text, prompting.rendering, response, received), prompt=prompt.text)

    async def _complete(
        self, prompt: Prompt, prompting: Prompting, sampling: Sampling, stream: EventStream | None
    ) -> tuple[ChatResponse, str]:
        """Send token ids, which leave the server nothing to decide; text to a server that takes nothing else."""
        if self._takes_ids:
            try:
                return await self._post("/completions", {"prompt": list(prompt.ids)}, sampling, stream)
            except EndpointError as error:
                if "prompt" not in str(error) or (stream and stream.events):
                    raise
            self._takes_ids = False
        return await self._post("/completions", {"prompt": prompting.plain(prompt)}, sampling, stream)

    async def _reply_rendered(
        self, conversation: Conversation, fmt: CallFormat, sampling: Sampling, stream: EventStream | None
    ) -> Reply:
        messages = render_messages(conversation, fmt)
        body: dict[str, Json] = {"messages": [{"role": role, "content": content} for role, content in messages]}
        if messages[-1][0] == "assistant":  # vLLM and SGLang need to be told; llama.cpp continues by itself
            body |= {"continue_final_message": True, "add_generation_prompt": False}
        response, received = await self._post("/chat/completions", body, sampling, stream)
        content = response.message.get("content")
        return _read_text(content if isinstance(content, str) else "", fmt, response, received)

    async def _post(
        self, path: str, body: Mapping[str, Json], sampling: Sampling, stream: EventStream | None
    ) -> tuple[ChatResponse, str]:
        """The response, and its body. A prompt that a filter refuses has no answer; in a chat, it is an error."""
        whole: dict[str, Json] = {"model": self._model, **body, "temperature": sampling.temperature}
        if sampling.repetition_penalty != 1:
            whole["repetition_penalty"] = sampling.repetition_penalty
        if sampling.temperature > 0:
            whole |= {"top_p": sampling.top_p, "seed": sampling.seed}
            whole |= {"top_k": sampling.top_k} if sampling.top_k else {}
        asked, stream = stream is not None, stream or EventStream(lambda _: None)
        while True:
            limit, streams = self._limit, asked and self._streams
            sent: dict[str, Json] = {**whole, "stream": streams, limit: sampling.max_new_tokens}
            sent |= {"stream_options": {"include_usage": True}} if streams else {}
            text = ""
            try:
                text = await self._transport.request("POST", path, sent, stream)
                text = stream.body() if stream.events else text
                return read_response(text), text
            except UnreadableError as error:
                raise self._malformed(error, "" if stream.events else text) from None
            except EndpointError as error:
                # Some models of OpenAI take the limit under another name, and some servers do not stream; they say so.
                said = str(error).removeprefix(self._endpoint.url)
                if "max_completion_tokens" in said and limit != "max_completion_tokens":
                    self._limit = "max_completion_tokens"
                elif "stream" in said and streams and not stream.events:
                    self._streams = False
                elif refused := next(
                    (key for key in ("temperature", "top_p") if key in said and whole.get(key) == 1), ""
                ):
                    del whole[refused]  # 1 is the default of the models that take none
                elif not asked and is_filtered(said):
                    return ChatResponse({}, "", "filtered", Usage()), said
                else:
                    raise


def identify_served(
    endpoint: Endpoint, model: str, adapter: str | None = None, call_format: str | None = None
) -> tuple[str, str]:
    """A served model's name for reports, and a hash of what its answers depend on, as far as it is known here.

    Raises:
        InputError: an adapter or an unknown call format is named.
    """
    fmt, prompting = _formats(endpoint, adapter, call_format)
    form = prompting.rendering.name if prompting else fmt.name if fmt else ""
    name = served_name(model, endpoint.url, form)
    rendering = rendering_digest(fmt.name) if fmt else "native"
    rendering = str(prompting.rendering.describe()) if prompting else rendering
    return name, hashlib.sha256(f"endpoint\n{name}\n{rendering}".encode()).hexdigest()


def open_served(
    endpoint: Endpoint, model: str | None = None, adapter: str | None = None, call_format: str | None = None
) -> EndpointModel:
    """A model behind an endpoint; without a name, the only one that it lists.

    Raises:
        InputError: an adapter or an unknown call format is named, or the endpoint lists no model or several.
    """
    model = model or find_model(endpoint)
    return EndpointModel(endpoint, model, *_formats(endpoint, adapter, call_format))


def _formats(endpoint: Endpoint, adapter: str | None, name: str | None) -> tuple[CallFormat | None, Prompting | None]:
    """What writes calls, or whole prompts, here; neither, if the server does all."""
    if adapter:
        raise InputError("--endpoint takes no --adapter: the server has its own weights; omit it")
    if endpoint.tokenizer:
        return None, open_prompting(endpoint.tokenizer, name)
    return None if name in {None, "native"} else find_format(str(name)), None


def _read_text(text: str, form: Rendering | CallFormat, response: ChatResponse, received: str) -> Reply:
    """A reply in a call format.

    The API leaves out the stop string that ends a reply, and calls need theirs, so it is searched here.
    """
    cut = stop_end(text, form.stop)
    turn = Turn("assistant", form.parse(text[:cut]), text[:cut])
    return Reply(turn, response.finish if cut is None else "stop", response.usage, raw=text[:cut], response=received)


def _signed_by(message: Mapping[str, Json], turn: Turn) -> Mapping[str, Mapping[str, Json]]:
    """What belongs to the calls of a turn that was read from this message."""
    made, listed = (part.id for part in turn.parts if isinstance(part, ToolCall)), message.get("tool_calls")
    found: dict[str, Mapping[str, Json]] = {}
    for name, call in zip(made, listed if isinstance(listed, list) else [], strict=False):
        both = {**message, **(call if isinstance(call, dict) else {})}
        found[name] = {key: both[key] for key in _SIGNED if both.get(key)}
    return found


def _deltas(turn: Turn) -> Iterator[Delta]:
    for part in turn.parts:
        if isinstance(part, ToolCall):
            yield CallStarted(part.name)
            yield CallDone(part)
        elif isinstance(part, Text):
            yield TextDelta(part.text, part.thought)


def find_model(endpoint: Endpoint) -> str:
    """The name of the only model that the endpoint lists.

    Raises:
        InputError: it lists none or several.
        EndpointError: it gives no usable response.
        EndpointDownError: it cannot be reached.
    """
    names = asyncio.run(_list_models(endpoint))
    if len(names) == 1:
        return names[0]
    listed = f"lists {len(names)} models: {', '.join(names[:10])}" if names else "lists no models"
    raise InputError(f"{endpoint.url} {listed}; name the one to use with --model")


async def _list_models(endpoint: Endpoint) -> list[str]:
    transport = Transport(endpoint)
    try:
        text = await transport.request("GET", "/models")
    finally:
        await transport.close()
    try:
        document: Any = parse_json(text)
        return sorted({str(row["id"]) for row in document["data"]})
    except (UnreadableError, KeyError, TypeError):
        raise EndpointError(f"{endpoint.url}: its list of models is unreadable: {text[:_RAW]}") from None
