"""`agentft eval mine`: turns the failures of an evaluation into proposed training rows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agentft.commands.evaluation_show import find_evaluation
from agentft.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentft.evaluation.records import Record
    from agentft.reports.mining import Mined
    from agentft.synthesis.recipe import BuildRecipe

__all__ = ["mine_command"]

_TEMPLATES = "worlds"


Run = Annotated[str, typer.Argument(help="An evaluation folder, a run folder, or `last` for the newest evaluation.")]
Suites = Annotated[list[str] | None, typer.Argument(help="Your own suites, by folder, if the evaluation was of such.")]
Tools = Annotated[str | None, typer.Option(help="Your own worlds with a tools.py, comma-separated.")]
Data = Annotated[
    list[Path] | None, typer.Option(help="Training data; may be given several times. Default: those of the run.")
]
Templates = Annotated[
    str | None, typer.Option(help="A recipe of `agentft data build`, for other words, or `none`. Default: worlds.")
]
Variants = Annotated[int, typer.Option(min=1, help="Maximum number of proposed rows for each failed case.")]
OwnCases = Annotated[bool, typer.Option("--own-cases", help="Also propose the cases themselves, unticked.")]
ArmName = Annotated[str | None, typer.Option(help="Whose failures: tuned, base, ... Default: the evaluated model's.")]
Output = Annotated[Path | None, typer.Option(help="Folder for the rows. Default: `mined` in the evaluation.")]
Review = Annotated[bool, typer.Option("--review", help="Ask about each proposed row: y, n, or q to stop.")]


def mine_command(
    context: typer.Context,
    run: Run,
    suites: Suites = None,
    tools: Tools = None,
    data: Data = None,
    templates: Templates = None,
    variants: Variants = 3,
    own_cases: OwnCases = False,
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
    from agentft.display.mining import mined_lines
    from agentft.display.terminal import say, say_json
    from agentft.evaluation.records import read_records
    from agentft.evaluation.rescoring import by_arm, stored_plan
    from agentft.reports.mining import Wish, mine
    from agentft.rows.likeness import read_requests
    from agentft.toolset import stdout_to_stderr

    folder = find_evaluation(run)
    arms = by_arm(list(read_records(folder / "cases.jsonl")))
    label, records = _choose_arm(arms, arm, folder)
    worlds = [name for part in (tools or "").split(",") if (name := part.strip())]
    plan = stored_plan(folder / "cases.jsonl", records, suites or [], worlds)
    if plan.setups:
        raise InputError("a public benchmark must not be trained on; mine an evaluation of your own suites")
    files = data or _training_files(folder)
    wish = Wish(str(folder), variants, own_cases, _recipe(templates), seed)
    with stdout_to_stderr():  # for handlers that print
        mined = mine(plan, records, read_requests(files) if files else None, wish)
    target = output or folder / "mined"
    kept = _write(mined, target, context, review=review)
    if as_json:
        say_json(mined.document() | {"arm": label, "accepted": kept, "rows": str(target / "rows.jsonl")})
        return
    say(*mined_lines(mined, label, str(wish.recipe.path) if wish.recipe else ""))
    _say_next(mined, target, kept, files)


def _choose_arm(arms: Mapping[str, Sequence[Record]], name: str | None, folder: Path) -> tuple[str, Sequence[Record]]:
    from agentft.strict import nearest

    if not arms:
        raise InputError(f"{folder}: it has no finished case; run the evaluation first")
    label = name or next(iter(arms))
    if label not in arms:
        raise InputError(f"--arm {label}: {folder} has no such arm; {nearest(label, list(arms))}")
    return label, arms[label]


def _training_files(folder: Path) -> list[Path]:
    """The data of the run that the evaluation is in (`<run>/eval/<hash>`); none if it is in no run."""
    from agentft.runs import RunFolder
    from agentft.training.recipe import read_resolved

    recipe = RunFolder(folder.resolve().parent.parent).recipe
    found = map(Path, read_resolved(recipe).data) if recipe.is_file() else ()
    return [path for path in found if path.is_file()]


def _recipe(name: str | None) -> BuildRecipe | None:
    from agentft.content import find_content
    from agentft.synthesis.recipe import read_build_recipe

    if name == "none":
        return None
    found = (find_content("datasets", file) for file in (name or _TEMPLATES, f"{name or _TEMPLATES}.toml"))
    path = next((path for path in found if path is not None and path.is_file()), None)
    if path is None:
        raise InputError(f"--templates {name}: there is no such recipe; give a TOML file, a shipped name, or none")
    return read_build_recipe(path)


def _write(mined: Mined, target: Path, context: typer.Context, *, review: bool) -> int:
    """Write review.md and rows.jsonl; returns how many rows are accepted. What was unticked before stays so."""
    from agentft.display.mining import proposal_lines, read_ticks, review_page
    from agentft.display.terminal import say
    from agentft.files import atomic_write, write_text

    ids = [str(one.row["id"]) for one in mined.proposals]
    page = target / "review.md"
    old = read_ticks(page.read_text(encoding="utf-8"), ids) if page.is_file() else {}
    ticks = {name: old.get(name, one.kind != "case") for name, one in zip(ids, mined.proposals, strict=True)}
    for name, proposal in zip(ids, mined.proposals, strict=True) if review else ():
        say(*proposal_lines(proposal), err=True)
        answer = typer.prompt("keep it? y, n, q", default="y" if ticks[name] else "n", err=True).strip().lower()
        if answer.startswith("q"):
            break
        ticks[name] = answer.startswith("y")
    write_text(page, review_page(mined, ticks, shlex.join(["agentft", *(context.find_root().obj or ())])))
    with atomic_write(target / "rows.jsonl") as stream:
        for name, proposal in zip(ids, mined.proposals, strict=True):
            if ticks[name]:
                stream.write(json.dumps(proposal.row, ensure_ascii=False) + "\n")
    return sum(ticks.values())


def _say_next(mined: Mined, target: Path, kept: int, files: Sequence[Path]) -> None:
    from agentft.display.terminal import say

    say(f"accepted: {kept}, in {target / 'rows.jsonl'}; go over them in {target / 'review.md'}, or with --review")
    kinds = {one.kind for one in mined.proposals}
    if "values" in kinds:
        say("note: rows of `values` keep the words of the evaluation; prove the next model on a suite that has others")
    if "case" in kinds:
        say("WARNING: rows of `case` are cases of the evaluation, which says nothing about a model trained on them")
    if kept:
        data = "".join(f" --data {shlex.quote(str(path))}" for path in (*files, target / "rows.jsonl"))
        say(f"next: agentft train{data}")
