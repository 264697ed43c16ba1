"""Probes that tell faults of a parser from faults of a model: calls, a result, a stop and twenty awkward arguments."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agentft.calls import CALL_FORMATS
from agentft.errors import FrameError, MissingError
from agentft.models import Model, Reply, Request, Sampling
from agentft.models.prompting import Prompting
from agentft.records.written import is_call_written, written_call
from agentft.types import Conversation, Json, Span, Text, ToolCall, ToolDefinition, ToolResult, Turn

__all__ = ["AWKWARD", "Check", "compare_templates", "round_trip", "sample_conversation"]

AWKWARD: Mapping[str, Json] = json.loads(Path(__file__).with_name("awkward.json").read_bytes())
"""Arguments that parsers are known to change or lose, by what is awkward."""

_CITY: dict[str, Json] = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
_VALUE: dict[str, Json] = {"type": "object", "properties": {"value": {"description": "Any JSON value."}}}
_WEATHER = ToolDefinition("get_weather", "The weather in a city.", _CITY)
_ECHO = ToolDefinition("echo", "Returns its value.", {**_VALUE, "required": ["value"]})
_QUESTION = "What is the weather in Oslo?"
_ANSWER = Turn("assistant", (Text("It is 17 degrees.", Span(0, 17)),), "It is 17 degrees.")
_ENOUGH = 5  # requests without a call after which the rest are left out
_WEAK = "a stronger model or training is needed before its parser can be judged"
_PARSER = "this is a fault of the parser, not of the model: choose the server's tool parser for this model"


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `remedy`: what to do if it is not `good`, or what that means."""

    name: str
    good: bool
    found: str
    remedy: str = ""


def round_trip(model: Model) -> Iterator[Check]:
    """Probe a model. A probe that fails is reported; the awkward arguments are left out for a model that never calls.

    Raises:
        InputError: an endpoint refuses the key, the address or the model.
        EndpointDownError: it cannot be reached.
    """
    yield from _formats(model)
    call = _conversation("What is the weather in Oslo? Call get_weather.", _WEATHER)
    calls = [_calls(model, "a call", call, ["Oslo"])]
    yield calls[0]
    both = _conversation("Call get_weather for Oslo and for Rome.", _WEATHER)
    calls.append(_calls(model, "two calls", both, ["Oslo", "Rome"]))
    yield calls[1]
    yield _result(model, call)
    yield _stop(model)
    yield _history(model)
    for name, value in AWKWARD.items():
        calls.append(_awkward(model, name, value))
        yield calls[-1]
        if len(calls) == _ENOUGH and all(trip.remedy == _WEAK for trip in calls):
            left = len(AWKWARD) - _ENOUGH + 2
            yield Check("calls", False, f"no call in {_ENOUGH} requests; {left} more are left out", _WEAK)
            return


def compare_templates(served: Model, prompting: Prompting) -> Iterator[Check]:
    """Whether the server's chat template writes prompts of as many tokens as ours, conversation by conversation.

    Args:
        served: a model whose server gets messages and writes the prompt.
        prompting: writes the same prompts here, in the same call format.

    Raises:
        InputError: an endpoint refuses the key, the address or the model.
        EndpointDownError: it cannot be reached.
    """
    user = _conversation(_QUESTION)
    tools = _conversation(_QUESTION, _WEATHER, _ECHO)
    after = _answered(tools)
    again = replace(after, turns=(*after.turns, _ANSWER, *user.turns[1:]))
    values = [
        ToolCall(f"call_{number}", "echo", {"value": value}, Span(0, 0))
        for number, value in enumerate(AWKWARD.values())
    ]
    awkward = _with_calls(tools, values, '{"echoed": true}')
    probes = {"a user": user, "tools": tools, "a result": after, "two rounds": again, "awkward values": awkward}
    for name, conversation in probes.items():
        ours = len(prompting.write(conversation).ids)
        reply, failed = _ask(served, "template", conversation, tokens=1)
        if reply is None:
            yield replace(failed, found=f"{name}: {failed.found}")
            continue
        theirs = reply.usage.prompt_tokens
        found = f"{name}: {ours} tokens here" + (", as many there" if theirs == ours else f", {theirs} there")
        remedy = "the server reports no prompt_tokens" if not theirs else "its chat template or tokenizer is another"
        yield Check(
            "template", theirs == ours, found, f"{remedy}; with --tokenizer agentft eval writes the prompts here"
        )


def sample_conversation() -> Conversation:
    """Two questions about the weather, each with a call, its result and an answer; two tools."""
    first = _conversation(_QUESTION, _WEATHER, _ECHO)
    turns = (*_answered(first).turns, _ANSWER)
    second = replace(first, turns=(*turns, *first.turns[1:]))
    return replace(second, turns=(*_answered(second).turns, _ANSWER))


def _answered(asked: Conversation) -> Conversation:
    """The conversation with a call for the weather and its result."""
    call = ToolCall("call_0", "get_weather", {"city": "Oslo"}, Span(0, 0))
    return _with_calls(asked, [call], '{"degrees": 17}')


def _formats(model: Model) -> list[Check]:
    """For a model whose calls are text here: whether each awkward argument is read as it was written."""
    fmt = CALL_FORMATS.get(str(model.rendering.get("call_format")))
    if fmt is None:
        return []
    written = {name: ToolCall("call_0", "echo", {"value": value}, Span(0, 0)) for name, value in AWKWARD.items()}
    read = {name: fmt.parse(fmt.write_parts([call])) for name, call in written.items()}
    lost = [
        name
        for name, parts in read.items()
        if not any(isinstance(part, ToolCall) and _same(part.arguments.get("value"), AWKWARD[name]) for part in parts)
    ]
    found = f"{fmt.name}: {len(AWKWARD) - len(lost)} of {len(AWKWARD)} arguments are read as they were written"
    return [Check("call format", not lost, found, f"changed or lost: {', '.join(lost)}; please report this")]


def _calls(model: Model, name: str, asked: Conversation, cities: Sequence[str]) -> Check:
    calls = _made(model, name, asked)
    if isinstance(calls, Check):
        return calls
    got = [str(call.arguments.get("city")) for call in calls if call.name == _WEATHER.name]
    good = len(calls) == len(cities) and all(city in value for city, value in zip(cities, got, strict=False))
    found = ", ".join(f"{call.name}({_dump(dict(call.arguments))})" for call in calls)
    return Check(name, good, found, f"the model called, but not as asked ({len(cities)} expected)")


def _awkward(model: Model, name: str, value: Json) -> Check:
    text = f"Call echo with exactly this JSON as its arguments: {_dump({'value': value})}"
    calls = _made(model, name, _conversation(text, _ECHO))
    if isinstance(calls, Check):
        return calls
    got = calls[0].arguments.get("value")
    if _same(got, value):
        return Check(name, True, f"{_dump(value):.60} came back equal")
    found = f"{_dump(value):.60} came back as {_dump(dict(calls[0].arguments)):.80}"
    return Check(name, False, found, "the model or the server's parser changed it; compare with another server")


def _made(model: Model, name: str, asked: Conversation) -> list[ToolCall] | Check:
    """The calls of a reply, or why none can be read."""
    reply, failed = _ask(model, name, asked)
    if reply is None:
        return failed
    calls = [part for part in reply.turn.parts if isinstance(part, ToolCall)]
    if failure := next((call.parse_error for call in calls if call.parse_error), None):
        blamed = _PARSER if reply.raw is None else f"the model wrote: {reply.raw:.120}"
        return Check(name, False, f"an unreadable call ({failure.kind}): {failure}", blamed)
    text = _text(reply)
    if not calls and is_call_written(text):
        return Check(name, False, f"the call was left in the text: {text:.80}", _PARSER)
    return calls or Check(name, False, f"no call: {text:.80}", _WEAK)


def _result(model: Model, asked: Conversation) -> Check:
    """A result that is answered. The call is given, so that this does not depend on the model's own."""
    reply, failed = _ask(model, "a result", _answered(asked))
    if reply is None:
        return failed
    text = _text(reply)
    good = "17" in text and not any(isinstance(part, ToolCall) for part in reply.turn.parts)
    found = f"after a result: {text or 'another call'!s:.80}"
    return Check("a result", good, found, "the answer does not use the result")


def _stop(model: Model) -> Check:
    reply, failed = _ask(model, "a stop", _conversation("Reply with the word OK and nothing else."))
    if reply is None:
        return failed
    text = _text(reply)
    left = written_call(text)
    found = f"{text:.60} ({reply.finish})"
    remedy = f"control tokens in the text: {left}; the server does not stop there" if left else ""
    return Check("a stop", not left and reply.finish != "length", found, remedy or "the reply was cut at 200 tokens")


def _history(model: Model) -> Check:
    """Whether a conversation with all awkward arguments in earlier calls is accepted."""
    calls = [
        ToolCall(f"call_{number}", "echo", {"value": value}, Span(0, 0))
        for number, value in enumerate(AWKWARD.values())
    ]
    after = _with_calls(_conversation("Call echo with some values.", _ECHO), calls, '{"echoed": true}')
    reply, failed = _ask(model, "history", after)
    found = f"a conversation with {len(calls)} awkward calls and their results is accepted"
    return failed if reply is None else Check("history", True, found)


def _ask(model: Model, name: str, asked: Conversation, tokens: int = 200) -> tuple[Reply | None, Check]:
    try:
        return model.reply([Request(name, asked)], Sampling(max_new_tokens=tokens))[0], Check(name, True, "")
    except (OSError, RuntimeError, MissingError, FrameError) as error:
        return None, Check(name, False, f"{error}"[:300], "the server or the chat template refuses such a conversation")


def _conversation(text: str, *tools: ToolDefinition) -> Conversation:
    turn = Turn("user", (Text(text, Span(0, len(text))),), text)
    return Conversation("round trip", (Turn("system", (), ""), turn), tools, "openai")


def _with_calls(asked: Conversation, calls: Sequence[ToolCall], result: str) -> Conversation:
    results = tuple(ToolResult(call.id, result, Span(0, len(result))) for call in calls)
    turns = (*asked.turns, Turn("assistant", tuple(calls), ""), Turn("tool", results, result))
    return replace(asked, turns=turns)


def _text(reply: Reply) -> str:
    return "".join(part.text for part in reply.turn.parts if isinstance(part, Text) and not part.thought).strip()


def _dump(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False)


def _same(one: Json, other: Json) -> bool:
    """Whether two values are equal in type too: 1, 1.0 and true are three values."""
    return _dump(one) == _dump(other)
