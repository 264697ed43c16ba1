"""Models: a model receives a conversation and replies with a turn.

`Model` is the whole interface: code outside this package does not know whether a model works with text, a chat template
and a call format (`local`), with scripted answers (`scripted`) or with an API that returns structured calls. `opening`
opens the model that a user names, and imports heavy modules only when they are needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from agentft.types import Conversation, Json, ToolCall, Turn

__all__ = [
    "CallDone",
    "CallStarted",
    "CallText",
    "ConcurrentModel",
    "Delta",
    "Finish",
    "InspectableModel",
    "Likelihood",
    "Model",
    "OnDelta",
    "Reading",
    "Reply",
    "Request",
    "Sampling",
    "TextDelta",
    "TokenScore",
    "Usage",
]

Finish = Literal["stop", "end", "length", "filtered", "unread"]
"""Why a reply ended: at a stop string, at the end of the turn, at the token limit, because a filter of the server
withheld or cut it, or with a call that the server could not read."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """Sampling settings. `temperature` 0 is greedy. `max_new_tokens` limits one reply.

    `repetition_penalty`: divides the positive logits of tokens that are in the prompt or the reply already, and
    multiplies the negative ones, as in transformers and vLLM; 1 is none.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    repetition_penalty: float = 1.0

    def document(self) -> dict[str, Json]:
        """The settings as JSON; without the penalty if there is none, as before there was one."""
        fields: dict[str, Json] = asdict(self)
        return {key: value for key, value in fields.items() if key != "repetition_penalty" or value != 1}


@dataclass(frozen=True, slots=True)
class Request:
    """A conversation whose next turn is the assistant's; the model may call `conversation.tools`.

    `key` identifies the request (`<case id>/<turn>/<step>` in an evaluation) for scripted answers and logs.
    """

    key: str
    conversation: Conversation


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one reply. `prompt_tokens`: the prompt's. `tokens`: generated ones."""

    prompt_tokens: int = 0
    tokens: int = 0


@dataclass(frozen=True, slots=True)
class Reply:
    """The assistant's next turn.

    Args:
        turn: its parts; their spans tile `turn.raw`.
        raw: the text exactly as the model generated it; None for a model that returns structured parts.
        prompt: the text exactly as the model received it; None for a model that receives structured messages.
        response: the body of the endpoint's response; None for a model on this machine.
    """

    turn: Turn
    finish: Finish
    usage: Usage
    raw: str | None = None
    prompt: str | None = None
    response: str | None = None


@dataclass(frozen=True, slots=True)
class TextDelta:
    """New text of the turn; `thought` marks reasoning that is not meant for the user."""

    text: str
    thought: bool = False


@dataclass(frozen=True, slots=True)
class CallStarted:
    """The model began to write a call; `name` is empty while it is unknown."""

    name: str = ""


@dataclass(frozen=True, slots=True)
class CallText:
    """The call that is being written, as far as it goes; sent whenever it grows."""

    name: str
    text: str


@dataclass(frozen=True, slots=True)
class CallDone:
    """A call is complete; the reply's turn will contain it unchanged."""

    call: ToolCall


Delta: TypeAlias = TextDelta | CallStarted | CallText | CallDone
OnDelta: TypeAlias = Callable[[int, Delta], None]
"""Called with the index of a request and the next piece of its reply; while a long prompt is read, empty texts."""


class Model(Protocol):
    """Anything that continues conversations.

    Attributes:
        name: the name in reports: the model's, with its adapter if any.
        source: `Conversation.source` of conversations with this model's turns.
        rendering: how conversations become text, for records (`call_format`, `frame_sha256`, ...); empty for a model
            that receives structured messages.
    """

    name: str
    source: str
    rendering: Mapping[str, Json]

    def reply(self, requests: Sequence[Request], sampling: Sampling, on_delta: OnDelta | None = None) -> list[Reply]:
        """Reply to all requests, in order. `on_delta` receives the replies while they are generated.

        Raises:
            FrameError: the model's chat template cannot render a conversation faithfully.
        """


@runtime_checkable
class ConcurrentModel(Model, Protocol):
    """A model whose `reply` many threads may call at once: a slow reply then delays no other conversation."""

    def cancel(self) -> None:
        """End every `reply` in progress with an error."""

    def close(self) -> None:
        """Cancel what is in progress and free the model's resources."""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A token that was generated. `others`: the most likely tokens in its place, with their probabilities."""

    text: str
    probability: float
    others: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Likelihood:
    """The log-probability of one token of a reply, given all before it. `start`, `end`: its characters in the reply."""

    start: int
    end: int
    log: float


@dataclass(frozen=True, slots=True)
class Reading:
    """The text of a reply with its tokens; of a reply that was rendered here, the stop token is the last."""

    text: str
    tokens: tuple[Likelihood, ...]


@runtime_checkable
class InspectableModel(Model, Protocol):
    """A model on this machine that shows prompts and probabilities. `context`: tokens it can hold; 0: unknown."""

    context: int

    def prompt(self, conversation: Conversation) -> str:
        """The text that the model gets for its next turn."""

    def count(self, conversation: Conversation) -> int:
        """How many tokens that prompt has."""

    def explain(self, conversation: Conversation, text: str) -> list[TokenScore]:
        """How likely each token of `text` is as the next turn."""

    def read(self, replies: Sequence[tuple[Conversation, Turn]]) -> list[Reading]:
        """Read each reply as the next turn of its conversation, in batches, in one pass without generating.

        A turn without `raw` is rendered as in training; of one with it, `raw` is read.
        """
