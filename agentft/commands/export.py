"""`agentft export`: writes a finished run as a folder that another server loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

__all__ = ["export_command"]

_To = Annotated[
    Literal["merged", "adapter", "ollama", "vllm", "gguf"],
    typer.Option("--to", metavar="TARGET", help="merged, adapter, ollama, vllm or gguf."),
]


def export_command(
    run: Annotated[str, typer.Argument(metavar="RUN", help="A run folder, its name, or `last`.")],
    to: _To,
    output: Annotated[Path | None, typer.Option(help="The folder to write. Default: RUN/export/TARGET.")] = None,
    llama_cpp: Annotated[
        Path | None, typer.Option(help="gguf: a folder with llama.cpp's convert_hf_to_gguf.py. Default: on the PATH.")
    ] = None,
    allow_differences: Annotated[
        bool, typer.Option("--allow-differences", help="Export although some prompts are not rendered as in training.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Write a finished run as a folder that another server loads.

    Before that, the prompts of the training rows are rendered as the server will render them. A difference from
    training is an error.

    Example:
      agentft export last --to vllm
      agentft export runs/rows-1 --to merged --output mymodel
    """
    from agentft.display.terminal import say, say_json, waiting
    from agentft.runs import find_finished

    found = find_finished(run)
    folder = output or found.path / "export" / to
    with waiting("loading PyTorch and transformers"):
        from agentft.export.folders import export_run

    notes: list[str] = []

    def on_note(text: str) -> None:
        notes.append(text)
        say(text, err=True)

    serve = export_run(found, to, folder, on_note, llama_cpp=llama_cpp, allow_differences=allow_differences)
    if as_json:
        say_json({"run": str(found.path), "to": to, "output": str(folder), "notes": notes, "serve": serve})
        return
    say(*(line for line in serve.splitlines() if not line.startswith("```")), str(folder))
