"""`agentft data inspect`, `data mask` and `data build`: count rows, show supervised tokens, build data sets."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.content import find_content, split_names
from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.rows.preparation import Encoder
    from agentft.synthesis.build import BuildReport

__all__ = ["build_command", "find_recipe", "inspect_command", "mask_command"]


_Settings = Annotated[list[str] | None, typer.Argument(metavar="[RECIPE] [KEY=VALUE]...", help="As for `train`.")]
_Model = Annotated[str | None, typer.Option("--model", help="The model whose tokenizer and chat template are used.")]
_Format = Annotated[str | None, typer.Option("--format", help="Call format: msagent, hermes or native.")]
_Learn = Annotated[str | None, typer.Option("--learn", help="What to supervise: calls, balanced or assistant.")]


def inspect_command(
    file: Annotated[Path, typer.Argument(help="JSONL, a JSON array (both may be gzipped) or parquet.", metavar="FILE")],
    settings: _Settings = None,
    model: _Model = None,
    call_format: _Format = None,
    learn: _Learn = None,
    quarantine: Annotated[
        Path | None,
        typer.Option("--quarantine", help="Write rejected rows here, each with its reason.", metavar="FILE"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a row is rejected, or a key of a row is not read.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Count a data file's rows, turns, calls and tools, and say why rows are rejected.

    With a setting, a recipe or one of --model, --format and --learn, the rows are prepared as `agentft train` does with
    these settings: the same rows are kept, and samples and tokens are counted too.

    Example:
      agentft data inspect rows.jsonl --quarantine bad.jsonl --strict
      agentft data inspect rows.jsonl --learn balanced max_length=2048
    """
    from agentft.display.data import show_inspection
    from agentft.display.terminal import open_console, say_json, waiting
    from agentft.rows.inspection import inspect_file

    encoder = None
    if settings or model or call_format or learn:
        encoder = _open_encoder(file, settings, model, call_format, learn)
    with waiting(f"reading {file}"):
        inspection = inspect_file(file, quarantine, encoder)
    if as_json:
        say_json(inspection.document())
    else:
        open_console().print(show_inspection(inspection, file))
    if strict and (inspection.ledger.rejected or inspection.ledger.unread):
        raise typer.Exit(1)


def mask_command(
    file: Annotated[Path, typer.Argument(help="A data file, as for training.", metavar="FILE")],
    settings: _Settings = None,
    model: _Model = None,
    call_format: _Format = None,
    learn: _Learn = None,
    row: Annotated[int | None, typer.Option("--row", min=1, help="The number of the row (default: 1).")] = None,
    boundaries: Annotated[bool, typer.Option("--boundaries", help="Show where each token starts.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document (all rows without --row).")] = False,
) -> None:
    """Show a conversation as the model sees it, with the text highlighted that `agentft train` supervises.

    Example:
      agentft data mask rows.jsonl --model smollm2-135m --row 3
      agentft data mask rows.jsonl --learn balanced max_length=2048
    """
    from agentft.display.data import mask_view
    from agentft.display.terminal import open_console, say_json_rows
    from agentft.rows.mask import check_row, mask_rows

    if row is not None:
        check_row(file, row)  # before the imports
    encoder = _open_encoder(file, settings, model, call_format, learn)
    rows = mask_rows(file, encoder, row if as_json else row or 1)
    if as_json:
        say_json_rows("rows", map(asdict, rows))
        return
    console = open_console()
    for masked in rows:
        console.print(mask_view(masked, boundaries=boundaries, plain=console.no_color or not console.color_system))


def _open_encoder(
    file: Path, settings: list[str] | None, model: str | None, call_format: str | None, learn: str | None
) -> Encoder:
    from agentft.display.pulling import ensure_pulled
    from agentft.display.terminal import waiting
    from agentft.rows.sources import is_parquet
    from agentft.training.recipe import read_settings

    options = {"model": model, "format": call_format, "learn": learn, "data": [str(file)]}
    recipe = read_settings(settings or [], options)
    ensure_pulled(recipe.model)
    is_parquet(file)  # a file that does not exist is refused before the imports, as the model's folder is
    with waiting(f"loading the tokenizer of {recipe.model}"):
        from agentft.training.encoder import open_encoder

        return open_encoder(recipe)


def build_command(
    recipe: Annotated[str, typer.Argument(help="A recipe (TOML), or the name of a shipped one: quickstart or worlds.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write. Default: RECIPE.jsonl in the current folder.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replaces the recipe's seed.")] = None,
    tools: Annotated[
        str | None, typer.Option(help="Your own worlds with a tools.py, comma-separated, if the recipe uses some.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON document.")] = False,
) -> None:
    """Build the data set that a recipe describes; tool results come from real calls to the tool worlds.

    Example: agentft data build datasets/quickstart.toml
    """
    from agentft.display.terminal import say, say_json, waiting
    from agentft.synthesis.build import build
    from agentft.toolserver import ToolServer
    from agentft.toolset import stdout_to_stderr

    path = find_recipe(recipe)
    target = output or Path(f"{path.stem}.jsonl")
    if output is None and target.exists():
        raise InputError(f"{target} already exists; to replace it, add --output {target}, or name another file")
    if target.is_dir() or (target.exists() and target.samefile(path)):
        raise InputError(f"--output {target}: this is {'a folder' if target.is_dir() else 'the recipe'}; name a file")
    with waiting(f"building {target}"), stdout_to_stderr():  # for handlers that print
        report = build(path, target, ToolServer, seed=seed, tools=split_names(tools))
    if as_json:
        say_json(asdict(report))
    else:
        say(*_summary(report))


def find_recipe(name: str) -> Path:
    """The recipe at a path, or the shipped one with this name."""
    found = (find_content("datasets", file) for file in (name, f"{name}.toml"))
    path = next((path for path in found if path is not None and path.is_file()), None)
    if path is None:
        raise InputError(f"there is no recipe {name!r}; give the path of a TOML file, or `quickstart`")
    return path


def _summary(report: BuildReport) -> list[str]:
    unit = "rows" if report.form == "rows" else "cases"
    counts = (("category", report.categories), ("language", report.languages), ("tool calls", report.tools))
    lines = [f"{report.output}: {report.rows} {unit}, {report.turns} user turns, {report.quiet_turns} without a call"]
    lines += [f"  {title}: " + ", ".join(f"{k} {n}" for k, n in table.items()) for title, table in counts]
    return [*lines, f"  seed {report.seed}, sha256 {report.sha256}"]
