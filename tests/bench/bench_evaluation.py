"""Cases per second of a local evaluation, beside transformers' `generate` one by one, with the same outputs.

`python -m tests.bench.bench_evaluation [--cases 48] [--sample 6] [--tokens 48] [--steps 2] [--bits 16]`, with
SmolLM2; run by `make bench`, about a minute on two idle cores. The cases are those of three worlds. One by one takes
long, so only a sample of them is run so. The target is 5 times as many, with the same texts; in bf16 (16 bits) texts
depend on the batch, in fp32 (32 bits) they do not.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from agentft.display.terminal import say
from agentft.evaluation.plan import Arm, Plan, make_plan
from agentft.evaluation.records import read_records
from agentft.evaluation.runner import Settings, evaluate
from agentft.evaluation.suites import load_suite, load_worlds, stratified
from agentft.models import Sampling
from agentft.models.completion import Completion, OnText, TextEngine, TextRequest
from agentft.models.embedded import pull
from agentft.models.hf import HfEngine
from agentft.models.local import LocalModel
from agentft.rendering import open_rendering
from agentft.rendering.encoding import tokens_of

SUITES = ("weather", "search", "calculator")


class OneByOne:
    """Each request by itself, with `generate` as transformers' documentation shows it."""

    name = "one by one"

    def __init__(self, folder: str, engine: HfEngine) -> None:
        dtype = next(engine._model.parameters()).dtype
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self._engine = engine

    def complete(
        self, requests: Sequence[TextRequest], sampling: Sampling, _on_text: OnText | None = None
    ) -> list[Completion]:
        """See `TextEngine.complete`."""
        return [self._one(request, sampling.max_new_tokens) for request in requests]

    def _one(self, request: TextRequest, tokens: int) -> Completion:
        ids = tokens_of(request.segments, self._engine.tokenizer)
        stops = {"stop_strings": list(request.stop), "tokenizer": self._engine.tokenizer} if request.stop else {}
        with torch.inference_mode():
            prompt = torch.tensor([ids])
            row = self._model.generate(
                prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=tokens, do_sample=False, **stops
            )
        return self._engine._completion(request, len(ids), row[0, len(ids) :].tolist())


def run(plan: Plan, engine: TextEngine, tokenizer: Any, tokens: int) -> tuple[float, dict[str, list[str | None]]]:
    """Seconds, and the texts of each case."""
    model = LocalModel(engine, open_rendering("hermes", tokenizer))
    with TemporaryDirectory() as folder:
        started = time.perf_counter()
        arm = Arm("model", engine.name, engine.name, lambda: model)
        evaluate(plan, [arm], Settings(Path(folder), Sampling(max_new_tokens=tokens)))
        seconds = time.perf_counter() - started
        rows = read_records(Path(folder) / "cases.jsonl")
        return seconds, {row.case: [step.raw for step in row.steps] for row in rows}


def main() -> None:
    """Measure, and print one line for each way."""
    parser = argparse.ArgumentParser()
    for name, default in (("cases", 48), ("sample", 6), ("tokens", 48), ("steps", 2), ("bits", 16)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    folder = str(pull("smollm2-135m"))
    engine = HfEngine.open(folder, bits=options.bits)
    engine.name = "batched"
    suites = [load_suite(name) for name in SUITES]
    plan = replace(make_plan(suites, load_worlds(suites), limit=options.cases), max_steps=options.steps)
    sample = replace(plan, cases=stratified(plan.cases, options.sample))
    rates, texts = [], []
    for way, one in ((plan, engine), (sample, OneByOne(folder, engine))):
        seconds, found = run(way, one, engine.tokenizer, options.tokens)
        rates.append(len(way.cases) / seconds)
        texts.append(found)
        say(f"{one.name}: {len(way.cases)} cases in {seconds:.1f} s, {rates[-1]:.3f} cases/s")
    same = sum(texts[0][case] == found for case, found in texts[1].items())
    say(f"{rates[0] / rates[1]:.1f} times as many cases per second; {same} of {len(texts[1])} have the same texts")


if __name__ == "__main__":
    main()
