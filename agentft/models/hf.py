"""A transformers model on this machine, with batched decoding that computes shared prefixes of prompts once."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache, partial
from itertools import groupby, takewhile
from pathlib import Path
from typing import Any

import torch
from transformers import BitsAndBytesConfig

from agentft.errors import InputError
from agentft.models import Finish, Likelihood, Sampling, TokenScore
from agentft.models.completion import Completion, OnText, TextRequest, stop_end
from agentft.models.decoding import (
    ATTENTION,
    OnPiece,
    OnTokens,
    Prefix,
    Start,
    can_share,
    compute_prefix,
    decode,
    read_logs,
)
from agentft.models.embedded import resolve
from agentft.models.prefixes import PrefixFiles
from agentft.models.tokenizers import add_adapter, check_vocabulary, fit_embeddings, load_base, load_tokenizer
from agentft.rendering.encoding import tokens_of
from agentft.rendering.frame import Frame
from agentft.rendering.tokens import tokenise
from agentft.types import Segment

__all__ = ["HfEngine", "dequantise", "native_bf16", "quantisation"]

# A prefix with fewer tokens costs more than it saves.
WORTH_SHARING = 32
# Elements of the logits that are computed at once while replies are read.
LOGITS_AT_ONCE = 2**26
# Prefixes in the cache: enough for the suites of an evaluation.
KEPT_PREFIXES = 6


def native_bf16() -> bool:
    """Whether the hardware supports bf16 natively; a CPU without it is many times slower in bf16 than in fp32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def quantisation(bits: int, compute: torch.dtype) -> BitsAndBytesConfig | None:
    """bitsandbytes' settings for 4 bits (NF4, double quantisation, products in `compute`) or 8 bits, None for more.

    Raises:
        InputError: `bits` is none of these.
    """
    if bits in (16, 32):
        return None
    if bits == 8:
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # every layer tells that it casts bf16 to fp16
        return BitsAndBytesConfig(load_in_8bit=True)
    if bits == 4:
        return BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
        )
    raise InputError(f"bits = {bits} is not supported; use 4, 8, 16 or 32")


def dequantise(model: Any) -> Any:
    """The model with its quantised weights as numbers of its dtype again. The quantised ones are freed at once.

    Weights that no library can dequantise, and others, stay as they are.
    """
    for part in model.modules():
        weight: Any = getattr(part, "weight", None)
        if getattr(weight, "module", None) is part:
            weight.module = None  # bitsandbytes' reference back: such a cycle waits for the garbage collector
    with suppress(NotImplementedError):
        return model.dequantize(model.dtype) if getattr(model, "is_quantized", False) else model
    return model


class HfEngine:
    """A text engine. Greedy decoding is deterministic for the same requests in the same batches.

    In bf16 the batch decides how sums are rounded, and so which of two nearly equal tokens wins; with 32 bits it does
    not.
    """

    def __init__(self, model: Any, tokenizer: Any, name: str) -> None:
        self.name = name
        self.tokenizer = tokenizer
        self.context = int(getattr(model.config.get_text_config(), "max_position_embeddings", None) or 0)
        self._model = model.eval()
        self._ends = _end_tokens(model, tokenizer)
        self._lead = self._decode_all(self._ends[:1])
        self._prefixes: list[Prefix] = []
        self._previous: list[Start] = []  # the rows of the last batch, as computed
        self._files: PrefixFiles | None = None  # for the next prefix that is computed
        self._shares = can_share(model)
        if self._shares:
            self._model.set_attn_implementation(ATTENTION)

    @classmethod
    def open(cls, model: str, adapter: Path | None = None, bits: int = 16, *, rounded: int = 0) -> HfEngine:
        """Load a model, with an adapter if one is named.

        From 16 bits on, the adapter is merged into the weights in memory, so that decoding is as fast as the base's.

        Args:
            model: a folder, a hub id or an embedded name.
            adapter: a folder in peft's layout.
            rounded: from 16 bits on, round weights to this many bits and dequantise them, as QLoRA does in training;
                0: do not. True is 4.

        Raises:
            MissingError: the model is not on this machine and cannot be downloaded.
        """
        added = adapter is not None and (adapter / "tokenizer.json").is_file()
        tokenizer = load_tokenizer(str(adapter) if added else model)
        # Native bf16 is 1.7 times as fast as fp32 on two cores (SmolLM2, 42 rows).
        dtype = torch.bfloat16 if bits < 32 and native_bf16() else torch.float32
        rounded = (4 if rounded is True else rounded) if bits >= 16 else 0
        loaded = load_base(
            model,
            resolve(model),
            dtype=dtype,
            quantization_config=quantisation(rounded or bits, dtype),
            device_map={"": 0} if torch.cuda.is_available() else None,
        )
        merges = adapter is not None and bits >= 16
        loaded = dequantise(loaded) if rounded or merges else loaded  # its files may be quantised
        merges = merges and not getattr(loaded, "is_quantized", False)
        if adapter is not None:
            if added:
                fit_embeddings(loaded, tokenizer)
            loaded = add_adapter(loaded, str(adapter))
            loaded = loaded.merge_and_unload() if merges else loaded
        return cls(loaded, tokenizer, f"{model}+{adapter.parent.name}" if adapter else model)

    def complete(
        self, requests: Sequence[TextRequest], sampling: Sampling, on_text: OnText | None = None
    ) -> list[Completion]:
        """See `TextEngine.complete`. All requests go through the model in one batch.

        A single prompt is read in pieces if it is streamed, with an empty text after each.
        """
        if not requests:
            return []
        # Requests with the same system text must be adjacent to share its computation.
        order = sorted(range(len(requests)), key=lambda index: (_system_text(requests[index].segments), index))
        prompts = [tokens_of(requests[index].segments, self.tokenizer) for index in order]
        check_vocabulary(prompts, self._model.get_input_embeddings().num_embeddings, self.name, self.tokenizer)
        digest = hashlib.sha256(repr((sampling.seed, [request.key for request in requests])).encode()).digest()
        sampling = replace(sampling, seed=int.from_bytes(digest[:7], "big"))
        on_piece = partial(on_text, 0, "") if on_text is not None and len(requests) == 1 else None
        with torch.inference_mode():
            starts = self._starts([_system_text(requests[index].segments) for index in order], prompts, on_piece)
            watch = self._watch(requests, order, on_text)
            generated, owns = decode(self._model, prompts, starts, sampling, watch, on_piece=on_piece)
        # Most conversations continue in the next batch, so their keys and values are kept for one batch.
        self._previous = [Start(start.shared, own) for start, own in zip(starts, owns, strict=True)]
        done = {
            index: self._completion(requests[index], len(prompt), row)
            for index, prompt, row in zip(order, prompts, generated, strict=True)
        }
        return [done[index] for index in range(len(requests))]

    def keep_prefix(self, folder: Path, source: str) -> None:
        """Load the next prefix from this folder if it is there, else save it there; on a GPU, reading takes no time.

        Args:
            source: identifies the model by its name and files. Its configuration and some values of each weight are
                added, because a hub id may be of other weights tomorrow.
        """
        if self._model.device.type == "cpu":
            digest = hashlib.sha256(f"{source} {torch.__version__} {self._model.config.to_json_string()}".encode())
            for weight in self._model.parameters():
                flat = weight.data.flatten()
                digest.update(flat[:: max(1, flat.numel() // 500)].double().numpy().tobytes())
            self._files = PrefixFiles(folder, digest.hexdigest())

    def count(self, segments: Sequence[Segment]) -> int:
        """How many tokens a rendered prompt has."""
        return len(tokens_of(segments, self.tokenizer))

    def score(self, segments: Sequence[Segment], text: str, others: int) -> list[TokenScore]:
        """How likely each token of `text` is after a prompt, with the `others` most likely ones, from one pass."""
        prompt = tokens_of(segments, self.tokenizer)
        said = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not said:
            return []
        ids = torch.tensor([[*prompt, *said]], device=self._model.device)
        with torch.inference_mode():
            logits = self._model(input_ids=ids, logits_to_keep=len(said) + 1).logits[0, :-1].float()
        probabilities = logits.softmax(dim=-1)
        best, places = probabilities.topk(others, dim=-1)
        return [
            TokenScore(
                self._decode([token]),
                float(row[token]),
                tuple((self._decode([place]), float(chance)) for place, chance in zip(options, chances, strict=True)),
            )
            for token, row, options, chances in zip(said, probabilities, places.tolist(), best.tolist(), strict=True)
        ]

    def read(self, rows: Sequence[tuple[Sequence[Segment], Sequence[Segment]]]) -> list[tuple[Likelihood, ...]]:
        """See `ReadingEngine.read`. Text is tokenised anew, which a model may not have done in the same way."""
        runs = [[*tokenise([*prompt, *reply], self.tokenizer)] for prompt, reply in rows]
        ids = [[token for run in row for token in run.ids] for row in runs]
        check_vocabulary(ids, self._model.get_input_embeddings().num_embeddings, self.name, self.tokenizer)
        counts = [len(row[-1].ids) for row in runs]
        systems = [_system_text(prompt) for prompt, _ in rows]
        found: dict[int, tuple[Likelihood, ...]] = {}
        vocabulary = self._model.get_output_embeddings().weight.shape[0]
        for batch in _batches(sorted(range(len(rows)), key=lambda at: (systems[at], len(ids[at]))), counts, vocabulary):
            with torch.inference_mode():
                starts = self._starts([systems[at] for at in batch], [ids[at][: -counts[at]] for at in batch])
                logs = read_logs(self._model, [ids[at] for at in batch], starts, [counts[at] for at in batch])
            for at, row in zip(batch, logs, strict=True):
                places = zip(runs[at][-1].offsets, row, strict=True)
                found[at] = tuple(Likelihood(*place, log) for place, log in places)
        return [found[at] for at in range(len(rows))]

    def _starts(self, systems: list[str], prompts: list[list[int]], on_piece: OnPiece = None) -> list[Start]:
        """The cached prefix of each prompt; empty if some prompts share too little."""
        if not self._shares:
            return []
        starts: list[Start] = []
        for _, group in groupby(range(len(prompts)), key=lambda index: systems[index]):
            members = [prompts[index] for index in group]
            prefix = self._shared_prefix(members, on_piece)
            if prefix is None:
                return []
            starts += [self._cached_start(prefix, prompt) for prompt in members]
        return starts

    def _cached_start(self, prefix: Prefix, prompt: list[int]) -> Start:
        """The shared prefix, and the longest part of the prompt after it that the last batch computed."""
        known = [start.own for start in self._previous if start.shared.tokens == prefix.tokens]
        return Start(prefix, _longest_match(prompt[len(prefix.tokens) : -1], known) or prefix.cut(0))

    def _shared_prefix(self, prompts: list[list[int]], on_piece: OnPiece) -> Prefix | None:
        """The common prefix of all prompts, or a cached prefix with most of it; None if they share too little."""
        columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
        same = prompts[0][: sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))]
        cached = _longest_match(same, self._prefixes)
        # A single prompt is its own common prefix, of which a short cached part is enough.
        enough = WORTH_SHARING if len(prompts) == 1 else max(WORTH_SHARING, len(same) / 2)
        if cached and len(cached.tokens) >= enough:
            return cached
        if len(same) < WORTH_SHARING:
            return None
        files, self._files = self._files, None
        found = files.load(same) if files else None
        if found is None:
            found = compute_prefix(self._model, same, on_piece)
            if files:
                files.save(found)
        self._prefixes = [found, *self._prefixes[: KEPT_PREFIXES - 1]]
        return found

    def _watch(self, requests: Sequence[TextRequest], order: list[int], on_text: OnText | None) -> OnTokens:
        """The callback that ends rows at their stop strings and streams their text; row i is request `order[i]`."""
        streamed = [""] * len(order)
        may_end = _stop_filter({stop for request in requests for stop in request.stop}, self._decode)
        # A stop string of n characters is within the last n + 4 tokens: only parts of a UTF-8 character are shorter.
        tail = 4 + max((len(stop) for request in requests for stop in request.stop), default=0)

        def ended(index: int, row: list[int]) -> bool:
            request = requests[order[index]]
            if on_text is not None:
                text = self._completion(request, 0, row).text
                if text.startswith(streamed[index]) and text != streamed[index] and not text.endswith("\ufffd"):
                    on_text(order[index], text[len(streamed[index]) :])
                    streamed[index] = text
            if row[-1] in self._ends:
                return True
            return may_end(row[-1]) and stop_end(self._decode(row[-tail:]), request.stop) is not None

        return ended

    def _completion(self, request: TextRequest, prompt_tokens: int, row: list[int]) -> Completion:
        tokens = list(takewhile(lambda token: token not in self._ends, row))
        text = self._decode(tokens)
        finish: Finish = "end" if len(tokens) < len(row) else "length"
        cut = stop_end(text, request.stop)
        return Completion(text[:cut], finish if cut is None else "stop", prompt_tokens, len(tokens))

    def _decode(self, tokens: list[int]) -> str:
        # A decoder may take the space from the first token of a text, so an end token is put before it.
        return self._decode_all([*self._ends[:1], *tokens]).removeprefix(self._lead)

    def _decode_all(self, tokens: Sequence[int]) -> str:
        return str(self.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False))


def _stop_filter(stops: Collection[str], decode: Callable[[list[int]], str]) -> Callable[[int], bool]:
    """Whether a stop string may end with this token: it does only if the token's text has its last character.

    Decoding the last tokens of every row at every step takes longer than a step on a GPU.
    """
    last = {stop[-1:] for stop in stops}
    if not all(character.isascii() and character.isprintable() and character != " " for character in last):
        return lambda _: True  # a part of a character, or white space that a decoder may leave out

    @cache
    def may_end(token: int) -> bool:
        return not last.isdisjoint(decode([token]))

    return may_end


def _batches(order: Sequence[int], counts: Sequence[int], vocabulary: int) -> Iterator[list[int]]:
    """The rows in batches whose logits, after `counts` tokens of each, have at most `LOGITS_AT_ONCE` elements."""
    batch: list[int] = []
    for at in order:
        longest = max(counts[row] for row in [*batch, at]) + 1
        if batch and (len(batch) + 1) * longest * vocabulary > LOGITS_AT_ONCE:
            yield batch
            batch = []
        batch.append(at)
    if batch:
        yield batch


def _system_text(segments: Sequence[Segment]) -> str:
    """The text before the first turn of the conversation."""
    return "".join(s.text for s in takewhile(lambda segment: segment.kind in ("frame", "system"), segments))


def _common_length(tokens: Sequence[int], others: Sequence[int]) -> int:
    """The number of equal leading tokens."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(tokens, others, strict=False)))


def _longest_match(tokens: Sequence[int], prefixes: Sequence[Prefix]) -> Prefix | None:
    """The longest common prefix of `tokens` and one of the prefixes."""
    best = max(prefixes, key=lambda prefix: _common_length(tokens, prefix.tokens), default=None)
    return best and best.cut(_common_length(tokens, best.tokens))


def _end_tokens(model: Any, tokenizer: Any) -> list[int]:
    """The chat template's stop token, followed by the model's end-of-sequence tokens."""
    stop = tokenizer(Frame.of_tokenizer(tokenizer).stop, add_special_tokens=False)["input_ids"][-1:]
    configured = model.generation_config.eos_token_id
    more = configured if isinstance(configured, list) else [configured]
    return list(dict.fromkeys([*stop, *(token for token in more if token is not None)]))
