"""`agentft tools import`: a world from an API description, or from recorded traffic."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.toolset.openapi import Importing
    from agentft.types import Json

__all__ = ["openapi_command", "traffic_command"]

_Output = Annotated[Path, typer.Option(help="The world's folder; it is made.")]
_AsJson = Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")]


def openapi_command(
    file: Annotated[str, typer.Argument(help="An OpenAPI 3.0, 3.1 or Swagger 2 file, JSON or YAML.")],
    output: _Output,
    allow_url: Annotated[bool, typer.Option(help="FILE may be an http(s) address, which is fetched.")] = False,
    allow_refs: Annotated[
        bool, typer.Option(help="Follow `$ref`s to other files: below FILE's folder, or at its own address.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Make a tool world of an API description: a tool for each operation, with answers like those of the API.

    Nothing of the real API is ever called. What cannot be a tool is listed in the world's README.md with its place.

    Example:
      agentft tools import openapi petstore.yaml --output ./petstore
      agentft chat --tools ./petstore
    """
    from agentft.toolset.documents import Documents, read_document
    from agentft.toolset.openapi import import_openapi

    root = read_document(_content(file, allow_url), file)

    def follow(address: str) -> dict[str, Json]:
        if not _is_below(address, file):
            raise InputError(f"the document {address[:200]!r} is neither below {file} nor at its address")
        return read_document(_content(address, allow_url), address)

    done = import_openapi(Documents(root, file, follow if allow_refs else None), output.name)
    _finish(done, file, output, as_json)


def traffic_command(
    file: Annotated[Path, typer.Argument(help="A HAR file, or JSONL with an exchange a line.")],
    output: _Output,
    as_json: _AsJson = False,
) -> None:
    """Make a tool world of recorded traffic: calls that were recorded are answered as they were.

    Example: agentft tools import traffic recorded.jsonl --output ./replayed
    """
    from agentft.toolset.traffic import import_traffic

    _finish(import_traffic(_content(str(file), False), str(file), output.name), str(file), output, as_json)


def _is_url(address: str) -> bool:
    return urlsplit(address).scheme in {"http", "https"}


def _is_below(address: str, root: str) -> bool:
    if _is_url(root) or _is_url(address):
        one, other = urlsplit(address), urlsplit(root)
        return (one.scheme, one.netloc) == (other.scheme, other.netloc)
    return Path(address).resolve().is_relative_to(Path(root).resolve().parent)


def _content(address: str, allow_url: bool) -> bytes:
    from agentft.toolset.documents import DOCUMENT_LIMIT

    if not _is_url(address):
        try:
            with Path(address).open("rb") as stream:
                return stream.read(DOCUMENT_LIMIT + 1)
        except OSError as error:
            raise InputError(f"{address}: cannot be read ({error.strerror}); give the path of a file") from None
    if not allow_url:
        raise InputError(f"{address} is an address; --allow-url would fetch it")
    import httpx

    content = bytearray()
    try:
        with httpx.stream("GET", address, timeout=30) as response:
            if response.status_code != 200:
                where = f" to {response.headers['location'][:200]!r}" if "location" in response.headers else ""
                raise InputError(f"{address}: answers {response.status_code}{where}; give the file's own address")
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > DOCUMENT_LIMIT:
                    break
    except httpx.HTTPError as error:
        raise InputError(f"{address}: cannot be fetched: {error}") from None
    return bytes(content)


def _finish(done: Importing, source: str, output: Path, as_json: bool) -> None:
    from agentft.toolset.declared import write_world
    from agentft.toolset.schemas import describe

    write_world(output, done.tools, done.base_url, done.readme(output.name, source))
    marks = Counter(str(tool["access"]) for tool in done.tools)
    if as_json:
        refused = [{"place": item.place, "reason": item.reason} for item in done.refused]
        report = {"output": str(output), "tools": len(done.tools), "access": marks, "refused": refused}
        typer.echo(json.dumps(report | {"adapted": len(done.adapted)}, ensure_ascii=False))
        return
    typer.echo(f"{output}: {len(done.tools)} tools ({', '.join(f'{number} {mark}' for mark, number in marks.items())})")
    for item in done.refused[:5]:
        typer.echo(f"  refused {describe(item.place)}: {describe(item.reason)}")
    if done.refused or done.adapted:
        more = f"{len(done.refused)} refused, {len(done.adapted)} adapted"
        typer.echo(f"  {more}; all are in {output / 'README.md'} with their places")
