"""Milliseconds of a decoding step: 64 cases at once on a GPU, 8 on a CPU, with SmolLM2's shape and random weights.

On a GPU the steps are measured with and without a CUDA graph, and the texts compared. `make bench` runs it.
"""

from __future__ import annotations

import time
from contextlib import nullcontext
from unittest.mock import patch

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from agentft.display.terminal import say
from agentft.models import Sampling
from agentft.models.completion import TextRequest
from agentft.models.embedded import pull
from agentft.models.hf import HfEngine, native_bf16
from agentft.models.tokenizers import load_tokenizer
from agentft.types import Segment

SYSTEMS = [f"You are assistant {n}. " + "You can call current_weather with a city and a date. " * 45 for n in range(3)]
SHORT, LONG = 4, 132


def request(number: int) -> TextRequest:
    """One of three system texts of some 600 tokens, and a question."""
    user = "What is the weather in Beijing tomorrow? " * (1 + number % 4) + str(number)
    segments = (
        Segment("<|im_start|>system\n", False, "frame"),
        Segment(SYSTEMS[number % len(SYSTEMS)], False, "system"),
        Segment("<|im_end|>\n<|im_start|>user\n", False, "frame"),
        Segment(user, False, "user"),
        Segment("<|im_end|>\n<|im_start|>assistant\n", False, "frame"),
    )
    return TextRequest(str(number), segments, ("</tool_call>",))


def measure(engine: HfEngine, requests: list[TextRequest]) -> tuple[float, list[str]]:
    """(seconds of a step, the texts): the difference of a long and a short run leaves the prompts out."""
    engine.complete(requests, Sampling(max_new_tokens=SHORT))
    seconds: list[float] = []
    texts: list[str] = []
    for tokens in (SHORT, LONG):
        began = time.perf_counter()
        texts = [done.text for done in engine.complete(requests, Sampling(max_new_tokens=tokens))]
        seconds.append(time.perf_counter() - began)
    return (seconds[1] - seconds[0]) / (LONG - SHORT), texts


def main() -> None:
    """Measure, and print one line for each way."""
    folder = pull("smollm2-135m")
    tokenizer = load_tokenizer(str(folder))
    gpu = torch.cuda.is_available()
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    model = model.to("cuda" if gpu else "cpu", torch.bfloat16 if native_bf16() else torch.float32)
    model.generation_config.eos_token_id = None
    requests = [request(number) for number in range(64 if gpu else 8)]
    never = patch("agentft.models.decoding.fits_graph", lambda _: False)
    found: list[list[str]] = []
    for name in ("without a graph", "with a graph") if gpu else ("on the CPU",):
        with never if name == "without a graph" else nullcontext():
            step, texts = measure(HfEngine(model, tokenizer, "random"), requests)
        found.append(texts)
        say(f"{len(requests)} cases, {name}: {step * 1000:.1f} ms a step, {len(requests) / step:,.0f} tokens/s")
    if gpu:
        same = sum(one == two for one, two in zip(*found, strict=True))
        say(f"{same} of {len(requests)} texts are the same; in bf16, random weights often have equal best scores")


if __name__ == "__main__":
    main()
