"""Writes the reports of a finished evaluation: report.html in its folder, and the files that the user asked for."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

from agentft.errors import InputError
from agentft.evaluation.records import Record
from agentft.evaluation.summary import Summary
from agentft.files import atomic_write, write_text
from agentft.reports.exports import render_csv, render_junit, render_markdown
from agentft.reports.page import render_page

__all__ = ["Exports", "ResultsWriter"]

ResultsWriter: TypeAlias = Callable[[Path | None, Summary, Mapping[str, Sequence[Record]]], None]
"""See `agentft.evaluation.runner.Settings.on_results`."""


@dataclass(frozen=True, slots=True)
class Exports:
    """Where to write reports besides the folder of the evaluation; None: nowhere.

    Raises:
        InputError: a path is a folder.
    """

    html: Path | None = None
    junit: Path | None = None
    markdown: Path | None = None
    csv: Path | None = None

    def __post_init__(self) -> None:
        for name, path in asdict(self).items():
            if path is not None and path.is_dir():
                raise InputError(f"--{name} {path}: it is a folder; name a file")

    def writer(self, command: str) -> ResultsWriter:
        """What `Settings.on_results` takes: writes report.html and the exports. `command`: the one to repeat."""
        return partial(_write, self, command)


def _write(
    exports: Exports, command: str, folder: Path | None, summary: Summary, arms: Mapping[str, Sequence[Record]]
) -> None:
    document = summary.document()
    following = f"agentft eval mine {shlex.quote(str(folder))}" if folder and summary.bfcl is None else ""
    for path in (folder and folder / "report.html", exports.html):
        if path:
            with atomic_write(path) as stream:
                stream.writelines(render_page(document, arms, command, following))
    if exports.junit:
        write_text(exports.junit, render_junit(document, arms))
    if exports.markdown:
        write_text(exports.markdown, render_markdown(document, arms, command))
    if exports.csv:
        write_text(exports.csv, render_csv(arms))
