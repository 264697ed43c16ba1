"""The history of a chat stays in the model's cache: a round computes its new tokens only."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from agentft.calls import call_format
from agentft.models import Sampling
from agentft.models.hf import HfEngine
from agentft.models.local import LocalModel
from agentft.rendering import FramedRendering
from agentft.rendering.frame import CHATML
from agentft.repl.gate import CallGate
from agentft.repl.session import Session
from tests.repl.stage import DOUBLE, Doubler
from tests.tiny import tiny_model, tiny_tokenizer


def test_a_second_round_computes_its_new_tokens_only() -> None:
    network = tiny_model()
    network.config.max_position_embeddings = 4096
    computed = 0

    def count(_: object, __: object, given: dict[str, Any]) -> None:
        nonlocal computed
        computed += given["input_ids"].numel()

    network.register_forward_pre_hook(count, with_kwargs=True)
    model = LocalModel(HfEngine(network, tiny_tokenizer(), "tiny"), FramedRendering(call_format("hermes"), CHATML))
    session = Session(model, CallGate(Doubler()), Sampling(max_new_tokens=5), (DOUBLE,), "You are a helpful assistant.")
    sizes = []
    for question in ("What is the weather in Paris?", "And in Lisbon?", "And in Beijing?"):
        computed = 0
        (step,) = session.ask(question, lambda: nullcontext(lambda index, delta: None))
        sizes.append((computed, step.prompt_tokens, step.tokens))
    (first, prompt, _), *later = sizes
    assert first >= prompt
    before = prompt
    for made, prompt, tokens in later:
        # What the tokenizer may join anew at the end of the reply is computed again.
        assert made <= prompt - before + tokens + 8
        before = prompt
