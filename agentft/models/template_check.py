"""Probes of a model's chat template without its weights: the template, the stop token, tools, and stable prefixes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

from transformers import GenerationConfig

from agentft.errors import FrameError
from agentft.models.prompting import Prompting
from agentft.models.round_trip import Check, sample_conversation
from agentft.rendering.encoding import tokens_of
from agentft.rendering.frame import Frame
from agentft.rendering.native import NativeRendering

__all__ = ["check_template"]


def check_template(prompting: Prompting) -> Iterator[Check]:
    """Probe the chat template of a tokenizer, as this rendering uses it."""
    frame = Frame.of_tokenizer(prompting.tokenizer)
    parts = ["a system role" if frame.has_system else "no system role: its text goes before the first user message"]
    parts += ["thoughts"] if frame.thinker else []
    yield Check("template", True, f"{', '.join(parts)}; sha256 {frame.fingerprint[:12]}")
    yield _stop_token(prompting.tokenizer, frame.stop)
    yield _tools(prompting.tokenizer)
    yield _prefixes(prompting)


def _stop_token(tokenizer: Any, stop: str) -> Check:
    """Whether other programs stop where a turn ends: at the tokenizer's end token, or one of the generation config."""
    ids = tokenizer(stop, add_special_tokens=False)["input_ids"]
    ends = None
    with suppress(OSError):  # there need not be a config
        ends = GenerationConfig.from_pretrained(tokenizer.name_or_path, trust_remote_code=False).eos_token_id
    known = ends if isinstance(ends, list) else [tokenizer.eos_token_id if ends is None else ends]
    found = f"a turn ends with {stop!r}, token {', '.join(map(str, ids))}"
    remedy = (
        f"other programs stop at {tokenizer.convert_ids_to_tokens(known)} only: give a server {stop!r} as stop, or add "
        "it to eos_token_id in generation_config.json (agentft itself stops there)"
    )
    return Check("stop token", ids[-1] in known, found, remedy)


def _tools(tokenizer: Any) -> Check:
    try:
        syntax = NativeRendering.of_tokenizer(tokenizer).syntax
    except FrameError as error:
        remedy = "use agentft's call formats (--format msagent or hermes), which need no support by the template"
        return Check("tool support", False, str(error)[:300], remedy)
    return Check("tool support", True, f"the template declares tools and writes calls: {syntax.head.strip()!r:.40} ...")


def _prefixes(prompting: Prompting) -> Check:
    """Whether what was served stays as it is in the whole conversation, token for token."""
    whole = sample_conversation()
    samples = [tokens_of(segments, prompting.tokenizer) for segments in prompting.rendering.samples(whole)]
    replies = [index for index, turn in enumerate(whole.turns) if turn.role == "assistant"]
    prompts = [prompting.write(replace(whole, turns=whole.turns[:index])).ids for index in replies]
    kept = all(any(tuple(sample[: len(ids)]) == ids for sample in samples) for ids in prompts)
    found = f"{len(prompts)} prompts of a conversation begin "
    if kept and len(samples) == 1:
        return Check("prefixes", True, f"{found}its one training sample, token for token")
    if kept:
        remedy = "training takes one sample for each reply, which is exact; they share what they have in common"
        return Check("prefixes", False, f"the template rewrites earlier turns: {len(samples)} training samples", remedy)
    return Check("prefixes", False, f"not all {found}a training sample", "serving differs from training; report this")
