"""Run folders: the names of their files, their status, and which run is `last`.

runs/<name>/  recipe.toml  format.json  data.json  metrics.jsonl  adapter/ (full: model/)  checkpoints/  eval/  log.txt
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any, Literal

from agentft.errors import InputError, MissingError
from agentft.files import DIGESTS, LOCK, find_damage, json_of, lock_folder, lock_holder, naming, read_object, write_text
from agentft.strict import read_bytes, read_toml
from agentft.types import Json

__all__ = ["RUNS", "FinishedRun", "RunFolder", "check_output", "find_finished", "find_run", "new_run", "next_folder"]

RUNS = Path("runs")
"""Where runs are kept, relative to the current folder."""

Status = Literal["empty", "unfinished", "finished"]


class RunFolder:
    """The files of one training run. A folder without recipe.toml is not a run."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / "recipe.toml"  # every setting, resolved
        self.format = path / "format.json"  # frame, call format, stop strings and hashes, which serving must match
        self.data = path / "data.json"  # how many rows were kept, why the others were rejected, the fingerprint
        self.metrics = path / "metrics.jsonl"  # one line for each optimizer step, and for each measurement
        self.checkpoints = path / "checkpoints"  # complete `checkpoint-<step>/` folders
        self.quarantine = path / "quarantine"  # rejected rows, one file for each data file that has some
        self.evaluations = path / "eval"
        self.log = path / "log.txt"
        self.trackers = path / "trackers.json"  # the ids of this run in the trackers of `report_to`
        self.output = path / "output.txt"  # what a detached run printed

    @property
    def status(self) -> Status:
        """`finished` once the adapter (or the model) exists, `empty` before the recipe is written."""
        if self.result is not None:
            return "finished"
        return "unfinished" if self.recipe.is_file() else "empty"

    @property
    def result(self) -> Path | None:
        """The trained adapter, or the model if all weights were trained; None if neither exists yet."""
        return next((path for path in (self.weights("lora"), self.weights("full")) if path.is_dir()), None)

    def find_damage(self) -> str | None:
        """A sentence about the damage of the finished result, None if it is intact or missing.

        A result of an older version has no digests; then only its files' presence is checked.
        """
        if self.result is None:
            return None
        files = sorted(path for path in self.result.iterdir() if path.is_file())
        if (self.result / DIGESTS).exists():
            return _find_damage(self.result, tuple((path.name, path.stat().st_mtime_ns) for path in files))
        if not any(path.suffix == ".safetensors" for path in files):
            return f"{self.result} has no weights (*.safetensors)"
        return None

    def weights(self, method: str) -> Path:
        """Where the result of a training method goes: `adapter/`, or `model/` for `full`."""
        return self.path / ("model" if method == "full" else "adapter")

    def holder(self) -> int | None:
        """The process that trains in this folder; None if there is none."""
        return lock_holder(self.path)

    def planned_steps(self) -> int:
        """The number of steps of the whole run; 0 if it is not known yet."""
        steps = _read(self.data).get("steps") if self.data.is_file() else 0
        return steps if isinstance(steps, int) else 0

    def lock(self) -> AbstractContextManager[None]:
        """Lock the folder for this process (see `lock_folder`)."""
        return lock_folder(self.path, "trained")

    def write_json(self, path: Path, document: Json) -> None:
        """Write one of the folder's documents atomically."""
        write_text(path, json.dumps(document, ensure_ascii=False, indent=2) + "\n")

    def add_metrics(self, line: Mapping[str, Any]) -> None:
        """Append the metrics of a step or a measurement and sync them to disk before any later checkpoint."""
        with naming(self.metrics), self.metrics.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(dict(line)) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def read_metrics(self) -> list[dict[str, Any]]:
        """The metrics of every step; a last line that a killed process left incomplete is ignored.

        Raises:
            InputError: another line is damaged.
        """
        return [row for row in self._read_lines() if "loss" in row]

    def read_measured(self) -> list[dict[str, Any]]:
        """The figures of every measurement between two steps, whose names start with `eval_`; see `read_metrics`."""
        return [row for row in self._read_lines() if "loss" not in row]

    def _read_lines(self) -> list[dict[str, Any]]:
        if not self.metrics.exists():
            return []
        rows = []
        for number, line in enumerate(self.metrics.read_bytes().split(b"\n")[:-1], 1):
            try:
                row = json_of(line)
                measured = any(name.startswith("eval_") for name in row)
                loss = {} if measured else {"loss": float(row["loss"])}
                rows.append({**row, "step": int(row["step"]), **loss})
            except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
                raise InputError(f"{self.metrics}:{number}: damaged line; restore the file, or train again") from None
        return rows

    def rewind(self, step: int) -> list[dict[str, Any]]:
        """Delete the metrics of all steps after `step`; returns those of the steps that remain."""
        kept = [line for line in self._read_lines() if line["step"] <= step]
        write_text(self.metrics, "".join(json.dumps(line) + "\n" for line in kept))
        return [line for line in kept if "loss" in line]

    def add_log(self, text: str) -> None:
        """Append a line with the time to log.txt."""
        with naming(self.log), self.log.open("a", encoding="utf-8") as stream:
            stream.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


@cache
def _find_damage(folder: Path, _stamps: tuple[tuple[str, int], ...]) -> str | None:
    """Cached while names and times of the files stay, because a command looks at the run several times."""
    return find_damage(folder)


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """What a finished run holds: its base model, its call format, and the adapter or model that was trained.

    `is_whole`: `weights` is a complete model, which replaces `model` instead of going on top of it. `is_rounded`: the
    base weights had only `bits` bits during training. `tools`: names of the tools in its data; empty if unknown or more
    than 64. `thinking`: it was trained on thoughts. `data`: its data files.
    """

    path: Path
    model: str
    call_format: str
    weights: Path
    is_whole: bool
    is_rounded: bool
    tools: tuple[str, ...]
    thinking: bool = False
    data: tuple[Path, ...] = ()
    bits: int = 4


@contextmanager
def new_run(name: str, output: str = "") -> Iterator[RunFolder]:
    """Make and lock a run folder: `output`, or the first unused `runs/<name>-<number>`.

    If the block ends before the recipe is written, or fails before the first step, what it wrote is removed. A folder
    that a killed process left without a recipe counts as unused.

    Raises:
        InputError: `output` is a file, a folder with other files in it, or in use.
    """
    with ExitStack() as locks:
        folder = _lock_output(Path(output), locks) if output else _lock_next(name, locks)
        try:
            yield folder
        except Exception:
            if not folder.metrics.exists():
                folder.recipe.unlink(missing_ok=True)
            raise
        finally:
            if folder.status == "empty":
                _clear(folder)


def next_folder(name: str, output: str = "") -> RunFolder:
    """Make the folder of a run that another process will write: `output`, or the first `runs/<name>-<number>`."""
    path = Path(output) if output else next(one for one in _numbered(name) if not one.exists())
    path.mkdir(parents=True, exist_ok=True)
    (path / LOCK).touch()  # otherwise the folder would be the user's
    return RunFolder(path)


def check_output(output: str) -> None:
    """Check that `output` can become a run folder; "": that `runs` can hold one.

    Raises:
        InputError: it is a file, a folder with other files in it, or cannot be made.
    """
    path = Path(output or RUNS)
    place = next(one for one in (path, *path.absolute().parents) if one.exists())
    if not (place.is_dir() and os.access(place, os.W_OK)):
        why = "no files can be made in this folder" if place.is_dir() else "this is a file"
        raise InputError(f"{path}: {place}: {why}; choose another --output")
    if output and not _is_unused(RunFolder(path)):
        raise InputError(f"{path} already exists and is not empty; choose another --output, or use --resume {path}")


def _lock_output(path: Path, locks: ExitStack) -> RunFolder:
    folder, made = RunFolder(path), not path.exists()
    check_output(str(path))
    path.mkdir(parents=True, exist_ok=True)
    if made:
        locks.callback(_remove_if_empty, path)
    locks.enter_context(folder.lock())
    if not _is_unused(folder):  # another process may have finished in the meantime
        raise InputError(f"{path} was just written by another process; choose another --output")
    return folder


def _numbered(name: str) -> Iterator[Path]:
    return (RUNS / f"{name}-{number}" for number in count(1))


def _lock_next(name: str, locks: ExitStack) -> RunFolder:
    for path in _numbered(name):
        with suppress(InputError):  # the folder is used
            return _lock_output(path, locks)
    raise AssertionError("there is no last number")


def _is_unused(folder: RunFolder) -> bool:
    """Whether the folder is missing, empty, or left by a killed process: a lock, and what precedes the recipe.

    A folder without our lock is the user's, whatever its files are called.
    """
    if not folder.path.exists():
        return True
    if not folder.path.is_dir():
        return False
    names = {entry.name for entry in folder.path.iterdir()}
    early = {LOCK, *(path.name for path in (folder.format, folder.data, folder.log, folder.quarantine, folder.output))}
    return not names or (LOCK in names and all(name in early or name.endswith(".partial") for name in names))


def _clear(folder: RunFolder) -> None:
    for entry in folder.path.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _remove_if_empty(path: Path) -> None:
    with suppress(OSError):
        path.rmdir()


def find_run(name: str) -> RunFolder:
    """The run with this name or path (of the folder or a file in it); `last` is the newest, finished or not.

    Raises:
        InputError: there is no such run.
    """
    if name == "last":
        runs = sorted(RUNS.glob("*/recipe.toml"), key=lambda recipe: (recipe.stat().st_mtime_ns, recipe.parent.name))
        if not runs:
            raise InputError(f"there is no run in {RUNS}/; train one first, or give the path of a run folder")
        return RunFolder(runs[-1].parent)
    for path in (Path(name), RUNS / name):
        for folder in (path, path.parent, path.parent.parent):
            if path.exists() and (folder / "recipe.toml").is_file():
                return RunFolder(folder)
    raise InputError(f"{name} is not a run folder (it has no recipe.toml); give a folder of {RUNS}/, or `last`")


def find_finished(name: str, root: Path = RUNS) -> FinishedRun:
    """The finished run with this name or path; `last` is the one that finished last.

    Raises:
        InputError: there is no such run, it is unfinished, or its files are damaged.
        MissingError: `last`, and no run has finished yet.
    """
    path = _last_finished(root) if name == "last" else next((p for p in (Path(name), root / name) if p.is_dir()), None)
    if path and path.name in ("adapter", "model") and RunFolder(path.parent).recipe.is_file():
        path = path.parent  # the folder of weights, which `agentft train` prints
    if path is None:
        raise InputError(f"there is no run {name!r}; give a run folder, or train one with `agentft train`")
    run = RunFolder(path)
    if run.result is None:
        remedy = "merge the adapter of another tool into its model, and give that as --model"
        remedy = f"continue it with: agentft train --resume {path}" if run.recipe.is_file() else remedy
        raise InputError(f"{path} is not a finished run (it has no adapter/ or model/); {remedy}")
    if damage := run.find_damage():
        raise InputError(f"{damage}; restore it from a copy, or make it again: agentft train --resume {path}")
    recipe, form = _read(run.recipe, "model", "method"), _read(run.format, "call_format")
    names = read_object(run.data).get("tools")  # older versions did not record them; only a default depends on them
    return FinishedRun(
        path=path,
        model=recipe["model"],
        call_format=form["call_format"],
        weights=run.result,
        is_whole=run.result == run.weights("full"),
        is_rounded=recipe["method"] == "qlora",
        tools=_texts(names),
        thinking=form.get("thinking") is True,
        data=tuple(map(Path, _texts(recipe.get("data")))),
        bits=recipe.get("bits", 4),
    )


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list) else ()


def _last_finished(root: Path) -> Path:
    results = [path for path in (*root.glob("*/adapter"), *root.glob("*/model")) if path.is_dir()]
    if not results:
        raise MissingError(f"no run in {root}/ has finished yet; train one with `agentft train`")
    return max(results, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def _read(path: Path, *texts: str) -> dict[str, Any]:
    """A TOML or JSON document, which must have these texts; empty if it is not an object."""
    remedy = "give a run folder of `agentft train`"
    try:
        table = read_toml(path, remedy) if path.suffix == ".toml" else json_of(read_bytes(path, remedy))
    except ValueError as error:
        raise InputError(f"{path}: the file is corrupt ({error}); train again") from None
    table = table if isinstance(table, dict) else {}
    if missing := [key for key in texts if not isinstance(table.get(key), str)]:
        raise InputError(f"{path}: `{missing[0]}` is missing; {remedy}")
    return table
