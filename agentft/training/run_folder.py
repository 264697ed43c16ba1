"""A run's folder: what is in it, how it is found again, and its `metrics.jsonl`.

runs/<name>/  recipe.toml  format.json  data.json  metrics.jsonl  adapter/ (full: model/)  checkpoints/  log.txt
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import asdict
from itertools import count
from pathlib import Path

from agentft.errors import InputError
from agentft.files import atomic_write, write_text
from agentft.training.events import StepDone
from agentft.types import Json

__all__ = ["RUNS", "RunFolder", "find_run", "new_run"]

RUNS = Path("runs")


class RunFolder:
    """The files of a run: a folder without `recipe` is none."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"  # resolved
        self.format = path / "format.json"  # frame, call format, stop rule and hashes: what serving must know
        self.data = path / "data.json"  # the account of the rows, and their fingerprint
        self.metrics = path / "metrics.jsonl"  # a line for each optimizer step
        self.checkpoints = path / "checkpoints"  # `checkpoint-<step>/` folders, each complete
        self.quarantine = path / "quarantine"  # the rejected rows, a file for each data file that has some

    def weights(self, method: str) -> Path:
        """Where the result goes: `adapter/`, or `model/` when all weights were trained."""
        return self.path / ("model" if method == "full" else "adapter")

    def write_json(self, path: Path, document: Json) -> None:
        """Atomically write a document of this folder."""
        write_text(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def add_step(self, step: StepDone) -> None:
        """Append a step's line, and have it on the disk before a checkpoint may follow."""
        with self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(asdict(step)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def add_log(self, text: str) -> None:
        """Append a line with the time to `log.txt`."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")

    def read_steps(self) -> list[StepDone]:
        """The steps so far; a line that a killed process left half written is none."""
        if not self.metrics.exists():
            return []
        lines = self.metrics.read_text(encoding="utf-8").split("\n")[:-1]
        return [StepDone(**json.loads(line)) for line in lines]

    def rewind(self, step: int) -> list[StepDone]:
        """Forget the steps after `step`, which will be done again; the steps that stay."""
        kept = [done for done in self.read_steps() if done.step <= step]
        with atomic_write(self.metrics) as stream:
            stream.writelines(json.dumps(asdict(done)) + "\n" for done in kept)
        return kept


def new_run(name: str, output: str = "") -> RunFolder:
    """Make an empty run folder: `output`, or the first free `runs/<name>-<number>`.

    Raises:
        InputError: `output` is a file, or a folder with something in it.
    """
    if output:
        path = Path(output)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise InputError(f"{path} exists already and is not empty; name another --output, or use --resume {path}")
        path.mkdir(parents=True, exist_ok=True)
        return RunFolder(path)
    RUNS.mkdir(parents=True, exist_ok=True)
    for number in count(1):
        path = RUNS / f"{name}-{number}"
        with suppress(FileExistsError):
            path.mkdir()
            break
    return RunFolder(path)


def find_run(name: str) -> RunFolder:
    """The run that `last`, a name under runs/, or a path (of a run, or of something in it) means.

    Raises:
        InputError: there is none.
    """
    if name == "last":
        runs = sorted(RUNS.glob("*/recipe.toml"), key=lambda recipe: (recipe.stat().st_mtime_ns, recipe.parent.name))
        if not runs:
            raise InputError("there is no run in runs/ here; train one first, or give the path of a run folder")
        return RunFolder(runs[-1].parent)
    for path in (Path(name), RUNS / name):
        for folder in (path, path.parent, path.parent.parent):
            if path.exists() and (folder / "recipe.toml").is_file():
                return RunFolder(folder)
    raise InputError(f"{name} is no run folder (no recipe.toml in it); give a folder of runs/, or `last`")
