"""The options of commands that can use an OpenAI-compatible endpoint."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentft.models.transport import Endpoint

__all__ = ["AllowHttp", "AtOnce", "EndpointUrl", "PromptTokenizer", "choose_endpoint"]

EndpointUrl = Annotated[
    str | None,
    typer.Option("--endpoint", help="URL of an OpenAI-compatible server; its key is read from AGENTFT_API_KEY."),
]
AtOnce = Annotated[
    int | None,
    typer.Option(
        "--batch-size", "--concurrency", min=1, help="Cases that run at once. Default: 16, or 64 with --endpoint."
    ),
]
AllowHttp = Annotated[bool, typer.Option("--allow-http", help="Send the key to --endpoint unencrypted.")]
PromptTokenizer = Annotated[
    str | None,
    typer.Option(
        "--tokenizer",
        help="With --endpoint: write whole prompts here, by the chat template of this model or run, for /completions.",
    ),
]


def choose_endpoint(
    url: str | None,
    concurrency: int | None = None,
    *,
    allow_http: bool = False,
    quiet: bool = False,
    tokenizer: str | None = None,
) -> Endpoint | None:
    """The endpoint of `--endpoint`, if it is given. Says on stderr which key is sent where.

    Raises:
        InputError: see `open_endpoint`.
    """
    if url is None:
        return None
    from agentft.display.terminal import say
    from agentft.models.transport import open_endpoint

    endpoint = open_endpoint(url, concurrency=concurrency or 64, allow_http=allow_http)
    if endpoint.key and not quiet:
        say(f"note: {endpoint.key} is sent to {endpoint.url}", err=True)
    return replace(endpoint, tokenizer=tokenizer or "")
