"""Merges an adapter into 16-bit weights, and measures what rounding the merged weights changes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agentft.errors import InputError
from agentft.files import DIGESTS, read_object, write_text
from agentft.models.embedded import resolve
from agentft.models.hf import dequantise, native_bf16, quantisation
from agentft.models.tokenizers import add_adapter, fit_embeddings, load_base
from agentft.runs import FinishedRun

__all__ = ["Agreement", "copy_model", "merge_run", "write_stops"]

MAX_PROMPT = 512
"""Tokens of each prompt on which the logits are compared."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """Logits of the merged weights against those of base and adapter. `relative`: the norm of their difference over
    their norm. `largest`: the largest difference. `same`: share of positions with the same most likely token.
    `dtype`: in which both were computed."""

    relative: float
    largest: float
    same: float
    tokens: int
    dtype: str

    def sentence(self) -> str:
        """The result in one sentence."""
        return (
            f"merged and adapter differ by {self.relative:.1e} in their {self.dtype} logits (relative norm; largest "
            f"difference {self.largest:.2g}) and agree on {self.same:.1%} of the most likely tokens, on {self.tokens} "
            "tokens of training prompts"
        )


def merge_run(run: FinishedRun, prompts: Sequence[Sequence[int]], target: Path, tokenizer: Any) -> Agreement:
    """Write the base model with the run's adapter merged into it, in bf16. A quantised base is dequantised first.

    `tokenizer`: the run's, which may have added tokens.

    Raises:
        MissingError: the base model is not on this machine.
        InputError: its weights are quantised, and no library can dequantise them.
        OSError: the disk is full.
    """
    compute = torch.bfloat16 if native_bf16() else torch.float32  # bf16 would be emulated, many times slower
    model = load_base(
        run.model,
        resolve(run.model),
        dtype=compute,
        quantization_config=quantisation(run.bits if run.is_rounded else 16, compute),
        device_map={"": 0} if torch.cuda.is_available() else None,
    )
    model = dequantise(model)
    if getattr(model, "is_quantized", False):
        raise InputError(f"the quantised weights of {run.model} cannot be dequantised; export --to adapter")
    fit_embeddings(model, tokenizer)
    ends = model.generation_config
    tuned = add_adapter(model, str(run.weights))
    before = _logits(tuned, prompts)
    merged = _cast(tuned.merge_and_unload(), torch.bfloat16)
    found = _compare(before, _logits(_cast(merged, compute), prompts), str(compute).removeprefix("torch."))
    merged.generation_config = ends
    merged.config.dtype, merged.config.use_cache = torch.bfloat16, True
    _cast(merged, torch.bfloat16).save_pretrained(target, max_shard_size="5GB")
    return found


def copy_model(source: Path, target: Path) -> None:
    """Copy the files of a run's weights, without their modes: those of a read-only run would refuse changes."""
    for path in source.rglob("*"):
        if path.is_file() and path.name != DIGESTS:
            copy = target / path.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)


def write_stops(target: Path, tokenizer: Any, stops: Sequence[str]) -> None:
    """Add the stop strings that are single tokens to the ends in generation_config.json.

    transformers would not save some models' own settings again, such as a temperature without sampling.
    """
    path = target / "generation_config.json"
    config = read_object(path)
    config.pop("_from_model_config", None)  # transformers 4 would read the ends in config.json instead
    known = config.get("eos_token_id")
    ends = [known] if isinstance(known, int) else list(known or [])
    vocabulary = tokenizer.get_vocab()
    ends += [vocabulary[stop] for stop in stops if stop in vocabulary]
    config["eos_token_id"] = list(dict.fromkeys(ends)) or None
    if config.get("pad_token_id") is None:
        config["pad_token_id"] = tokenizer.pad_token_id
    write_text(path, json.dumps(config, indent=2) + "\n")


def _cast(model: Any, dtype: torch.dtype) -> Any:
    """The model with its parameters in `dtype`. Its buffers, such as rotary frequencies, keep their precision."""
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    return model


def _logits(model: Any, prompts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
    model.eval()
    ids = [torch.tensor([list(prompt[-MAX_PROMPT:])], device=model.device) for prompt in prompts]
    with torch.inference_mode():
        return [model(input_ids=one).logits[0].float().cpu() for one in ids]


def _compare(before: Sequence[torch.Tensor], after: Sequence[torch.Tensor], dtype: str) -> Agreement:
    ours, theirs = torch.cat(list(before)), torch.cat(list(after))
    gap = theirs - ours
    same = (ours.argmax(-1) == theirs.argmax(-1)).float().mean()
    return Agreement(float(gap.norm() / ours.norm()), float(gap.abs().max()), float(same), len(ours), dtype)
