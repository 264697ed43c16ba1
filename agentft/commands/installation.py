"""What `agentft doctor` finds out about this machine and its libraries; each finding has a remedy.

Heavy libraries are imported in child processes only, all at once and with a time limit, so that a broken one is a
failed check and a slow one costs no more than the limit.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement

import agentft
from agentft.models.round_trip import Check

__all__ = ["check_all", "check_devices", "check_space", "check_versions", "describe_links", "probe"]

FOREIGN = "agentft"
"""A distribution of another project on the package index, an evaluation harness; ours is `agentft-suite`."""

SECONDS = 90
"""Time limit of a probe; they run at once."""
GPUS = """
import json, torch
count = torch.cuda.device_count() if torch.cuda.is_available() else 0
gpus = [torch.cuda.get_device_properties(index) for index in range(count)]
pairs = [(one, two) for one in range(count) for two in range(count) if one != two]
print(json.dumps({"version": torch.__version__, "threads": torch.get_num_threads(),
                  "bf16": bool(gpus) and torch.cuda.is_bf16_supported(),
                  "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
                  "flash": bool(gpus) and all(gpu.major >= 8 for gpu in gpus),
                  "peers": all(torch.cuda.can_device_access_peer(one, two) for one, two in pairs)}))
"""
BITSANDBYTES = """
import json, torch, bitsandbytes
packed, state = bitsandbytes.functional.quantize_4bit(torch.ones(64, 64), quant_type="nf4")
assert bitsandbytes.functional.dequantize_4bit(packed, state).shape == (64, 64)
print(json.dumps(bitsandbytes.__version__))
"""
DEEPSPEED = """
import importlib.util, json
if importlib.util.find_spec("deepspeed") is None:
    print(json.dumps({"version": ""}))
else:
    import deepspeed
    from deepspeed.ops.op_builder.all_ops import ALL_OPS
    from deepspeed.ops.op_builder.builder import probe_is_compatible
    from torch.utils.cpp_extension import is_ninja_available
    ops = {name: is_ninja_available() and bool(probe_is_compatible(builder, False))
           for name, builder in ALL_OPS.items() if name != "deepspeed_not_implemented"}
    print(json.dumps({"version": deepspeed.__version__, "ops": ops}))
"""
PROBES: dict[str, str] = {"gpus": GPUS, "bitsandbytes": BITSANDBYTES, "deepspeed": DEEPSPEED}
"""Programs that print one JSON document, by name."""

LIBRARIES = (
    *("agentft-suite", "torch", "torchvision", "torchaudio", "transformers", "tokenizers", "peft", "accelerate"),
    *("datasets", "bitsandbytes", "deepspeed", "liger-kernel", "trl", "unsloth", "vllm"),
)
"""Distributions whose own requirements are checked."""
CONFLICTS = (
    ("torchao<0.16", "peft>=0.18.1", "LoRA fails", "https://github.com/PrunaAI/pruna/pull/630"),
    ("torchao>=0.18", "peft<0.19", "LoRA fails", "https://github.com/unslothai/unsloth/pull/11168"),
    ("liger-kernel<=0.6.4", "transformers>=5", "no support", "https://github.com/linkedin/Liger-Kernel/issues/1044"),
    ("transformers==5.1.0", "deepspeed", "ZeRO fails", "https://github.com/huggingface/trl/pull/4982"),
)
"""Versions that do not work together although their metadata allow it: both, what happens, and the source."""
SHARED_MEMORY = 1 << 30
"""Bytes of /dev/shm below which NCCL and data loaders of several processes fail; Docker's default is 64 MiB."""
FREE_DISK = 5 * 10**9
"""Bytes for runs: checkpoints of full training are larger, those of adapters smaller."""


def check_all() -> list[Check]:
    """Run every check; they are shown in this order."""
    libraries = (_library(name, name, f"`pip install {name}`") for name in ("transformers", "peft", "datasets"))
    return [
        *(_python(), _distribution(), *check_devices(), *libraries, check_versions()),
        *(_memory(), _cache(), *check_space(Path.cwd()), _model()),
    ]


def probe(code: str, seconds: float = SECONDS) -> tuple[object, str]:
    """Run a small program. Returns the JSON that it prints and "", or None and the last line of its stderr."""
    try:
        done = subprocess.run(  # noqa: S603  (our own code above)
            [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False, timeout=seconds
        )
        if done.returncode == 0:
            return json.loads(done.stdout.splitlines()[-1]), ""
    except subprocess.TimeoutExpired:
        return None, f"no answer within {seconds:g} seconds"
    except (ValueError, IndexError) as error:
        return None, str(error)
    return None, (done.stderr.strip().splitlines() or [f"exited with code {done.returncode}"])[-1][:160]


def check_devices() -> Iterator[Check]:
    """PyTorch, the GPUs and their links, attention, Liger, bitsandbytes and DeepSpeed."""
    with ThreadPoolExecutor(len(PROBES)) as pool:
        found = dict(zip(PROBES, pool.map(probe, PROBES.values()), strict=True))
    facts, problem = found["gpus"]
    if isinstance(facts, dict):
        yield from _gpus(facts)
    else:
        yield Check("torch", False, problem, "run `make venv` again, or `pip install torch`")
    answer, problem = found["bitsandbytes"]
    remedy = "`pip install bitsandbytes`; until then train with --method lora and chat with --bits 16"
    yield Check("bitsandbytes", answer is not None, f"{answer}, 4-bit works" if answer else problem, remedy)
    yield _deepspeed(*found["deepspeed"])


def _gpus(facts: Mapping[str, object]) -> Iterator[Check]:
    yield Check("torch", True, f"{facts['version']}, threads: {facts['threads']}")
    gpus = facts["gpus"]
    if not isinstance(gpus, list) or not gpus:
        remedy = "the quickstart runs on the CPU; models above about 1B parameters need an NVIDIA GPU"
        if shutil.which("nvidia-smi"):
            remedy = "nvidia-smi works, so this may be the CPU build of PyTorch: `pip install --force-reinstall torch`"
        yield Check("gpu", False, "none that PyTorch can use", remedy)
        yield Check("attention", True, "node by node, on the CPU")
        return
    yield Check("gpu", True, "; ".join(gpus) + (", bfloat16" if facts["bf16"] else ""))
    if len(gpus) > 1:
        links = describe_links(_topology())
        found = f"{len(gpus)} GPUs, " + (links or ("direct" if facts["peers"] else "no direct access"))
        remedy = "gradients go through the host's memory: fine for LoRA, slow for full training and ZeRO-3"
        yield Check("links", bool(facts["peers"]), found, remedy)
    kernel = "FlashAttention over prefix trees" if facts["flash"] else "flex_attention"
    remedy = "GPUs before compute capability 8.0 have no FlashAttention; packs cost more time"
    yield Check("attention", bool(facts["flash"]), kernel, remedy)
    yield _library("liger", "liger-kernel", "`pip install liger-kernel` saves time and memory in training")


def _deepspeed(answer: object, problem: str) -> Check:
    remedy = "only --deepspeed needs it: `pip install --upgrade deepspeed`"
    if not isinstance(answer, dict):
        return Check("deepspeed", False, problem, remedy)
    if not answer["version"]:
        return Check("deepspeed", True, "not installed; only --deepspeed needs it")
    able = [name for name, can in answer["ops"].items() if can]
    unable = [name for name in answer["ops"] if name not in able]
    found = f"{answer['version']}, can compile {', '.join(able) or 'nothing'}"
    found += f"; not {', '.join(unable)}" if unable else ""
    remedy = "offload to the CPU needs the op cpu_adam: install g++, ninja and the CUDA toolkit of PyTorch's version"
    return Check("deepspeed", "cpu_adam" in able, found, remedy)


def _topology() -> str:
    """What `nvidia-smi topo -m` prints; empty if it fails."""
    try:
        done = subprocess.run(["nvidia-smi", "topo", "-m"], capture_output=True, text=True, check=False, timeout=20)  # noqa: S607
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def describe_links(topology: str) -> str:
    """How the GPUs are linked, from the table of `nvidia-smi topo -m`; empty if there is none."""
    lines = [line.split() for line in re.sub(r"\x1b\[[0-9;]*m", "", topology).splitlines()]
    rows = [words for words in lines if words and re.fullmatch(r"GPU\d+", words[0]) and "X" in words]
    kinds = {kind for words in rows for kind in words[1 : len(rows) + 1]} - {"X"}
    if not kinds:
        return ""
    nvlink = sorted(kind for kind in kinds if kind.startswith("NV"))
    others = sorted(kinds - set(nvlink))
    if nvlink and not others:
        return f"all linked by NVLink ({', '.join(nvlink)})"
    across = ", across CPU sockets" if "SYS" in others else ""
    return f"linked by {'NVLink and ' if nvlink else ''}PCIe ({', '.join([*nvlink, *others])}{across})"


def check_space(folder: Path, shared: Path = Path("/dev/shm")) -> Iterator[Check]:  # noqa: S108
    """The disk where `folder` is, and shared memory, where the system has it."""
    free = shutil.disk_usage(folder).free
    remedy = "runs are written here, checkpoints included: free some space, or train with --output on another disk"
    yield Check("disk", free > FREE_DISK, f"{free / 1e9:.1f} GB free at {folder}", remedy)
    if shared.is_dir():
        free = shutil.disk_usage(shared).free
        remedy = "several GPUs (NCCL) need more: start the container with --shm-size=8g or --ipc=host"
        yield Check("shared memory", free >= SHARED_MEMORY, f"{free / 2**30:.1f} GiB free at {shared}", remedy)


def check_versions() -> Check:
    """Whether the installed libraries work together, by their own requirements and by a table of known faults."""
    problems = [problem for name in LIBRARIES for problem in _unmet(name)]
    problems += [f"{a} with {b}: {effect} ({source})" for a, b, effect, source in CONFLICTS if _has(a) and _has(b)]
    found = "; ".join(problems) or "the installed versions work together, as far as is known"
    return Check("versions", not problems, found, "install other versions of these, such as those in constraints.txt")


def _unmet(name: str) -> Iterator[str]:
    """Requirements of an installed distribution that are installed in an excluded version, or not at all."""
    try:
        needed = requires(name) or []
    except PackageNotFoundError:
        return
    for requirement in map(Requirement, needed):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _version(requirement.name)
        if found is None:
            yield f"{name} needs {requirement.name}, which is not installed"
        elif not requirement.specifier.contains(found, prereleases=True):
            yield f"{name} needs {requirement.name}{requirement.specifier}, but {found} is installed"


def _has(text: str) -> bool:
    requirement = Requirement(text)
    found = _version(requirement.name)
    return found is not None and requirement.specifier.contains(found, prereleases=True)


def _version(name: str) -> str | None:
    """That of an installed distribution; None without one."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _python() -> Check:
    found = f"{platform.python_version()} at {sys.executable}"
    return Check("python", sys.version_info >= (3, 11), found, "install Python 3.11 or newer")


def _distribution() -> Check:
    remedy = f"`pip uninstall {FOREIGN}`, then install agentft again: both own the package and the command `agentft`"
    if found := _version(FOREIGN):
        return Check("distribution", False, f"{FOREIGN} {found} is installed, which is not this project", remedy)
    return Check("distribution", True, f"{agentft.__name__} {agentft.__version__} from agentft-suite")


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


def _cache() -> Check:
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


def _library(name: str, distribution: str, remedy: str) -> Check:
    found = _version(distribution)
    return Check(name, found is not None, found or "not installed", remedy)
