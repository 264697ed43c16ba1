"""Reads API descriptions from files and URLs: downloads only what is allowed, and parses within a size limit."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from agentft.errors import InputError
from agentft.json_text import parse_json
from agentft.strict import own_table
from agentft.toolset.references import References
from agentft.types import Json

__all__ = ["TIMEOUT", "is_url", "open_description", "parse_document", "read_source"]

TIMEOUT = 30  # seconds for a URL to answer, and for an MCP server to list its tools
_SIZE_LIMIT = 100 << 20  # bytes of a document, and of its JSON with YAML aliases expanded


def open_description(address: str, *, allow_url: bool = False, allow_refs: bool = False) -> References:
    """Open an API description, following references to other documents if that is allowed.

    Args:
        address: a path or an http(s) URL.
        allow_url: download the description from its URL.
        allow_refs: follow references to documents below the description's folder, or at its origin.

    Raises:
        InputError: it cannot be read, downloaded or parsed, or the download is not allowed.
    """

    def read(other: str) -> dict[str, Json]:
        if not _is_within(other, address):
            raise InputError(f"the document {other[:200]!r} is neither below the folder of {address} nor at its origin")
        return parse_document(read_source(other, allow_url=allow_url), other)

    root = parse_document(read_source(address, allow_url=allow_url), address)
    return References(root, address, read if allow_refs else None)


def read_source(address: str, *, allow_url: bool = False) -> bytes:
    """The content of a file or a URL. Reading stops above 100 MiB, which `parse_document` refuses.

    Raises:
        InputError: it cannot be read or downloaded, or it is a URL and `allow_url` is false.
    """
    if not is_url(address):
        try:
            with Path(address).open("rb") as stream:
                return stream.read(_SIZE_LIMIT + 1)
        except OSError as error:
            raise InputError(f"{address}: cannot be read ({error.strerror}); give the path of a file") from None
    if not allow_url:
        raise InputError(f"{address} is a URL; pass --allow-url to fetch it")
    import httpx

    content = bytearray()
    try:
        with httpx.stream("GET", address, timeout=TIMEOUT) as response:
            if response.status_code != 200:
                where = f" to {response.headers['location'][:200]!r}" if "location" in response.headers else ""
                raise InputError(f"{address}: answers {response.status_code}{where}; give the file's own URL")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _SIZE_LIMIT:
                    break
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise InputError(f"{address}: cannot be fetched: {error}") from None
    return bytes(content)


def parse_document(content: bytes, place: str) -> dict[str, Json]:
    """Parse a JSON or YAML 1.2 object to plain JSON; dates and numeric keys are text.

    Raises:
        InputError: the document is too large, not JSON or YAML, has a key twice, or is not an object.
    """
    if len(content) > _SIZE_LIMIT:
        raise InputError(f"{place}: larger than {_SIZE_LIMIT >> 20} MiB; reduce the file")
    try:
        text = content.decode("utf-8-sig")
        is_json = text.lstrip()[:1] == "{"
        value = parse_json(text, unique_keys=True) if is_json else _parse_yaml(text)
    except RecursionError:
        raise InputError(f"{place}: nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: cannot be read as JSON or YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(value, dict):
        raise InputError(f"{place}: contains {type(value).__name__}, not an object; give an API description")
    return value


def _parse_yaml(text: str) -> Any:
    import yaml

    # Plain values as in YAML 1.2 and JSON: `no`, `12:30`, `0777` and `2020-01-01` are text.
    kinds: Any = type("Loader", (getattr(yaml, "CSafeLoader", yaml.SafeLoader),), {"yaml_implicit_resolvers": {}})
    for kind, pattern in own_table(__file__, str).items():
        kinds.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", re.compile(rf"(?:{pattern})\Z"), None)
    loader = kinds(text)
    try:
        node = loader.get_single_node()
        _require_unique_keys(node)
        value = loader.construct_document(node) if node else None
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    # Encoding piece by piece stops at the limit if aliases expand to millions of values.
    pieces, size = [], 0
    for piece in json.JSONEncoder(default=str, allow_nan=False).iterencode(value):
        size += len(piece)
        if size > _SIZE_LIMIT:
            raise ValueError("its aliases expand to too much")
        pieces.append(piece)
    return json.loads("".join(pieces))


def _require_unique_keys(root: Any) -> None:
    """Refuse a mapping that repeats a key, of which YAML's and JSON's readers keep the last one only."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if not isinstance(getattr(node, "value", None), list) or node in seen:
            continue
        seen.add(node)
        waiting += [item[1] if isinstance(item, tuple) else item for item in node.value]
        first: dict[str, Any] = {}
        for key in [item[0] for item in node.value if isinstance(item, tuple)]:
            if isinstance(key.value, str) and key.value != "<<" and first.setdefault(key.value, key) is not key:
                raise ValueError(f"line {key.start_mark.line + 1}: the key {key.value[:40]!r} occurs twice")


def is_url(address: str) -> bool:
    """Whether an address is an http(s) URL; anything else is a path or a command."""
    return re.match(r"(?i)https?://", address) is not None


def _is_within(address: str, root: str) -> bool:
    if is_url(root) or is_url(address):
        one, other = urlsplit(address), urlsplit(root)
        return (one.scheme, one.netloc) == (other.scheme, other.netloc)
    return Path(address).resolve().is_relative_to(Path(root).resolve().parent)
