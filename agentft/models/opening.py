"""From what a user names (`--model`, `--adapter`) to a backend, and whether a run's rendering fits its model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

from agentft.calls import call_format
from agentft.errors import InputError
from agentft.models import Backend
from agentft.models.scripted import ScriptedBackend, read_answers
from agentft.rendering.frame import Frame
from agentft.rendering.render import describe
from agentft.runs import FinishedRun, RunFolder, find_finished

__all__ = ["DEFAULT_MODEL", "check_rendering", "doubt_bits", "identify", "open_backend"]

DEFAULT_MODEL = "smollm2-135m"
SCRIPTED = "scripted"


def open_backend(model: str | None, adapter: str | None = None, bits: int = 16) -> Backend:
    """Load a model, with a run's adapter on top if one is named.

    Args:
        model: a folder, a hub id, an embedded name, or `scripted:FILE`; None: the adapter's, or the default.
        adapter: a run folder, or `last`. What full training left is opened alone, and `model` is not needed.
        bits: 4, 8 or 16.

    Raises:
        InputError: the run or the answers file cannot be used, or the run was trained on other text than this model's.
        MissingError: the model is not here.
    """
    kind, _, answers = (model or "").partition(":")
    if kind == SCRIPTED:
        if adapter:
            raise InputError("scripted answers have no adapter; leave --adapter out")
        if not answers:
            raise InputError("the answers of `scripted` come from a file here: --model scripted:FILE")
        return ScriptedBackend(read_answers(Path(answers)), answers)
    run = find_finished(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    from agentft.models.hf import HfBackend  # torch and transformers take seconds

    if run is None:
        return HfBackend.open(name, None, bits)
    if run.is_whole:
        backend = HfBackend.open(str(run.weights), None, bits)
    else:
        backend = HfBackend.open(name, run.weights, bits, rounded=run.is_rounded)
    check_rendering(run, backend.frame, name)
    return backend


def doubt_bits(adapter: str | None, bits: int) -> str | None:
    """A sentence for the user if `bits` puts a run on other weights than it was trained on.

    Raises:
        InputError: the run cannot be used.
    """
    run = find_finished(adapter) if adapter else None
    if run is None or bits == 16 or (bits == 4 and run.is_rounded):
        return None
    return (
        f"{run.path} was trained on {'4-bit' if run.is_rounded else 'unrounded'} weights and is now put on {bits}-bit "
        "ones: small models lose much by it; --bits 16 gives it the weights that it was trained on"
    )


def check_rendering(run: FinishedRun, frame: Frame, model: str) -> None:
    """Refuse a model whose text would be rendered otherwise than the run's was: it would only score worse.

    Raises:
        InputError: the chat template, the system text or the stop rule is not what `format.json` says.
    """
    place = RunFolder(run.path).format
    stored = json.loads(place.read_text(encoding="utf-8"))
    now = describe(call_format(run.call_format), frame)
    for key in ("frame_sha256", "stop", "system_sha256"):
        if key in stored and stored[key] != now[key]:
            if key == "frame_sha256" and model != run.model:
                remedy = f"leave --model out, or give {run.model}"
            else:
                remedy = "the model's template or agentft has changed since the training; train again"
            raise InputError(f"{place}: {key} is not that of {model}, so prompts would differ from training; {remedy}")


def identify(model: str | None, adapter: str | None, bits: int) -> tuple[str, str]:
    """A backend's name for reports, and all that its answers depend on: names, and hashes of what is in files here.

    Raises:
        InputError: the run cannot be used.
    """
    run = find_finished(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    shown = f"{name}+{run.path.resolve().name}" if run else name
    source = Path(name.removeprefix(f"{SCRIPTED}:"))
    parts = [name, f"{bits} bits", *(_listing(source) if source.exists() else [])]
    if run and run.is_whole:
        parts += _listing(run.weights)
    elif run:
        parts += ["rounded"] if run.is_rounded else []
        parts += [f"{path.name} {_sha(path)}" for path in sorted(run.weights.iterdir()) if path.is_file()]
    return shown, hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _listing(path: Path) -> Iterator[str]:
    """A model's folder by names, sizes and times: hashing gigabytes at every evaluation is not worth it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            yield f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
