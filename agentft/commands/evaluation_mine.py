"""`agentft eval mine`: turns the failures of an evaluation into proposed training rows."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.commands.evaluation_show import find_evaluation
from agentft.content import split_names
from agentft.errors import InputError

if TYPE_CHECKING:
    from agentft.evaluation.records import Record
    from agentft.reports.mining import Mined

__all__ = ["mine_command"]

Run = Annotated[str, typer.Argument(help="An evaluation folder, a run folder, or `last` for the newest evaluation.")]
Suites = Annotated[list[str] | None, typer.Argument(help="Your own suites, by folder, if it evaluated such.")]
Tools = Annotated[str | None, typer.Option(help="Your own worlds with a tools.py, comma-separated.")]
Data = Annotated[list[Path] | None, typer.Option(help="Training data. Repeatable. Default: those of the run.")]
Templates = Annotated[str, typer.Option(help="A recipe of `agentft data build`, for other words.")]
ArmName = Annotated[str | None, typer.Option(help="Whose failures: tuned, base, ... Default: the evaluated model's.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the rows. Default: `mined` in the evaluation.")]
Review = Annotated[bool, typer.Option("--review", help="Ask about each proposed row: y, n, or q to stop.")]


def mine_command(
    context: typer.Context,
    run: Run,
    suites: Suites = None,
    tools: Tools = None,
    data: Data = None,
    templates: Templates = "worlds",
    variants: Annotated[int, typer.Option(min=1, help="Maximum number of rows for each failed case.")] = 3,
    arm: ArmName = None,
    seed: Annotated[int, typer.Option(help="Seed for the choice of words and values.")] = 0,
    output: Output = None,
    review: Review = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Turn failures into proposed training rows, and show what training lacks. No model is needed.

    The rows are in rows.jsonl. Untick some in review.md and run the command again, or use --review.

    Example:
      agentft eval mine last --data rows.jsonl
    """
    from agentft.commands.data import find_recipe
    from agentft.display.mining import mined_lines
    from agentft.display.terminal import say, say_json
    from agentft.evaluation.rescoring import stored_plan
    from agentft.reports.mining import mine
    from agentft.rows.likeness import read_requests
    from agentft.synthesis.recipe import read_build_recipe
    from agentft.toolset import stdout_to_stderr

    path = find_evaluation(run) / "cases.jsonl"
    label, records = _records(path, arm)
    plan = stored_plan(path, records, suites or [], split_names(tools))
    if plan.setups or any(suite.source for suite in plan.suites):
        raise InputError("a public benchmark must not be trained on; mine an evaluation of your own suites")
    trained, learn = _training_of(path.parent)
    files, recipe = data or trained, read_build_recipe(find_recipe(templates))
    training = read_requests(files) if files else None
    with stdout_to_stderr():  # for handlers that print
        mined = mine(plan, records, training, source=run, recipe=recipe, variants=variants, seed=seed)
    target = output or path.parent / "mined"
    kept = _write(mined, target, shlex.join(["agentft", *(context.find_root().obj or ())]), review=review)
    if as_json:
        say_json(asdict(mined) | {"arm": label, "accepted": kept, "rows": str(target / "rows.jsonl")})
        return
    say(*mined_lines(mined, label))
    _say_next(mined, target, kept, files, learn)


def _say_next(mined: Mined, target: Path, kept: int, files: list[Path], learn: str) -> None:
    from agentft.display.terminal import say

    say(f"accepted: {kept}, in {target / 'rows.jsonl'}; go over them in {target / 'review.md'}, or with --review")
    if any(one.kind == "values" for one in mined.proposals):
        say("note: rows of `values` keep the words of the evaluation; prove the next model on a suite that has others")
    if kept:
        given = "".join(f" --data {shlex.quote(str(one))}" for one in (*files, target / "rows.jsonl"))
        say(f"next: agentft train{given} --learn {learn}")


def _records(path: Path, arm: str | None) -> tuple[str, list[Record]]:
    """The arm whose failures are mined, and its records; none of derived suites, which show other tools."""
    from agentft.evaluation.records import read_records
    from agentft.evaluation.rescoring import by_arm
    from agentft.strict import nearest

    arms = by_arm(list(read_records(path)))
    if (label := arm or next(iter(arms), "")) not in arms:
        raise InputError(f"{path}: it has no arm {label!r}; {nearest(label, list(arms))}")
    ids = {record.case for record in arms[label]}
    return label, [one for one in arms[label] if one.case.rpartition("~")[0] not in ids]


def _training_of(folder: Path) -> tuple[list[Path], str]:
    """Data and learn rule of the run that the evaluation is in (`<run>/eval/<hash>`); no data if it is in no run."""
    from agentft.runs import RunFolder
    from agentft.training.recipe import read_resolved

    recipe = RunFolder(folder.resolve().parent.parent).recipe
    if not recipe.is_file():
        return [], "balanced"
    read = read_resolved(recipe)
    return [path for path in map(Path, read.data) if path.is_file()], read.learn


def _write(mined: Mined, target: Path, command: str, *, review: bool) -> int:
    """Write review.md and rows.jsonl; returns how many rows are accepted. What was unticked before stays so."""
    from agentft.display.mining import proposal_lines, read_ticks, review_page
    from agentft.display.terminal import say
    from agentft.files import write_text

    rows, page = {str(one.row["id"]): one for one in mined.proposals}, target / "review.md"
    ticks = dict.fromkeys(rows, True) | (
        read_ticks(page.read_text(encoding="utf-8", errors="replace"), rows) if page.is_file() else {}
    )
    for name, proposal in rows.items() if review else ():
        say(*proposal_lines(proposal), err=True)
        answer = typer.prompt("keep it? y, n, q", default="y" if ticks[name] else "n", err=True).strip().lower()
        if answer.startswith("q"):
            break
        ticks[name] = answer.startswith("y")
    write_text(page, review_page(mined, ticks, command))
    kept = [json.dumps(one.row, ensure_ascii=False) + "\n" for name, one in rows.items() if ticks[name]]
    write_text(target / "rows.jsonl", "".join(kept))
    return len(kept)
