"""A transformers model on this machine: batched decoding that computes the shared start of the prompts once."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from agentft.errors import InputError
from agentft.models import Finish, Sampling
from agentft.models.completion import Completion, OnText, TextRequest, stop_end
from agentft.models.decoding import ATTENTION, OnTokens, Prefix, Start, can_share, compute_prefix, decode
from agentft.models.embedded import resolve
from agentft.models.tokenizers import load_tokenizer, located
from agentft.rendering.encoding import tokens_of
from agentft.rendering.frame import Frame

__all__ = ["HfEngine", "native_bf16", "quantisation"]

# Below this many shared tokens a prefix costs more than it saves.
WORTH_SHARING = 32
# Prefixes that are remembered: one for each suite of an evaluation, and a few.
KEPT_PREFIXES = 6


def native_bf16() -> bool:
    """Whether this machine multiplies bf16 itself; without it a CPU takes many times as long as for fp32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def quantisation(bits: int, compute: torch.dtype) -> BitsAndBytesConfig | None:
    """bitsandbytes' settings for 4 (NF4, double quantisation, products in `compute`) or 8 bits; None for 16.

    Raises:
        InputError: another number of bits.
    """
    if bits == 16:
        return None
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    if bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    raise InputError(f"bits {bits} is not known; it is 4, 8 or 16")


class HfEngine:
    """A text engine. Greedy decoding is deterministic for the same requests in the same batches."""

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self._model = model.eval()
        self._ends = _end_tokens(model, tokenizer)
        self._prefixes: list[Prefix] = []
        self._said: list[Start] = []
        self._shares = can_share(model)
        if self._shares:
            self._model.set_attn_implementation(ATTENTION)

    @classmethod
    def open(cls, model: str, adapter: Path | None = None, bits: int = 16, *, rounded: bool = False) -> HfEngine:
        """Load a model, and an adapter on top of it.

        With 16 bits the adapter is merged into the weights in memory: decoding is then as fast as the base model's.

        Args:
            model: a folder, a hub id or an embedded name.
            adapter: a folder in peft's layout.
            rounded: with 16 bits, take the weights that 4 bits can hold, which are those that QLoRA trains on.

        Raises:
            MissingError: the model is not here and cannot be fetched.
        """
        tokenizer = load_tokenizer(model)
        # bf16 where it is native: 1.7 times as fast as fp32 on two cores with SmolLM2 and 42 rows.
        dtype = torch.bfloat16 if native_bf16() else torch.float32
        rounded = rounded and bits == 16
        loaded = located(
            model,
            AutoModelForCausalLM.from_pretrained,
            resolve(model),
            dtype=dtype,
            quantization_config=quantisation(4 if rounded else bits, dtype),
            device_map={"": 0} if torch.cuda.is_available() else None,
        )
        loaded = loaded.dequantize() if rounded else loaded
        name = model
        if adapter is not None:
            from peft import PeftModel

            with warnings.catch_warnings():
                warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers for a property by its old name
                loaded = PeftModel.from_pretrained(loaded, str(adapter))
            loaded = loaded.merge_and_unload() if bits == 16 else loaded
            name = f"{model}+{adapter.parent.name}"
        return cls(loaded, tokenizer, name)

    def complete(
        self, requests: Sequence[TextRequest], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        """See `TextEngine.complete`. All requests go through the model in one batch."""
        if not requests:
            return []
        # Requests with the same system text stand together, so that they can share its computation.
        order = sorted(range(len(requests)), key=lambda index: (_system_text(requests[index]), index))
        prompts = [tokens_of(requests[index].segments, self.tokenizer) for index in order]
        draw = hashlib.sha256(repr((sampling.seed, [request.key for request in requests])).encode()).digest()
        sampling = replace(sampling, seed=int.from_bytes(draw[:7], "big"))
        with torch.inference_mode():
            starts = self._starts([_system_text(requests[index]) for index in order], prompts)
            said, owns = decode(self._model, prompts, starts, sampling, self._watch(requests, order, on_text))
        # A conversation mostly goes on in the very next batch, so that is how long its keys and values are kept.
        self._said = [Start(start.shared, own) for start, own in zip(starts, owns, strict=True)]
        done = {
            index: self._completion(requests[index], len(prompt), row)
            for index, prompt, row in zip(order, prompts, said, strict=True)
        }
        return [done[index] for index in range(len(requests))]

    def _starts(self, systems: list[str], prompts: list[list[int]]) -> list[Start]:
        """What is computed already of each prompt; none at all if some share nothing worth it."""
        if not self._shares:
            return []
        starts: list[Start] = []
        for _, group in groupby(range(len(prompts)), key=lambda index: systems[index]):
            alike = [prompts[index] for index in group]
            prefix = self._shared_prefix(alike)
            if prefix is None:
                return []
            starts += [self._recall(prefix, prompt) for prompt in alike]
        return starts

    def _recall(self, prefix: Prefix, prompt: list[int]) -> Start:
        """The longest beginning of a prompt, after its shared prefix, that the last batch computed."""
        known = [start.own for start in self._said if start.shared.tokens == prefix.tokens]
        return Start(prefix, _longest(prompt[len(prefix.tokens) : -1], known) or prefix.cut(0))

    def _shared_prefix(self, prompts: list[list[int]]) -> Prefix | None:
        """The start that all prompts share, or most of it if that was computed before."""
        columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
        same = prompts[0][: sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))]
        kept = _longest(same, self._prefixes)
        # A lone prompt shares everything with itself, and a few more shared words are not worth a computation.
        enough = WORTH_SHARING if len(prompts) == 1 else max(WORTH_SHARING, len(same) / 2)
        if kept and len(kept.tokens) >= enough:
            return kept
        if len(same) < WORTH_SHARING:
            return None
        self._prefixes = [compute_prefix(self._model, same), *self._prefixes[: KEPT_PREFIXES - 1]]
        return self._prefixes[0]

    def _watch(self, requests: Sequence[TextRequest], order: list[int], on_text: OnText | None) -> OnTokens:
        """What ends a row at its stop strings, and hands out text as it appears; row i is request `order[i]`."""
        shown = [""] * len(order)
        # A stop string of n characters lies within the last n tokens and a little: a token holds a character or more,
        # but for characters that are cut in bytes.
        tail = 4 + max((len(stop) for request in requests for stop in request.stop), default=0)

        def ended(index: int, row: list[int]) -> bool:
            request = requests[order[index]]
            if on_text is not None:
                text = self._completion(request, 0, row).text
                if text.startswith(shown[index]) and text != shown[index] and not text.endswith("\ufffd"):
                    on_text(order[index], text[len(shown[index]) :])
                    shown[index] = text
            return row[-1] in self._ends or stop_end(self._decode(row[-tail:]), request.stop) is not None

        return ended

    def _completion(self, request: TextRequest, prompt_tokens: int, row: list[int]) -> Completion:
        said = list(takewhile(lambda token: token not in self._ends, row))
        text = self._decode(said)
        finish: Finish = "end" if len(said) < len(row) else "length"
        cut = stop_end(text, request.stop)
        return Completion(text[:cut], finish if cut is None else "stop", prompt_tokens, len(said))

    def _decode(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text


def _system_text(request: TextRequest) -> str:
    """What stands before the conversation itself."""
    return "".join(s.text for s in takewhile(lambda segment: segment.kind in ("frame", "system"), request.segments))


def _alike(tokens: Sequence[int], others: Sequence[int]) -> int:
    """How many leading tokens are the same."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, others, strict=False)))


def _longest(tokens: Sequence[int], prefixes: Sequence[Prefix]) -> Prefix | None:
    """The longest start of `tokens` that one of the prefixes holds."""
    best = max(prefixes, key=lambda prefix: _alike(tokens, prefix.tokens), default=None)
    return best and best.cut(_alike(tokens, best.tokens))


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The chat template's stop token first, then the model's own end-of-sequence tokens."""
    stop = tokenizer(Frame.of_tokenizer(tokenizer).stop, add_special_tokens=False)["input_ids"][-1:]
    configured = model.generation_config.eos_token_id
    more = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys([*stop, *(token for token in more if token is not None)]))
