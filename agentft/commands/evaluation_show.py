"""`agentft eval show`: a stored evaluation in the terminal."""

from __future__ import annotations

import shlex
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.reports.pairing import PairedCase

__all__ = ["find_evaluation", "show_command"]


def show_command(
    run: Annotated[
        str, typer.Argument(help="An evaluation folder, a run folder, or `last` for the newest evaluation.")
    ],
    case: Annotated[str | None, typer.Argument(help="The id of a case.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every figure and every case.")] = False,
) -> None:
    """Show a stored evaluation: verdict, figures, what to fix first, lost cases; or one case with its calls.

    Example:
      agentft eval show last
      agentft eval show last basics-single-05
    """
    from agentft.display.stored import show_case, show_stored
    from agentft.display.terminal import open_console, say
    from agentft.evaluation.records import read_evaluation, read_records
    from agentft.evaluation.rescoring import by_arm
    from agentft.reports.pairing import pair_cases

    folder = find_evaluation(run)
    arms = by_arm(read_evaluation(folder))
    cases, console = pair_cases(arms), open_console()
    if case is not None:
        console.print(show_case(_choose(cases, case, folder), list(arms)), soft_wrap=True)
        return
    summary = _read_summary(folder / "summary.json")
    try:
        console.print(show_stored(summary, cases, everything=everything), soft_wrap=True)
    except (ArithmeticError, LookupError, TypeError, AttributeError, ValueError) as error:
        why = f"{folder / 'summary.json'} cannot be shown ({type(error).__name__}: {error})"
        raise InputError(f"{why}; write it anew with `agentft eval --rescore {shlex.quote(str(folder))}`") from error
    if away := [label for label in summary["arms"] if label not in arms]:
        say(f"The cases of {', '.join(away)} are in a stored run; {folder / 'report.html'} compares them.")
    if not everything:
        say(f"More: --all, agentft eval show {run} CASE, or {folder / 'report.html'} in a browser.")
    own = read_records(folder / "cases.jsonl")  # a stored baseline's failures are another run's
    if "bfcl" not in summary and any(record.error for record in own):
        say(f"Next: agentft eval mine {shlex.quote(run)} proposes training rows for the failures.")


def find_evaluation(name: str) -> Path:
    """The evaluation folder that a user names."""
    from agentft.runs import RUNS

    path = Path(name)
    if path.name == "cases.jsonl" and path.is_file():
        return path.parent
    if name == "last":
        searches = [[*RUNS.glob("*/eval/*/cases.jsonl"), *RUNS.glob("eval-*/cases.jsonl")]]
    else:
        searches = [
            list(place.glob(inside))
            for place in (path, RUNS / name)
            for inside in ("cases.jsonl", "eval/*/cases.jsonl")
        ]
    if found := next(filter(None, searches), None):
        return max(found, key=lambda file: file.stat().st_mtime).parent
    raise InputError(f"there is no evaluation {name!r}; give the folder that `agentft eval` printed as its results")


def _choose(cases: list[PairedCase], name: str, folder: Path) -> PairedCase:
    for case in cases:
        if case.id == name:
            return case
    close = get_close_matches(name, [case.id for case in cases], 3)
    remedy = f"the nearest are {', '.join(close)}" if close else "--all lists its cases"
    raise InputError(f"{folder}: it has no case {name!r}; {remedy}")


def _read_summary(path: Path) -> dict[str, Any]:
    from agentft.files import json_of
    from agentft.strict import read_bytes

    try:
        summary = json_of(read_bytes(path, "give the same `agentft eval` command again to finish the run"))
    except ValueError as error:
        raise InputError(f"{path}: it is not JSON: {error}; give the same `agentft eval` command again") from None
    if not isinstance(summary, dict) or not summary.keys() >= {"verdict", "finding", "arms", "metrics"}:
        raise InputError(f"{path}: it is not the summary of an evaluation; give the same `agentft eval` command again")
    return summary
