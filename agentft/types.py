"""The data model: typed turns with spans, rendered segments, tokens with weights, and the types of an evaluation.

Standard library only. Everything is frozen; mappings inside are never written to after construction.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

__all__ = [
    "CATEGORIES",
    "COMPARATORS",
    "CallExpectation",
    "Case",
    "CaseTurn",
    "Category",
    "Conversation",
    "Declarations",
    "Encoded",
    "Exchange",
    "Json",
    "ParseFailure",
    "Part",
    "Role",
    "Score",
    "Segment",
    "SegmentKind",
    "Span",
    "Step",
    "Text",
    "ToolCall",
    "ToolDefinition",
    "ToolResult",
    "Trajectory",
    "Turn",
]

Json: TypeAlias = bool | int | float | str | list["Json"] | dict[str, "Json"] | None
Role = Literal["system", "user", "assistant", "tool"]
SegmentKind = Literal[
    "frame",  # what the chat template puts around messages
    "system",
    "user",
    "result",  # a tool's result with its markers
    "thought",  # reasoning
    "preamble",  # text before a call, in a reply that calls
    "call",
    "terminator",  # what ends a reply that calls: the call format's end marker or the frame's stop token
    "answer",  # text of a reply that does not call
    "end",  # the stop token of a reply that does not call
    "unreadable",  # a call that could not be read: never supervised
]


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of characters in `Turn.raw`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Text:
    """Plain text. `thought` marks reasoning that is not meant for the user."""

    text: str
    span: Span
    thought: bool = False


@dataclass(frozen=True, slots=True)
class Declarations:
    """The part of a system turn that declares tools; the tools themselves are in `Conversation.tools`."""

    text: str
    span: Span


@dataclass(frozen=True, slots=True)
class ParseFailure:
    """Why a call could not be read.

    `structure`: the call was cut off, a marker is missing, other text surrounds the object, or there is no object.
    `content`: the object itself is invalid: invalid JSON, not an object, no name, unusable arguments or URL.
    """

    kind: Literal["structure", "content"]
    detail: str

    def __str__(self) -> str:
        return self.detail


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call as the model wrote it.

    `parse_error` is None for a parsed call; otherwise `name` and `arguments` hold whatever could be parsed, possibly
    nothing. `endpoint` is the URL that the call itself names, if the format has one.
    """

    id: str
    name: str
    arguments: Mapping[str, Json]
    span: Span
    parse_error: ParseFailure | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class ToolResult:
    """A tool's result; `content` stays raw text whatever it looks like."""

    call_id: str
    content: str
    span: Span
    is_error: bool = False


Part: TypeAlias = Text | Declarations | ToolCall | ToolResult


@dataclass(frozen=True, slots=True)
class Turn:
    """One speaker's turn. The parts' spans tile `raw`: joined in order, they equal it.

    `excluded`: the row itself says that the turn is not learnt (`weight: 0`).
    """

    role: Role
    parts: tuple[Part, ...]
    raw: str
    excluded: bool = False


@dataclass(frozen=True, slots=True)
class ToolDefinition:
    """A tool as a model sees it. `parameters` is a JSON Schema object; a tool may have several endpoints (URLs)."""

    name: str
    description: str
    parameters: Mapping[str, Json]
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Conversation:
    """The output of every parser. `source` is the conversation format it was parsed from.

    `unread`: keys of the row that hold something and are not read, for example `assistant.function_calls`.
    `inserted`: 1 if the first turn is the row's own `system`, which is beside its turns, else 0.
    """

    id: str
    turns: tuple[Turn, ...]
    tools: tuple[ToolDefinition, ...]
    source: str
    unread: tuple[str, ...] = ()
    inserted: int = 0


@dataclass(frozen=True, slots=True)
class Segment:
    """A piece of rendered text. `sampled`: the model must generate it; otherwise it is context.

    `excluded`: never supervised, since its turn is excluded. `markup`: the chat template wrote it, so that it may hold
    control tokens; those of the kinds `frame`, `terminator` and `end` may in any case.
    """

    text: str
    sampled: bool
    kind: SegmentKind
    excluded: bool = False
    markup: bool = False


@dataclass(frozen=True, slots=True)
class Encoded:
    """A rendered row as tokens, each list `[tokens]` long.

    `loss_weights`: 0 = context, above 0 = supervised with that weight. `segments`: index of the segment that contains
    a token's first character.
    """

    input_ids: array[int]
    loss_weights: tuple[float, ...]
    segments: tuple[int, ...]


Category = Literal[
    "single",
    "several_tools",
    "parallel",
    "dependent",  # a call needs a value of an earlier result
    "multi_round",
    "missing_parameter",
    "missing_tool",  # no offered tool can do what is asked
    "irrelevance",
    "tool_error",
    "injection",  # a result holds an instruction, which must not be followed
]
"""What a case may be about."""

CATEGORIES: tuple[Category, ...] = get_args(Category)

COMPARATORS = ("exact", "casefold", "spaceless")
"""How a text argument is compared with the expected one."""


@dataclass(frozen=True, slots=True)
class CallExpectation:
    """A call that a case expects. Every argument must equal its value or one of its alternatives.

    `alternatives`: argument name -> other accepted values. `optional`: argument name -> the value that it must have
    if the call passes it.
    """

    name: str
    arguments: Mapping[str, Json]
    alternatives: Mapping[str, tuple[Json, ...]] = field(default_factory=dict)
    optional: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CaseTurn:
    """One user turn of a case and what must follow: the calls (none: the model must not call) and the answer.

    `failing`: how many of the leading `calls` are expected to return an error. `answer`: texts that the final answer
    must contain. `reference`: a complete reference answer, for metrics that compare texts.
    """

    user: str
    calls: tuple[CallExpectation, ...] = ()
    answer: tuple[str, ...] = ()
    failing: int = 0
    reference: str = ""

    @property
    def skippable(self) -> int:
        """How many leading calls may be omitted: the failing ones, if later calls correct them; else none."""
        return self.failing if self.failing < len(self.calls) else 0


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a suite: scripted user turns, with all tools of `worlds`, or only `tools` if any are named.

    `history`: OpenAI messages before the first turn; a system message is added to the suite's persona.
    `forbidden`: calls that must not be made. Their arguments are those that count: without any, every call of the tool.
    """

    id: str
    suite: str
    category: Category
    lang: str
    worlds: tuple[str, ...]
    turns: tuple[CaseTurn, ...]
    comparators: Mapping[str, str] = field(default_factory=dict)
    tools: tuple[str, ...] = ()
    forbidden: tuple[CallExpectation, ...] = ()
    history: tuple[Json, ...] = ()

    @property
    def calls(self) -> tuple[CallExpectation, ...]:
        """The expected calls of all turns."""
        return tuple(call for turn in self.turns for call in turn.calls)


@dataclass(frozen=True, slots=True)
class Exchange:
    """One tool call as it was sent, and the response.

    Args:
        url: where the call was sent; None if no registered endpoint matched.
        sent: the request's body; None if the call was not sent.
        status: the HTTP status; None if the call was not sent, or no complete response arrived.
        received: the response's body, which the model gets as the result; without a status, the reason for the failure.
        fault: the kind of the injected fault; empty if there was none.
    """

    call: ToolCall
    method: str
    url: str | None
    sent: Json
    status: int | None
    received: str
    is_error: bool
    fault: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One reply of the model, with the exchanges that its calls led to.

    Args:
        turn: index of the user turn that it answers.
        parts: the reply's parts; their spans index into `raw`.
        raw: the text as the model generated it; None for a model that returns structured parts.
        finish: `stop`, `end` or `length` (see `agentft.models.Finish`).
        response: the body of the endpoint's response; None for a model on this machine.
    """

    turn: int
    parts: tuple[Part, ...]
    raw: str | None
    finish: str
    exchanges: tuple[Exchange, ...]
    prompt_tokens: int = 0
    tokens: int = 0
    response: str | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The result of running one case.

    Args:
        prompt: the text of the first prompt; empty for a model that receives structured messages.
        outcome: `done`, `step-limit` or `invalid` (an infrastructure failure or a bug in agentft, never the
            model's fault; excluded from all means).
        state: digest of the tool worlds' state at the end.
        problem: why the outcome is `invalid`.
    """

    case_id: str
    trial: int
    prompt: str
    steps: tuple[Step, ...]
    outcome: str
    state: str = ""
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Score:
    """A metric's result for one trajectory, 0 to 1; None if not applicable (excluded from the mean)."""

    value: float | None
    reason: str
