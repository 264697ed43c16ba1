"""Every error that agentft raises on purpose.

AgentftError                 exit code 2
├── InputError               bad input: names the place, the value and the remedy
│   ├── RowError             one row of a data file; becomes a counted rejection, never a crash
│   └── FrameError           a chat template that cannot be used
├── MissingError             exit code 3: an extra, a model, a GPU or a server is missing; names the remedy
└── ToolError                a tool refuses a call; sent as a 4xx with a message for the model
"""

from __future__ import annotations

__all__ = [
    "MCP_REMEDY",
    "AgentftError",
    "FrameError",
    "InputError",
    "MissingError",
    "RowError",
    "ToolError",
    "is_panic",
]

MCP_REMEDY = "MCP needs the official SDK; install it with `pip install 'mcp>=2.3,<3'`"


class AgentftError(Exception):
    """The base of all errors; shown as one line, they end the command with `exit_code`."""

    exit_code = 2


class InputError(AgentftError):
    """Invalid input. The message names the location, the value and the fix."""


class RowError(InputError):
    """One row that cannot become a conversation.

    Args:
        reason: a short, stable slug by which rejections are counted, for example `no-assistant`.
        detail: a message for people.
        turn: index of the turn in the row, if known.
        offset: character offset inside that turn's text, if known.
    """

    def __init__(self, reason: str, detail: str, *, turn: int | None = None, offset: int | None = None) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
        self.turn = turn
        self.offset = offset


class FrameError(InputError):
    """A chat template that is missing or cannot express a conversation faithfully."""


class MissingError(AgentftError):
    """A required model, library, device or server is missing."""

    exit_code = 3


class ToolError(AgentftError):
    """A tool refused a call; `status` is the HTTP status (400 to 499) and the message is meant for the model."""

    def __init__(self, message: str, *, status: int = 400, **details: object) -> None:
        super().__init__(message)
        self.status = status
        self.details = details


def is_panic(error: BaseException) -> bool:
    """Whether a library in Rust has panicked. Its error is no Exception, and importable nowhere."""
    return type(error).__name__ == "PanicException"
