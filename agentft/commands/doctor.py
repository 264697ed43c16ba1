"""`agentft doctor`: checks the installation and the machine, with a remedy for each failed check."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.commands.endpoints import AllowHttp, EndpointUrl, PromptTokenizer, choose_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentft.models.round_trip import Check
    from agentft.models.transport import Endpoint

__all__ = ["doctor_command"]


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    model: Annotated[str | None, typer.Option(help="Check calls with this model; see `chat --model`.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Check calls with the model of this run.")] = None,
    endpoint: EndpointUrl = None,
    tokenizer: PromptTokenizer = None,
    allow_http: AllowHttp = False,
) -> None:
    """Check the installation and the machine, or a model's calls, and show a remedy for each failed check.

    With --model or --endpoint: a call, two calls, a result, a stop and twenty awkward arguments make the round trip.
    With --model (or --tokenizer), also the chat template: its stop token, its tools, whether it rewrites earlier turns.

    Example:
      agentft doctor
      agentft doctor --endpoint http://localhost:8000/v1
    """
    from rich.text import Text

    from agentft.commands.installation import check_all
    from agentft.display.safe import safe_line
    from agentft.display.terminal import open_console, say, say_json

    served = choose_endpoint(endpoint, allow_http=allow_http, tokenizer=tokenizer)
    checks = _check_calls(model, adapter, served) if served or model or adapter or tokenizer else check_all()
    if as_json:
        say_json({"checks": [asdict(check) for check in checks]}, indent=2)
        return
    console = open_console()
    for check in checks:
        mark = ("ok  ", "green") if check.good else ("--  ", "yellow")
        console.print(Text.assemble(mark, f"{check.name:<13} ", safe_line(check.found)), soft_wrap=True)
        if not check.good:
            say(f"{'':18}{check.remedy}")


def _check_calls(model: str | None, adapter: str | None, endpoint: Endpoint | None) -> Iterator[Check]:
    from agentft.display.pulling import ensure_pulled
    from agentft.models.endpoint import open_served
    from agentft.models.opening import SCRIPTED, open_model
    from agentft.models.round_trip import Check, round_trip

    if endpoint is not None:
        served = open_served(endpoint, model, adapter)
        try:
            yield Check("endpoint", True, served.name)
            if endpoint.tokenizer:
                yield from _check_template(endpoint.tokenizer, None)
                yield from _compare_templates(endpoint, model)
            yield from round_trip(served)
        finally:
            served.close()
        return
    if model:
        ensure_pulled(model)
    if not (model or "").startswith(f"{SCRIPTED}:"):
        yield from _check_template(model, adapter)
    opened = open_model(model, adapter)
    yield Check("model", True, opened.name)
    yield from round_trip(opened)


def _check_template(model: str | None, adapter: str | None) -> Iterator[Check]:
    """Check the chat template, before any weights are loaded."""
    from agentft.models.opening import DEFAULT_MODEL
    from agentft.models.prompting import open_prompting
    from agentft.runs import find_finished

    run = find_finished(adapter) if adapter and model else None
    named = (adapter if run is None or run.is_whole else None) or model or DEFAULT_MODEL
    prompting = open_prompting(named, run and run.call_format)  # refuses a missing folder, before a slow import
    from agentft.models.template_check import check_template

    yield from check_template(prompting)


def _compare_templates(endpoint: Endpoint, model: str | None) -> Iterator[Check]:
    """Send messages, so that the server writes the prompts, and compare them with ours."""
    from agentft.models.endpoint import open_served
    from agentft.models.prompting import open_prompting
    from agentft.models.round_trip import compare_templates

    prompting = open_prompting(endpoint.tokenizer)
    served = open_served(replace(endpoint, tokenizer=""), model, call_format=prompting.rendering.name)
    try:
        yield from compare_templates(served, prompting)
    finally:
        served.close()
