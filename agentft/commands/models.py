"""`agentft models list` and `agentft models pull`: models from the Python package index."""

from __future__ import annotations

from typing import Annotated

import typer

__all__ = ["list_command", "pull_command"]


def pull_command(
    name: Annotated[str, typer.Argument(help="The model's name; `agentft models list` shows them.")],
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress.")] = False,
) -> None:
    """Download a model from the Python package index into the cache.

    Prints the model's folder. A cached model is not downloaded again.

    Example:
      agentft models pull smollm2-135m
    """
    from agentft.display.pulling import pull_progress
    from agentft.display.terminal import open_console, say_path
    from agentft.models.embedded import pull

    with pull_progress(name, open_console(stderr=True, quiet=quiet)) as show:
        folder = pull(name, show)
    say_path(folder)


def list_command(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the embedded models and the folders of those that are downloaded.

    Example:
      agentft models list
    """
    from agentft.display.terminal import open_console, say, say_json
    from agentft.models.embedded import EMBEDDED, is_pulled, model_folder

    rows = [
        {
            "name": name,
            "about": model.about,
            "licence": model.licence,
            "package": f"{model.package}=={model.version}",
            "download_bytes": model.size,
            "folder": str(model_folder(name)) if is_pulled(name) else None,
        }
        for name, model in EMBEDDED.items()
    ]
    if as_json:
        say_json({"models": rows}, indent=2)
        return
    for row in rows:
        open_console().print(row["name"], style="bold")
        say(f"  {row['about']} ({row['licence']}, {EMBEDDED[str(row['name'])].size // 1_000_000} MB download)")
        say(f"  {row['folder'] or 'not downloaded; run: agentft models pull ' + str(row['name'])}")
