"""From what a user names (`--model`, `--adapter`) to a backend, and what a run folder says about its model.

A run folder holds `recipe.toml` (its `model` and `method`), `format.json` (its `call_format`), `data.json` (its
`tools`) and `adapter/`, or `model/` if all weights were trained.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentft.calls import call_format
from agentft.errors import InputError, MissingError
from agentft.models import Backend
from agentft.models.scripted import ScriptedBackend, read_answers
from agentft.rendering.frame import Frame
from agentft.rendering.render import describe

__all__ = ["DEFAULT_MODEL", "TunedRun", "check_rendering", "doubt_bits", "find_tuned", "identify", "open_backend"]

DEFAULT_MODEL = "smollm2-135m"
SCRIPTED = "scripted"
ADAPTER, WHOLE = "adapter", "model"
"""What a finished run holds: one of these folders."""


@dataclass(frozen=True, slots=True)
class TunedRun:
    """What a finished training run left: the model it started from, its call format, and its adapter or whole model.

    `is_whole`: `adapter` is a whole model, to be opened instead of `model` rather than on top of it. `is_rounded`: it
    was trained on weights of 4 bits, and so belongs on those. `tools`: names of those that its data declared; none if
    it is not known, or they are very many.
    """

    path: Path
    model: str
    call_format: str
    adapter: Path
    is_whole: bool
    is_rounded: bool
    tools: tuple[str, ...]


def find_tuned(name: str, root: Path = Path("runs")) -> TunedRun:
    """The run folder of that path or name; `last` is the newest finished run under `root`.

    Raises:
        InputError: there is no such run, or its files cannot be used.
    """
    path = _newest(root) if name == "last" else next((p for p in (Path(name), root / name) if p.is_dir()), None)
    if path is None:
        raise InputError(f"there is no run {name!r}; give a run folder, or train one with `agentft train`")
    kind = next((kind for kind in (ADAPTER, WHOLE) if (path / kind).is_dir()), None)
    if kind is None:
        raise InputError(
            f"{path}: it holds no adapter/ (nor model/); the run did not finish, so go on with it: "
            f"agentft train --resume {path}"
        )
    return TunedRun(
        path=path,
        model=_text(path / "recipe.toml", "model"),
        call_format=_text(path / "format.json", "call_format"),
        adapter=path / kind,
        is_whole=kind == WHOLE,
        is_rounded=_text(path / "recipe.toml", "method") == "qlora",
        tools=_tools(path / "data.json"),
    )


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
    run = find_tuned(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    from agentft.models.hf import HfBackend  # torch and transformers take seconds

    if run is None:
        return HfBackend.open(name, None, bits)
    if run.is_whole:
        backend = HfBackend.open(str(run.adapter), None, bits)
    else:
        backend = HfBackend.open(name, run.adapter, bits, rounded=run.is_rounded)
    check_rendering(run, backend.frame, name)
    return backend


def doubt_bits(adapter: str | None, bits: int) -> str | None:
    """A sentence for the user if `bits` puts a run on other weights than it was trained on.

    Raises:
        InputError: the run cannot be used.
    """
    run = find_tuned(adapter) if adapter else None
    if run is None or bits == 16 or (bits == 4 and run.is_rounded):
        return None
    return (
        f"{run.path} was trained on {'4-bit' if run.is_rounded else 'unrounded'} weights and is now put on {bits}-bit "
        "ones: small models lose much by it; --bits 16 gives it the weights that it was trained on"
    )


def check_rendering(run: TunedRun, frame: Frame, model: str) -> None:
    """Refuse a model whose text would be rendered otherwise than the run's was: it would only score worse.

    Raises:
        InputError: the chat template, the system text or the stop rule is not what `format.json` says.
    """
    place = run.path / "format.json"
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
    run = find_tuned(adapter) if adapter else None
    name = model or (run.model if run else DEFAULT_MODEL)
    shown = f"{name}+{run.path.resolve().name}" if run else name
    source = Path(name.removeprefix(f"{SCRIPTED}:"))
    parts = [name, f"{bits} bits", *(_listing(source) if source.exists() else [])]
    if run and run.is_whole:
        parts += _listing(run.adapter)
    elif run:
        parts += ["rounded"] if run.is_rounded else []
        parts += [f"{path.name} {_sha(path)}" for path in sorted(run.adapter.iterdir()) if path.is_file()]
    return shown, hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _newest(root: Path) -> Path:
    done = [path for kind in (ADAPTER, WHOLE) for path in root.glob(f"*/{kind}") if path.is_dir()]
    if not done:
        raise MissingError(f"there is no finished run under {root}/ yet; train one with `agentft train`")
    return max(done, key=lambda path: (path.stat().st_mtime_ns, path.parent.name)).parent


def _text(path: Path, key: str) -> str:
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text) if path.suffix == ".toml" else json.loads(text)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); give a run folder of `agentft train`") from None
    except ValueError as error:
        raise InputError(f"{path}: it is damaged ({error}); train again") from None
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, str):
        raise InputError(f"{path}: `{key}` is missing; give a run folder of `agentft train`")
    return value


def _tools(path: Path) -> tuple[str, ...]:
    """Only a default hangs on them, so a run of an earlier version, which did not note them, has none."""
    try:
        names = json.loads(path.read_text(encoding="utf-8"))["tools"]
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(str(name) for name in names) if isinstance(names, list) else ()


def _listing(path: Path) -> Iterator[str]:
    """A model's folder by names, sizes and times: hashing gigabytes at every evaluation is not worth it."""
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    for file in files:
        if file.is_file():
            yield f"{file.name} {file.stat().st_size} {file.stat().st_mtime_ns}"


def _sha(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
