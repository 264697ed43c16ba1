"""What a person can do about each reason for which rows are rejected."""

from __future__ import annotations

__all__ = ["REMEDIES"]

REMEDIES: dict[str, str] = {
    "call-not-object": "make each call {function: {name, arguments}}",
    "invalid-json": "write one JSON value a line, with json.dumps and allow_nan=False",
    "invalid-utf8": "convert the file to UTF-8",
    "line-too-long": "split the row; at most 16 MiB are read",
    "lone-surrogate": "replace the broken \\ud800-\\udfff escape",
    "no-assistant": "add the assistant's turn, or remove the row",
    "no-turns": "fill `conversations` or `messages` with a list of turns",
    "not-an-object": "make each row an object with `conversations` or `messages`",
    "null-arguments": "store arguments as JSON text in parquet",
    "react-dialogue": "convert Action / Action Input to call markers",
    "swallowed-dialogue": "split the system value at <|user|>: into turns",
    "too-deep": "nest at most 100 levels",
    "turn-not-object": "make each turn an object with a role and a text",
    "turn-order": "put the system turn first and let the speakers alternate",
    "unknown-format": "name the list of turns `conversations` (MS-Agent) or `messages` (OpenAI)",
    "unknown-role": "rename the role to system, user, assistant or (OpenAI) tool",
    "unreadable-tools": "repair the JSON of the tool's declaration",
    "value-not-text": "make the turn's value text",
}
