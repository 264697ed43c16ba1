"""`agentft doctor`: checks the installation and the machine, with a remedy for each failed check."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import agentft
from agentft.commands.endpoints import AllowHttp, EndpointUrl, PromptTokenizer, choose_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentft.models.transport import Endpoint

__all__ = ["Check", "check_all", "doctor_command"]

FOREIGN = "agentft"
"""A distribution of another project on the package index, an evaluation harness; ours is `agentft-suite`."""

# Each probe runs in its own process, so that a broken library becomes a failed check and does not end the command.
TORCH = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
bf16 = bool(gpus) and torch.cuda.is_bf16_supported()
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(), "bf16": bf16,
                  "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus]}))
"""
BITSANDBYTES = """
import torch, bitsandbytes
packed, state = bitsandbytes.functional.quantize_4bit(torch.ones(64, 64), quant_type="nf4")
assert bitsandbytes.functional.dequantize_4bit(packed, state).shape == (64, 64)
print('"' + bitsandbytes.__version__ + '"')
"""


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. `remedy`: what to do if it is not `good`."""

    name: str
    good: bool
    found: str
    remedy: str = ""


def doctor_command(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    model: Annotated[str | None, typer.Option(help="Check calls with this model; see `chat --model`.")] = None,
    adapter: Annotated[str | None, typer.Option(help="Check calls with the model of this run.")] = None,
    endpoint: EndpointUrl = None,
    tokenizer: PromptTokenizer = None,
    allow_http: AllowHttp = False,
) -> None:
    """Check the installation and the machine, or a model's calls, and show a remedy for each failed check.

    With --model or --endpoint: a call, two calls, a result, a stop and twenty awkward arguments make the round trip.

    Example:
      agentft doctor
      agentft doctor --endpoint http://localhost:8000/v1
    """
    from rich.text import Text

    from agentft.display.safe import safe_line
    from agentft.display.terminal import open_console, say, say_json

    checks: Iterable[Check]
    if endpoint or model or adapter or tokenizer:
        checks = _check_calls(model, adapter, choose_endpoint(endpoint, allow_http=allow_http, tokenizer=tokenizer))
    else:
        checks = check_all()
    if as_json:
        say_json({"checks": [asdict(check) for check in checks]}, indent=2)
        return
    console = open_console()
    for check in checks:
        mark = ("ok  ", "green") if check.good else ("--  ", "yellow")
        console.print(Text.assemble(mark, f"{check.name:<13} ", safe_line(check.found)), soft_wrap=True)
        if not check.good:
            say(f"{'':18}{check.remedy}")


def _check_calls(model: str | None, adapter: str | None, endpoint: Endpoint | None) -> Iterator[Check]:
    from agentft.display.pulling import ensure_pulled
    from agentft.models.endpoint import open_served
    from agentft.models.opening import open_model
    from agentft.models.round_trip import round_trip

    if endpoint is not None:
        served = open_served(endpoint, model, adapter)
        try:
            yield Check("endpoint", True, served.name)
            if endpoint.tokenizer:
                yield from _compare_templates(endpoint, model)
            yield from (Check(*astuple(trip)) for trip in round_trip(served))
        finally:
            served.close()
        return
    if model:
        ensure_pulled(model)
    opened = open_model(model, adapter)
    yield Check("model", True, opened.name)
    yield from (Check(*astuple(trip)) for trip in round_trip(opened))


def _compare_templates(endpoint: Endpoint, model: str | None) -> Iterator[Check]:
    """Send messages, so that the server writes the prompts, and compare them with ours."""
    from agentft.models.endpoint import open_served
    from agentft.models.prompting import open_prompting
    from agentft.models.round_trip import compare_templates

    prompting = open_prompting(endpoint.tokenizer)
    served = open_served(replace(endpoint, tokenizer=""), model, call_format=prompting.rendering.name)
    try:
        yield from (Check(*astuple(trip)) for trip in compare_templates(served, prompting))
    finally:
        served.close()


def check_all() -> list[Check]:
    """Run every check; they are shown in this order."""
    libraries = map(_library, ("transformers", "peft", "datasets"))
    return [_python(), _distribution(), *_torch(), _bitsandbytes(), *libraries, _memory(), _disk(), _model()]


def _probe(code: str) -> tuple[object, str]:
    """Run a small program. Returns the JSON that it prints and "", or None and the last line of its stderr."""
    try:
        done = subprocess.run(  # noqa: S603  (our own code above)
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), ""
    except (subprocess.TimeoutExpired, ValueError, IndexError) as error:
        return None, str(error)
    return None, (done.stderr.strip().splitlines() or [f"exited with code {done.returncode}"])[-1][:160]


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _distribution() -> Check:
    from importlib.metadata import PackageNotFoundError, version

    remedy = f"`pip uninstall {FOREIGN}`, then install agentft again: both own the package and the command `agentft`"
    try:
        found = f"{FOREIGN} {version(FOREIGN)} is installed, which is not this project"
    except PackageNotFoundError:
        return Check("distribution", True, f"{agentft.__name__} {agentft.__version__} from agentft-suite")
    return Check("distribution", False, found, remedy)


def _torch() -> list[Check]:
    found, problem = _probe(TORCH)
    if not isinstance(found, dict):
        return [Check("torch", False, problem, "run `make venv` again, or `pip install torch`")]
    torch = Check("torch", True, f"{found['version']}, {found['threads']} threads")
    if found["gpus"]:
        return [torch, Check("gpu", True, "; ".join(found["gpus"]) + (", bfloat16" if found["bf16"] else ""))]
    remedy = "the quickstart runs on the CPU; models above about 1B parameters need an NVIDIA GPU"
    if shutil.which("nvidia-smi"):
        remedy = "nvidia-smi works, so this may be the CPU build of PyTorch: `pip install --force-reinstall torch`"
    return [torch, Check("gpu", False, "none that PyTorch can use", remedy)]


def _bitsandbytes() -> Check:
    found, problem = _probe(BITSANDBYTES)
    remedy = "`pip install bitsandbytes`; until then train with --method lora and chat with --bits 16"
    return Check("bitsandbytes", found is not None, f"{found}, 4-bit works" if found else problem, remedy)


def _library(name: str) -> Check:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return Check(name, True, version(name))
    except PackageNotFoundError:
        return Check(name, False, "not installed", f"`pip install {name}`")


def _memory() -> Check:
    """Free memory, capped at the container's limit; "unknown" where the system does not report it."""
    lines = _text(Path("/proc/meminfo")).splitlines()
    table = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if len(line.split()) > 1}
    free, total = table.get("MemAvailable", 0), table.get("MemTotal", 0)
    limit, used = _text(Path("/sys/fs/cgroup/memory.max")), _text(Path("/sys/fs/cgroup/memory.current"))
    if limit.strip().isdigit() and used.strip().isdigit():
        total = min(total, int(limit))
        free = min(free, int(limit) - int(used))
    found = f"{free / 2**30:.1f} GiB free of {total / 2**30:.1f} GiB" if total else "unknown"
    return Check("memory", not total or free > 4.5 * 2**30, found, "the quickstart needs 4.4 GiB; close other programs")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _disk() -> Check:
    from agentft.models.embedded import NEEDED_SPACE
    from agentft.models.wheels import cache_folder

    folder = cache_folder()
    here = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    free, writable = shutil.disk_usage(here).free, os.access(here, os.W_OK)
    found = f"{free / 1e9:.1f} GB free at {folder}" + ("" if writable else ", which is not writable")
    remedy = f"free {NEEDED_SPACE / 1e9:.1f} GB there, or set AGENTFT_CACHE to another folder"
    return Check("cache", writable and free > NEEDED_SPACE, found, remedy)


def _model() -> Check:
    from agentft.models.embedded import EMBEDDED, is_pulled, model_folder

    name = next(iter(EMBEDDED))
    found = str(model_folder(name)) if is_pulled(name) else "not downloaded"
    return Check(name, is_pulled(name), found, f"`agentft models pull {name}`; its first use also downloads it")
