"""`agentft eval derive`: suites that show whether a model understands its tools or remembers its training."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from agentft.content import split_names
from agentft.errors import InputError

__all__ = ["derive_command"]

Out = Annotated[Path, typer.Option("--out", help="Folder for the derived suites, a folder each.")]
Transforms = Annotated[str | None, typer.Option(help="Comma-separated: renamed, shuffled, ... Default: all that suit.")]
Tools = Annotated[str | None, typer.Option(help="Worlds of the suite with a tools.py of your own, comma-separated.")]


def derive_command(
    suite: Annotated[str, typer.Argument(help="A suite: a shipped name, or a folder.")],
    out: Out = Path("derived"),
    transforms: Transforms = None,
    tools: Tools = None,
    seed: Annotated[int, typer.Option(help="Seed of every choice.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Derive suites from a suite: tools renamed, reordered, undescribed, missing or among decoys; requests with typos.

    Example:
      agentft eval derive basics --out derived --transforms renamed,distractors-10
    """
    from agentft.commands.evaluate import choose_cases
    from agentft.display.terminal import say, say_json
    from agentft.evaluation.deriving import TRANSFORMS, derive
    from agentft.files import path_argument
    from agentft.strict import counted
    from agentft.toolset import load_toolset, shipped_worlds, stdout_to_stderr

    plan = choose_cases([suite], tools, None)
    (loaded,) = plan.suites
    if loaded.of:
        raise InputError(f"{loaded.folder} is derived from {loaded.of}; derive from that suite")
    if len({case.tools for case in loaded.cases}) > 1:
        raise InputError(f"{loaded.folder}: each case has its own tools; only suites with the same tools are derived")
    names = split_names(transforms) or list(TRANSFORMS)
    own = {tool for toolset in plan.toolsets for tool in toolset.tools}
    more = any(name.startswith(("distractors", "missing")) for name in names)
    others = [load_toolset(name) for name in shipped_worlds() if more and name not in loaded.worlds]
    others = [toolset for toolset in others if not own & toolset.tools.keys()]
    made = []
    with stdout_to_stderr():  # for handlers that print
        for one in derive(plan, loaded, names, others, out, seed=seed):
            made.append(one)
            rest = f", {one.left_out} left out" * bool(one.left_out)
            say(f"{one.folder}: {counted(one.cases, 'case')}{rest}", err=True)
    if left := [name for name in names if name not in {one.transform for one in made}]:
        say(f"no case can be derived by {', '.join(left)}", err=True)
    if as_json:
        say_json({"suite": loaded.name, "derived": [asdict(one) | {"folder": str(one.folder)} for one in made]})
        return
    folders = " ".join(shlex.quote(path_argument(one.folder)) for one in made)
    added = dict.fromkeys(world for one in made for world in one.worlds)
    worlds = f" --tools {shlex.quote(','.join([tools, *added]))}" if tools else ""
    say(f"next: agentft eval {shlex.quote(suite)} {folders}{worlds} --model MODEL")
