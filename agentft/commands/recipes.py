"""`agentft recipes`: lists the shipped recipes and copies one to edit."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from agentft.errors import InputError

__all__ = ["copy_recipe", "list_recipes"]


def list_recipes(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False) -> None:
    """List the shipped recipes, and when to take which.

    Example:
      agentft recipes list
    """
    from agentft.display.terminal import open_console, say, say_json

    rows = [{"name": name, "when": text.partition("\n")[0].removeprefix("# ")} for name, text in _read_all().items()]
    if as_json:
        say_json({"recipes": rows})
        return
    for row in rows:
        open_console().print(row["name"], style="bold")
        say(f"  {row['when']}")
    say("to take one: agentft recipes copy NAME, then: agentft train NAME.toml --data FILE")


def copy_recipe(
    name: Annotated[str, typer.Argument(help="A name that `agentft recipes list` shows.")],
    file: Annotated[Path | None, typer.Argument(help="Where to write it. Default: NAME.toml here.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
) -> None:
    """Copy a shipped recipe to edit it and to train with it.

    Example:
      agentft recipes copy 7b-24gb recipe.toml
    """
    from agentft.display.terminal import say_path
    from agentft.files import write_text
    from agentft.strict import nearest

    recipes = _read_all()
    if name not in recipes:
        raise InputError(f"there is no recipe {name!r}; {nearest(name, list(recipes))}")
    path = file or Path(f"{name}.toml")
    if path.is_dir():
        raise InputError(f"{path} is a folder; give a file, for example {path / f'{name}.toml'}")
    if path.exists() and not force:
        raise InputError(f"{path} already exists; give another file, or replace it with --force")
    write_text(path, recipes[name])
    say_path(path)


def _read_all() -> dict[str, str]:
    """The text of each recipe, sorted by name."""
    found = (entry for entry in (resources.files("agentft") / "recipes").iterdir() if entry.name.endswith(".toml"))
    return {entry.name.removesuffix(".toml"): entry.read_text(encoding="utf-8") for entry in sorted(found, key=str)}
