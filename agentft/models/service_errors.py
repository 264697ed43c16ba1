"""Errors that endpoints send, some of them with status 200: what they say, and whether the model caused them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from agentft.json_text import UnreadableError, parse_json
from agentft.types import Json

__all__ = ["error_in", "is_filtered", "is_unread", "read_error"]

_TEXT = 1000  # characters of an error's message
_BASE = "base_resp"  # MiniMax's key, which stands in good answers too
_KEYS = ("error", "errors", _BASE, "message", "detail", "details", "msg", "status_msg", "error_msg")
_STATUS_KEYS = ("code", "status", "status_code", "http_code", "error_code")
_STATUSES = {"1002": "429", "1004": "401", "1008": "402", "2049": "401"}
"""MiniMax's codes for too many requests, a wrong key and no balance."""
_CODES = {"insufficient_quota": 402, "model_not_found": 404, "API key not valid": 401}  # the last is Gemini's
"""Words of an error, with the status that others send for the same; gateways send them with any status."""
_FILTERED = re.compile(
    "content.?filter|content.?policy|content management policy"  # Azure, Moonshot, Anthropic, LiteLLM
    "|usage guidelines|our usage policy|flagged_input|requires moderation"  # xAI, OpenAI, OpenRouter
    "|Content Exists Risk|data_?inspection_?failed|new_sensitive|SensitiveContent|敏感内容",  # DeepSeek and others
    re.IGNORECASE,
)
_UNREAD = re.compile(
    "failed_generation|tool_use_failed|output_parse_failed"  # Groq
    "|Failed to parse input at|produced output that does not match the expected"  # llama.cpp
    "|error parsing tool call|Failed to parse tool call:"  # Ollama, LM Studio
    r"|Unexpected token \d+ while expecting start token|unexpected tokens remaining in message header"  # vLLM's gpt-oss
    "|invalid sequence as part of ToolUse|model produced invalid content"  # Bedrock, OpenAI
    "|Failed to parse generated text",  # TGI
    re.IGNORECASE,
)


def error_in(document: Mapping[str, Json]) -> Json:
    """What a body, or an event of a stream, says is wrong; None or empty if it says nothing."""
    choices, base = document.get("choices"), document.get(_BASE)
    if isinstance(base, dict) and base.get("status_code"):
        return base
    first: Any = choices[0] if isinstance(choices, list) and choices else None
    keys = ("error",) if choices else [key for key in _KEYS if key != _BASE]
    said = next((document[key] for key in keys if document.get(key)), None)
    return said or (first.get("error") if isinstance(first, dict) else None)


def read_error(status: int, text: str) -> tuple[int, str]:
    """The status and the message of an error in a body that came with `status`; a status below 300 if it has none."""
    try:
        document: Any = parse_json(text)
    except UnreadableError:
        document = text.strip()
    document = document[0] if isinstance(document, list) and document else document  # Gemini's
    value: Any = error_in(document) if isinstance(document, dict) else None
    if value and status < 300:
        named = [place.get(key) for place in (value, document) if isinstance(place, dict) for key in _STATUS_KEYS]
        codes = (_STATUSES.get(str(code), str(code)) for code in named)
        status = next((int(code) for code in codes if re.fullmatch("[45][0-9][0-9]", code)), status)
    status = next((code for word, code in _CODES.items() if status >= 400 and word in text), status)
    filtered = is_filtered(text) and (status >= 400 or bool(value))
    status = 400 if filtered else status  # others send 403, as for a key, or 200
    value = text.strip() if is_unread(text) or filtered else value or document  # all of it, with what the model wrote
    while isinstance(value, dict) and (found := [value[key] for key in _KEYS if value.get(key)]):
        value = found[0]
    return status, (value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))[:_TEXT]


def is_filtered(text: str) -> bool:
    """Whether an error says that a filter of the server refused the prompt or withheld the answer."""
    return bool(_FILTERED.search(text))


def is_unread(text: str) -> bool:
    """Whether an error says that the server could not read what the model wrote, so that it is the model's failure."""
    return bool(_UNREAD.search(text))
