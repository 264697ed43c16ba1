"""Opens the model that a user names (`--model`, `--adapter`), unless its rendering differs from the run's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from agentft.errors import InputError
from agentft.files import digest_of, json_of, read_object
from agentft.models import Model
from agentft.models.embedded import EMBEDDED, resolve
from agentft.models.local import LocalModel
from agentft.models.scripted import ScriptedModel, read_answers
from agentft.rendering import open_rendering, rendering_digest
from agentft.runs import FinishedRun, RunFolder, find_finished
from agentft.types import Json

__all__ = [
    "DEFAULT_FORMAT",
    "DEFAULT_MODEL",
    "SCRIPTED",
    "base_sample",
    "check_base",
    "check_rendering",
    "doubt_bits",
    "identify",
    "open_model",
]

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_FORMAT = "msagent"
SCRIPTED = "scripted"


def open_model(
    model: str | None,
    adapter: str | None = None,
    bits: int = 16,
    call_format: str | None = None,
    prefixes: Path | None = None,
) -> Model:
    """Load a model, with a run's adapter if one is named.

    Args:
        model: a folder, a hub id, an embedded name, or `scripted:FILE`; None: the adapter's model, or the default.
        adapter: a run folder, or `last`. For a run of full training, `model` is not used.
        bits: 4, 8, 16 or 32.
        call_format: a call format's name; None: the adapter's, or the default.
        prefixes: the folder in which the first prefix is kept; None: it is not.

    Raises:
        InputError: the run or the answers file cannot be used, or the run was trained with another rendering.
        MissingError: the model is not on this machine.
    """
    kind, _, answers = (model or "").partition(":")
    if kind == SCRIPTED:
        if adapter:
            raise InputError("scripted answers have no adapter; omit --adapter")
        if not answers:
            raise InputError("scripted answers come from a file: --model scripted:FILE")
        return ScriptedModel(read_answers(Path(answers)), answers, call_format or DEFAULT_FORMAT)
    run = find_finished(adapter) if adapter else None
    fmt = call_format or (run.call_format if run else DEFAULT_FORMAT)
    name = model or (run.model if run else DEFAULT_MODEL)
    if name not in EMBEDDED and not (run and run.is_whole):
        resolve(name)  # a folder that does not exist is refused before the imports
    from agentft.models.hf import HfEngine  # torch and transformers take seconds

    if run is None:
        engine = HfEngine.open(name, None, bits)
    elif run.is_whole:
        engine = HfEngine.open(str(run.weights), None, bits)
    else:
        engine = HfEngine.open(name, run.weights, bits, rounded=run.bits * run.is_rounded)
    if prefixes is not None:
        engine.keep_prefix(prefixes, identify(model, adapter, bits, call_format)[1])
    if run is not None:
        if model is None and not run.is_whole:
            check_base(RunFolder(run.path), name)
        check_rendering(run, open_rendering(run.call_format, engine.tokenizer).describe(), name)
    return LocalModel(engine, open_rendering(fmt, engine.tokenizer, thinking=run is not None and run.thinking))


def doubt_bits(adapter: str | None, bits: int) -> str | None:
    """A warning if `bits` loads base weights that differ from those the adapter was trained on; else None.

    Raises:
        InputError: the run cannot be used.
    """
    run = find_finished(adapter) if adapter else None
    if run is None or bits >= 16 or (bits == run.bits and run.is_rounded):
        return None
    trained = f"{run.bits}-bit" if run.is_rounded else "unrounded"
    return (
        f"{run.path} was trained on {trained} weights and is now loaded on "
        f"{bits}-bit weights, which costs small models much of their accuracy; use --bits 16 for those of the training"
    )


def check_rendering(run: FinishedRun, rendering: Mapping[str, Json], model: str) -> None:
    """Reject a model whose prompts would differ from the run's training prompts, which would lower its scores.

    Args:
        rendering: `Rendering.describe()` of the model to serve, in the run's call format.

    Raises:
        InputError: the chat template, the system text or the stop strings differ from those in `format.json`.
    """
    path = RunFolder(run.path).format
    stored = json_of(path.read_bytes())
    for key in ("frame_sha256", "stop", "system_sha256"):
        if key in stored and stored[key] != rendering[key]:
            if key == "frame_sha256" and model != run.model:
                remedy = f"omit --model, or use {run.model}"
            else:
                remedy = "the model's template or agentft has changed since the training; train again"
            raise InputError(f"{path}: {key} differs from {model}'s, so prompts would not match training; {remedy}")


def base_sample(model: str) -> str:
    """A SHA-256 of samples of the weights in a model's folder, since hashing all takes too long; empty without any."""
    digest, files = hashlib.sha256(), sorted(Path(model).expanduser().glob("*.safetensors"))
    for path in files:
        with path.open("rb") as stream:
            for place in range(0, path.stat().st_size, path.stat().st_size // 64 + 1):
                stream.seek(place)
                digest.update(stream.read(1 << 16))
    return digest.hexdigest() if files else ""


def check_base(run: RunFolder, model: str) -> None:
    """Reject a base model whose weights have changed since the run began.

    Raises:
        InputError: see above.
    """
    known = read_object(run.format).get("base_sample")  # older versions did not record it
    if known and base_sample(model) not in ("", known):
        raise InputError(f"the weights in {model} have changed since {run.path} began; restore them, or train anew")


def identify(model: str | None, adapter: str | None, bits: int, call_format: str | None = None) -> tuple[str, str]:
    """A model's name for reports, and a hash of everything its answers depend on (weights, bits, call format).

    This does not load the model.

    Raises:
        InputError: the run cannot be used, or there is no such call format.
    """
    run = find_finished(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    shown = f"{name}+{run.path.resolve().name}" if run else name
    source = Path(name.removeprefix(f"{SCRIPTED}:"))
    rendering = rendering_digest(call_format or (run.call_format if run else DEFAULT_FORMAT))
    parts = [name, rendering, f"{bits} bits", *(_listing(source) if source.exists() else [])]
    if run and run.is_whole:
        parts += _listing(run.weights)
    elif run:
        parts += ["rounded" if run.bits == 4 else f"rounded {run.bits}"] if run.is_rounded else []
        parts += [f"{path.name} {digest_of(path)}" for path in sorted(run.weights.iterdir()) if path.is_file()]
    return shown, hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _listing(path: Path) -> Iterator[str]:
    """A model's files by name, size and time, because hashing gigabytes for every evaluation would take too long."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            yield f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"
