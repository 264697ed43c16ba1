"""`agentft data mask`: what of a conversation is learnt, token by token."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from agentft.data.mask import MaskedRow

__all__ = ["mask_command"]


def mask_command(
    file: Annotated[Path, typer.Argument(help="A data file, as for training.", metavar="FILE")],
    model: Annotated[str, typer.Option("--model", help="Whose tokenizer and chat template.")] = "smollm2-135m",
    call_format: Annotated[str, typer.Option("--format", help="Call format: msagent or hermes.")] = "msagent",
    learn: Annotated[str, typer.Option("--learn", help="calls, balanced or assistant.")] = "calls",
    row: Annotated[int | None, typer.Option("--row", min=1, help="Which row, from 1 (default: the first).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (all rows without --row).")] = False,
) -> None:
    """Show a conversation with each token coloured by what is learnt, with weights and a legend.

    Example:
      agentft data mask rows.jsonl --model smollm2-135m --row 3
    """
    from agentft.data.mask import mask_rows
    from agentft.encoding import learn_rule
    from agentft.formats import call_format as find_format
    from agentft.models.tokenizers import load_tokenizer

    fmt, rule = find_format(call_format), learn_rule(learn)
    rows = mask_rows(file, load_tokenizer(model), fmt, rule, row if as_json else row or 1)
    if as_json:
        _write_json(rows)
        return
    from rich.console import Console

    from agentft.display.mask import MaskView

    console = Console()
    for masked in rows:
        console.print(MaskView(masked))


def _write_json(rows: Iterable[MaskedRow]) -> None:
    """One document, written row by row, so that a large file needs no large memory."""
    sys.stdout.write('{"rows": [')
    for index, masked in enumerate(rows):
        sys.stdout.write((", " if index else "") + json.dumps(asdict(masked), ensure_ascii=False))
    sys.stdout.write("]}\n")
