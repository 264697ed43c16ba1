"""Predicts the memory and time of training, and chooses the fastest settings that fit into a GPU.

Memory is the sum of weights, adapters with their optimizer state, the activations that each layer keeps for the
backward pass, the temporary tensors of one layer's backward pass, and one chunk of logits. Time is the larger of the
matrix products' time (at a fraction of the GPU's rate) and the CPU's launch overhead. tests/training/test_planner.py
checks the formulas against measurements.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Any, Literal

from agentft.engine.packing import Sample, epoch_packs
from agentft.errors import InputError
from agentft.training.recipe import Method, Recipe

__all__ = [
    "CARDS",
    "Card",
    "Choice",
    "Dimensions",
    "FixedLevers",
    "Levers",
    "StepCost",
    "Workload",
    "choose",
    "describe_choice",
    "dimensions",
    "step_cost",
    "workload_of",
]

GIB = 1 << 30
PACKED = 20_000
"""At most this many samples are packed to predict an epoch."""
BF16_BYTES = 2
"""Bytes of a bf16 number; fp32 takes twice as many."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight, including its share of the block scales, which are quantised themselves."""
ADAM = {"adamw": 16, "adamw_8bit": 10}
"""Bytes of a trainable parameter: the parameter and its gradient in fp32, and AdamW's two moments."""
UTILISATION, UNPACKING = 0.54, 1_000
"""Fraction of the GPU's rate that matrix products reach; operations to dequantise a 4-bit weight."""
LAUNCH, LAUNCH_4BIT = 0.00275, 0.0014
"""CPU launch overhead per layer and pass, in seconds; extra overhead of 4-bit weights. Long packs hide both."""
HOST_BYTES, HEAD_CHUNK = 20e9, (1 << 28) * 2
"""Transfer rate of embeddings from the host, in bytes a second; bytes of one chunk of logits (fp32, and twice bf16)."""
SLACK = 0.4 * GIB  # memory that the allocator and the libraries need in addition
CARDS = {
    "RTX 4060": (8, 30e12),
    "RTX 4070": (12, 58e12),
    "RTX 4080": (16, 97e12),
    "RTX 4090": (24, 165e12),
    "L40S": (48, 362e12),
    "H100": (80, 775e12),
}
"""GiB, and bf16 operations a second: the vendor's figure without sparsity, but for the H100 a measurement."""
TARGET_STEPS = 100
"""Packs are short enough for a run to have at least this many steps."""
LENGTHS = tuple(512 * count for count in (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48))
CHECKPOINTS = (0, 4, 3, 2, 1)
"""Recompute every n-th layer; 0: none."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A model's widths, layers and vocabulary. `tied`: the LM head shares the embedding's weights."""

    hidden: int
    gate: int
    queries: int
    keys: int
    layers: int
    words: int
    tied: bool

    @property
    def body(self) -> int:
        """The number of weights in the decoder layers."""
        return self.layers * (self.hidden * (2 * self.queries + 2 * self.keys) + 3 * self.hidden * self.gate)

    def adapters(self, rank: int) -> int:
        """The number of weights in adapters on all linear layers."""
        both = self.hidden + self.queries
        return self.layers * rank * (2 * both + 2 * (self.hidden + self.keys) + 3 * (self.hidden + self.gate))


@dataclass(frozen=True, slots=True)
class Levers:
    """The settings that a plan chooses.

    `pack`: tokens of one pack. `every`: recompute every n-th layer (0: none). `unpack`: keep 4-bit weights dequantised.
    `host`: keep the input embeddings in host memory. `liger`: use Liger's kernels.
    """

    pack: int
    every: int
    unpack: bool = False
    host: bool = False
    liger: bool = True


@dataclass(frozen=True, slots=True)
class FixedLevers:
    """The settings fixed by the user; the planner chooses those that are None."""

    pack: int | None = None
    every: int | None = None
    unpack: bool | None = None
    host: bool | None = None


@dataclass(frozen=True, slots=True)
class StepCost:
    """`memory`: peak bytes of tensors. `seconds`: time of one pack's forward and backward passes."""

    memory: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU. `free`: free bytes. `rate`: operations a second of a large matrix product."""

    free: float
    rate: float


@dataclass(frozen=True, slots=True)
class Workload:
    """The data. `longest`: tokens of the longest sample. `computed(pack)`: computed tokens of an epoch."""

    samples: int
    epochs: int
    longest: int
    computed: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen settings and their predicted cost. `seconds`: time of an epoch."""

    levers: Levers
    estimate: StepCost
    seconds: float
    samples_per_second: float


def dimensions(config: Any) -> Dimensions:
    """Read the dimensions from a transformers config.

    Raises:
        InputError: the model is a mixture of experts, which the formulas do not cover.
    """
    text = config.get_text_config()
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise InputError(f"the model ({text.model_type}) is a mixture of experts, which the planner does not cover")
    heads = text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Dimensions(
        hidden=text.hidden_size,
        gate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        layers=text.num_hidden_layers,
        words=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
    )


def step_cost(
    model: Dimensions,
    levers: Levers,
    method: Method = "qlora",
    *,
    rank: int = 16,
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
    rate: float = 1.0,
    width: int = BF16_BYTES,
) -> StepCost:
    """The cost of one pack's forward and backward passes; an activation takes `width` bytes."""
    tokens, recomputed = levers.pack, -(-model.layers // levers.every) if levers.every else 0
    saved = tokens * _saved(model, levers, width)
    gates = tokens * width * model.gate
    frugal = gates if levers.liger and method != "full" else 0  # see `recompute_gates`
    kept = (model.layers - recomputed) * (saved - frugal) + recomputed * tokens * width * model.hidden
    running = 2 * gates + 3 * tokens * width * model.hidden + width * model.hidden * model.gate
    running += saved if recomputed else frugal
    memory = _static(model, levers, method, rank, optimizer, width=width) + kept + max(running, HEAD_CHUNK)
    passes = 2 + recomputed / model.layers
    packed = method == "qlora" and not levers.unpack
    products = 2 * model.body * tokens * (passes + (1 if method == "full" else 0)) / UTILISATION
    products += UNPACKING * model.body * passes if packed else 0
    travel = tokens * width * model.hidden / HOST_BYTES if levers.host else 0
    computing, launching = products / rate + travel, (LAUNCH + LAUNCH_4BIT * packed) * model.layers * passes
    return StepCost(memory, (computing**4 + launching**4) ** 0.25)  # a smooth maximum


def choose(
    model: Dimensions,
    card: Card,
    work: Workload,
    method: Method = "qlora",
    *,
    rank: int = 16,
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
    fixed: FixedLevers = FixedLevers(),
    liger: bool = True,
    width: int = BF16_BYTES,
) -> Choice | None:
    """The fastest settings that fit into `card`, or None if none fit."""
    room = card.free - SLACK
    best: Choice | None = None
    for levers in _candidates(model, work, method, fixed, liger):
        # A sample that is longer than a pack gets a separate pack.
        largest = replace(levers, pack=max(levers.pack, work.longest))
        if step_cost(model, largest, method, rank=rank, optimizer=optimizer, width=width).memory > room:
            continue
        found = step_cost(model, levers, method, rank=rank, optimizer=optimizer, rate=card.rate, width=width)
        computed = work.computed(levers.pack)
        seconds = found.seconds * computed / levers.pack
        if best is None or seconds < best.seconds:
            best = Choice(levers, found, seconds, work.samples / seconds)
    return best


def describe_choice(choice: Choice) -> str:
    """The chosen settings and their predicted cost, as a phrase."""
    levers = choice.levers
    which = {1: "every layer", 2: "every 2nd layer", 3: "every 3rd layer"}.get(
        levers.every, f"every {levers.every}th layer"
    )
    words = [f"packs of {levers.pack:,} tokens", f"{which} recomputed" if levers.every else "nothing recomputed"]
    words += ["weights unpacked"] if levers.unpack else []
    words += ["embeddings on the host"] if levers.host else []
    memory = choice.estimate.memory / GIB
    return f"{memory:.1f} GiB, {choice.samples_per_second:.3g} samples/s with {', '.join(words)}"


def workload_of(samples: Sequence[Sample], recipe: Recipe) -> Workload:
    """Describe the samples as a workload, by packing at most `PACKED` of them."""
    packed, share = samples[:PACKED], recipe.sharing != "off"

    @cache
    def computed(pack: int) -> int:
        tokens = sum(made.tokens for made in epoch_packs(packed, pack, recipe.seed, 0, share=share))
        return tokens * len(samples) // len(packed)

    longest = max(sample.inputs for sample in samples)
    return Workload(len(samples), recipe.epochs, longest, computed)


def _candidates(model: Dimensions, work: Workload, method: Method, fixed: FixedLevers, liger: bool) -> Sequence[Levers]:
    packs = _lengths(work) if fixed.pack is None else [fixed.pack]
    every = CHECKPOINTS if fixed.every is None else [fixed.every]
    unpack = [False, True] if method == "qlora" else [False]
    host = [False, True] if method != "full" and not model.tied else [False]
    unpack = unpack if fixed.unpack is None else [fixed.unpack]
    host = host if fixed.host is None else [fixed.host]
    return [Levers(*values, liger=liger) for values in product(packs, every, unpack, host)]


def _lengths(work: Workload) -> list[int]:
    """Pack lengths that give enough steps, or else the shortest length."""
    enough = [pack for pack in LENGTHS if work.epochs * work.computed(pack) >= TARGET_STEPS * pack]
    return enough or [LENGTHS[0]]


def _saved(model: Dimensions, levers: Levers, width: int) -> int:
    """Bytes per token that a layer keeps for its backward pass.

    These are two residuals and two norms; queries and the attention's output; keys and values; gate, up and their
    product. transformers' own norms and gates keep more than Liger's.
    """
    kept = width * (4 * model.hidden + 2 * model.queries + 2 * model.keys + 3 * model.gate)
    return kept if levers.liger else kept + width * model.gate + 12 * model.hidden


def _static(model: Dimensions, levers: Levers, method: Method, rank: int, optimizer: str, *, width: int) -> float:
    """Bytes that are held throughout training: weights, and trainable parameters with gradient and optimizer state."""
    table = model.words * model.hidden
    if method == "full":
        return ADAM["adamw"] * (model.body + table * (1 if model.tied else 2))
    weight = NF4_BYTES if method == "qlora" and not levers.unpack else width
    tables = 1 if model.tied or levers.host else 2
    return weight * model.body + width * tables * table + ADAM[optimizer] * model.adapters(rank)
