"""`make tree`: every module of the package, with the first sentence of its docstring."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "agentft"


def lines(folder: Path = PACKAGE, depth: int = 0) -> Iterator[str]:
    """A line for each module, folders first named and then entered."""
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        if path.is_dir() and (path / "__init__.py").exists():
            yield f"{'  ' * depth}{path.name}/"
            yield from lines(path, depth + 1)
        elif path.suffix == ".py":
            text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            sentence = " ".join(text.split("\n\n")[0].split()).partition(". ")[0].rstrip(".")
            yield f"{'  ' * depth + path.name:24} {sentence}".rstrip()


if __name__ == "__main__":
    sys.stdout.write("\n".join([*lines(), ""]))
