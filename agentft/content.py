"""Finds the shipped content (tools/, datasets/, evals/): beside the package in a checkout, inside it in a wheel."""

from __future__ import annotations

from pathlib import Path

__all__ = ["content_root", "find_content", "find_shipped", "split_names"]


def content_root() -> Path:
    """The folder that holds `tools/`, `datasets/` and `evals/`."""
    package = Path(__file__).resolve().parent
    packed = package / "_content"
    return packed if packed.is_dir() else package.parent


def find_content(kind: str, name: str) -> Path | None:
    """The path `name` (`./mytools`) or the shipped `<kind>/<name>`; None if neither exists.

    Args:
        kind: `tools`, `datasets` or `evals`.
        name: a path, or the bare name of a shipped entry.
    """
    if ("/" in name or name.startswith(".")) and Path(name).exists():
        return Path(name)
    return find_shipped(kind, name) or (Path(name) if Path(name).exists() else None)


def find_shipped(kind: str, name: str) -> Path | None:
    """The shipped `<kind>/<name>`; None if there is none, or `name` is a path."""
    shipped = content_root() / kind / name
    return shipped if Path(name).name == name and shipped.exists() else None


def split_names(names: str | None) -> list[str]:
    """The names of worlds and the like in a comma-separated list; none if there is no list."""
    return [name for part in (names or "").split(",") if (name := part.strip())]
