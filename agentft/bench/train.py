"""Measures training speed on samples of known shapes, against plain peft, other libraries, and the machine's limit.

On a GPU, with other libraries from their own environments:

    agentft bench train --model random-7b --method qlora --shape agent930 --memory 24 \\
      --peer unsloth=/venvs/unsloth/bin/python --peer-batch 8
"""

from __future__ import annotations

import gc
import json
import os
import random
import subprocess
import time
import warnings
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoModelForCausalLM

from agentft.bench.options import DATA, SHAPES, Shape, read_options
from agentft.engine.packing import Pack, Sample, epoch_packs
from agentft.engine.tree_attention import TREE_ATTENTION
from agentft.errors import InputError
from agentft.models.embedded import resolve
from agentft.models.hf import quantisation
from agentft.strict import nearest
from agentft.training.combinations import unplanned
from agentft.training.events import StepDone
from agentft.training.loading import load_model, prepare_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import measure_machine, measure_rate, peak_memory
from agentft.training.planner import describe_choice, dimensions
from agentft.training.recipe import Recipe
from agentft.training.resolve import RANDOM_7B, Resolved, resolve_recipe
from agentft.training.run import read_data
from agentft.training.workload import Workload, even_workload

__all__ = ["Measured", "bench_peer", "bench_plain", "bench_train", "limit", "plan_bench", "run_bench"]

WARM_UP = 3
LONG_RUN = 100_000
"""The number of samples of the planned run."""


@dataclass(frozen=True, slots=True)
class Measured:
    """The median over the measured steps. `tokens_per_second` counts computed tokens. `memory`: peak bytes."""

    name: str
    samples_per_second: float
    tokens_per_second: float
    memory: int
    samples: int
    loss: float


def plan_bench(recipe: Recipe, shape: str, memory: float | None = None) -> Resolved:
    """The recipe resolved for a long run on samples of this shape.

    Args:
        recipe: its `auto` settings are resolved, the others are kept.
        shape: a key of `SHAPES`, or `data`.
        memory: GiB of the card to use at most; None: all free memory.

    Raises:
        InputError: the shape is unknown, or nothing fits.
    """
    _free_memory()
    machine = measure_machine()
    if memory is not None:
        machine = replace(machine, free=min(machine.free, memory * 2**30))
    work = read_data(recipe).samples if shape == DATA else _long_run(_shape(shape))
    resolved = resolve_recipe(replace(recipe, lr=recipe.lr or 1e-4), work, machine)
    if machine.device == "cuda" and resolved.choice is None and not unplanned(recipe):
        raise InputError(f"nothing fits into {machine.free / 2**30:.1f} GiB")
    return resolved


def _free_memory() -> None:
    """Free what the previous measurement left on the GPU, and forget its peak."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _long_run(kind: Shape) -> Workload:
    length = kind.shared + kind.own + kind.supervised
    return even_workload(LONG_RUN, 1, length, shared=kind.shared, supervised=kind.supervised)


def bench_train(
    resolved: Resolved, shape: str, steps: int, on_step: Callable[[StepDone], None] = lambda _: None
) -> Measured | None:
    """Train for `steps` steps after the warm-up, on full packs. `on_step` gets each step at the end.

    Of several processes, only the first one returns what it measured; the others return None.

    Raises:
        InputError: the shape is unknown, or one sample does not fit into a pack.
    """
    recipe = resolved.recipe
    samples = read_data(recipe).samples if shape == DATA else list(_samples(_shape(shape), resolved, steps))
    packs = epoch_packs(samples, recipe.pack_tokens, recipe.seed, 0)
    fullest = max(len(pack.members) for pack in packs)
    chosen = packs if shape == DATA else [pack for pack in packs if len(pack.members) == fullest]
    chosen = (chosen * (steps + WARM_UP))[: (steps + WARM_UP) * recipe.batch]
    events = _run(recipe, _model(resolved), samples, chosen)
    for event in events:
        on_step(event)
    if not events:
        return None
    timed = sorted(events[WARM_UP:], key=lambda event: event.seconds)
    middle = timed[len(timed) // 2]
    seconds = sum(event.seconds for event in timed) if shape == DATA else middle.seconds * len(timed)
    rows, tokens = sum(event.samples for event in timed), sum(event.tokens for event in timed)
    return Measured(
        shape, rows / seconds, tokens / seconds, max(e.memory for e in events), middle.samples, events[-1].loss
    )


def bench_plain(resolved: Resolved, shape: str, steps: int, batch: int = 4) -> Measured:
    """Plain transformers and peft: one sample per row, logits for every token.

    Raises:
        InputError: the shape is unknown.
    """
    from peft import LoraConfig, get_peft_model

    kind, recipe = _shape(shape), resolved.recipe
    dice = random.Random(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    _free_memory()
    model = _model(resolved, "sdpa")
    if next(model.parameters()).device.type != device:  # 4-bit weights are on the GPU already
        model = model.to(device)
    vocabulary = model.config.get_text_config().vocab_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses a deprecated property of transformers
        settings = LoraConfig(r=recipe.lora_r, target_modules="all-linear", task_type="CAUSAL_LM")
        tuned = get_peft_model(model, settings).train()
    optimizer = torch.optim.AdamW([p for p in tuned.parameters() if p.requires_grad], lr=1e-4)
    rows = [[dice.randrange(vocabulary) for _ in range(kind.tokens)] for _ in range(batch)]
    ids = torch.tensor(rows, device=device)
    labels = torch.full_like(ids, -100)
    start = kind.shared + kind.own
    labels[:, start : start + kind.supervised] = ids[:, start : start + kind.supervised]
    seconds, loss = [], 0.0
    for _ in range(steps + 1):
        began = time.perf_counter()
        found = tuned(input_ids=ids, labels=labels).loss
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
        loss = found.item()
        seconds.append(time.perf_counter() - began)
    middle = sorted(seconds[1:])[steps // 2]
    return Measured(f"{shape}, plain", batch / middle, ids.numel() / middle, peak_memory(), batch, loss)


def bench_peer(peer: str, shape: str, batches: Sequence[int], steps: int) -> list[Measured]:
    """Measure another library at these batch sizes, in its own Python.

    Args:
        peer: `unsloth=PYTHON` or `trl=PYTHON`.
        shape: a key of `SHAPES`.
        batches: batch sizes; those that do not fit into memory are left out of the result.
        steps: how many steps are timed.

    Raises:
        InputError: the library failed; the message has the end of its output.
    """
    name, _, python = peer.partition("=")
    script = Path(__file__).with_name("peers.py")
    command = [python, str(script), name, "--shape", json.dumps(asdict(_shape(shape))), "--steps", str(steps)]
    for batch in batches:
        command += ["--batch", str(batch)]
    # Without PYTHONPATH, so that it imports its own libraries: ours may be too new for it.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"name"')]
    if done.returncode or not found:
        raise InputError(f"{peer} failed: {(done.stdout + done.stderr)[-1500:]}")
    for one in found:
        one.pop("versions", None)
    return [Measured(**one) for one in found if "failed" not in one]


def limit(resolved: Resolved, shape: str, found: Measured) -> float:
    """Samples per second if a step consisted of its matrix products only, at this machine's rate for a large one.

    Frozen weights take 4 operations per weight and token (forward, and the gradient of the inputs).
    """
    model = dimensions(resolved.architecture.config)
    dtype = torch.bfloat16 if resolved.recipe.dtype == "bf16" else torch.float32
    kind = Shape(0, 0, 0, 0) if shape == DATA else _shape(shape)
    tokens = (
        kind.own + kind.supervised + kind.shared / found.samples or found.tokens_per_second / found.samples_per_second
    )
    return measure_rate(dtype) / (4 * model.body * tokens)


def _shape(name: str) -> Shape:
    if name not in SHAPES:
        raise InputError(f"unknown shape {name!r}; {nearest(name, list(SHAPES))}")
    return SHAPES[name]


def _samples(shape: Shape, resolved: Resolved, steps: int) -> Iterator[Sample]:
    """Samples of random tokens, enough for all steps."""
    recipe = resolved.recipe
    dice = random.Random(recipe.seed)
    own = shape.own + shape.supervised
    room = (recipe.pack_tokens - shape.shared) // own
    if room < 1:
        raise InputError(f"pack_tokens = {recipe.pack_tokens}: a sample has {shape.shared + own} tokens; increase it")
    vocabulary = resolved.architecture.config.get_text_config().vocab_size
    stem = [dice.randrange(vocabulary) for _ in range(shape.shared)]
    for row in range(room * recipe.batch * min(steps + WARM_UP, 8)):
        tokens = array("i", [*stem, *(dice.randrange(vocabulary) for _ in range(own + 1))])
        places = array("i", range(len(tokens) - shape.supervised, len(tokens)))
        yield Sample(row, str(row), tokens, places, array("d", [1.0] * shape.supervised))


def _model(resolved: Resolved, attention: str = "") -> Any:
    """The recipe's model: with adapters and our attention, or bare with the named attention."""
    recipe, config = resolved.recipe, resolved.architecture.config
    if recipe.model != RANDOM_7B:
        where = resolve(recipe.model)
        if not attention:
            return load_model(recipe, where, config)
        dtype = torch.bfloat16 if recipe.dtype == "bf16" else torch.float32
        return AutoModelForCausalLM.from_pretrained(
            where,
            config=config,
            dtype=dtype,
            attn_implementation=attention,
            quantization_config=quantisation(recipe.bits, dtype) if recipe.method == "qlora" else None,
            trust_remote_code=False,
        )
    if not torch.cuda.is_available():
        raise InputError(f"{RANDOM_7B} needs a GPU; use --model smollm2-135m")
    model = _random_model(config, recipe, attention or TREE_ATTENTION)
    return model if attention else prepare_model(recipe, model, RANDOM_7B)


def _random_model(config: Any, recipe: Recipe, attention: str) -> Any:
    """A model with random weights, created on the GPU, in 4 or 8 bits for qlora."""
    torch.manual_seed(recipe.seed)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention, trust_remote_code=False
        )
    model.requires_grad_(False)
    if recipe.method == "qlora" and recipe.unpack != "on":
        _pack(model, recipe.bits)
        setattr(model, f"is_loaded_in_{recipe.bits}bit", True)
    _free_memory()
    return model


def _pack(model: Any, bits: int) -> None:
    from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit

    for part in list(model.get_decoder().modules()):
        for name, layer in list(part.named_children()):
            if type(layer) is not nn.Linear:
                continue
            shape, weight = (layer.in_features, layer.out_features, layer.bias is not None), layer.weight.data
            packed: Any
            if bits == 8:
                packed = Linear8bitLt(*shape, has_fp16_weights=False, threshold=6.0, device="meta")
                packed.weight = Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(weight.device)
            else:
                packed = Linear4bit(*shape, torch.bfloat16, quant_type="nf4", device="meta")
                packed.weight = Params4bit(weight, requires_grad=False, quant_type="nf4").to(weight.device)
            packed.bias = layer.bias
            setattr(part, name, packed)


def _run(recipe: Recipe, model: Any, samples: Sequence[Sample], packs: Sequence[Pack]) -> list[StepDone]:
    steps: list[StepDone] = []

    def keep(event: Any) -> None:
        if isinstance(event, StepDone):
            steps.append(event)

    TrainingLoop(model, recipe, samples, packs, on_event=keep).run()
    return steps


def run_bench(arguments: Sequence[str], say: Callable[[str], None]) -> None:
    """Run the measurements, and say one line for each as soon as it is made, so that a later failure loses none.

    Raises:
        InputError: an option or setting is unknown or invalid.
    """
    given, recipe = read_options(arguments)
    for shape in given.shape or ["agent730"]:
        planned = plan_bench(recipe, shape, given.memory)
        for note in planned.notes[: -1 if planned.choice else None]:  # the last one is the plan
            say(note.text)
        if planned.choice is not None:
            say(f"{shape}, predicted: {describe_choice(planned.choice)}")
        ours = bench_train(planned, shape, given.steps)
        if ours is None:
            return
        most = limit(planned, shape, ours)
        say(_line(ours, most))
        if given.plain:
            say(_line(bench_plain(planned, shape, max(1, given.steps // 2)), most))
        _free_memory()
        for peer in given.peer:
            for one in bench_peer(peer, shape, given.peer_batch or [2, 8], given.steps):
                say(_line(one, most))


def _line(found: Measured, most: float) -> str:
    """A measurement as text. `most`: see `limit`."""
    share = found.samples_per_second / most
    return (
        f"{found.name:24} {found.samples_per_second:8.3g} samples/s {found.tokens_per_second:10,.0f} tokens/s "
        f"{found.memory / 2**30:6.2f} GiB  {share:4.0%} of the limit  {found.samples} per step"
    )
