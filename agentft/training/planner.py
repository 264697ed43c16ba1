"""Predicts the memory and time of training, and chooses the fastest settings that fit into a card.

Memory is the sum of the tensors that are kept: weights, adapters with their optimizer state, the activations that each
layer keeps for the backward pass, what one layer needs on top while it runs backward, and one chunk of logits. Time is
the larger of two: the matrix products at a share of the card's rate, and the CPU's launch overhead. The formulas are
checked against measurements in tests/training/test_planner.py.
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
"""Samples that are packed to predict a whole epoch."""
BF16_BYTES = 2
"""Bytes of a number in bf16; fp32 takes twice as many."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight, with its share of the block scales, which are quantised themselves."""
ADAM = {"adamw": 16, "adamw_8bit": 10}
"""Bytes of a trained parameter: itself and its gradient in fp32, and the two moments of AdamW."""
UTILISATION, UNPACKING = 0.54, 1_000
"""Share of the card's rate that matrix products reach; cost of unpacking a 4-bit weight, in operations."""
LAUNCH, LAUNCH_4BIT = 0.00275, 0.0014
"""CPU launch overhead per layer and pass, in seconds; what 4-bit weights add to it. Long packs hide it."""
HOST_BYTES, HEAD_CHUNK = 20e9, (1 << 28) * 2
"""Transfer rate of embeddings from the host, in bytes a second; bytes of one chunk of logits (fp32, and twice bf16)."""
SLACK = 0.4 * GIB  # held by the allocator and the libraries beyond our tensors
CARDS = {
    "RTX 4060": (8, 30e12),
    "RTX 4070": (12, 58e12),
    "RTX 4080": (16, 97e12),
    "RTX 4090": (24, 165e12),
    "L40S": (48, 362e12),
    "H100": (80, 775e12),
}
"""GiB, and bf16 operations a second: the vendor's dense figure, except for the H100, which was measured."""
TARGET_STEPS = 100
"""Packs are not made so long that a run has fewer steps than this."""
LENGTHS = tuple(512 * count for count in (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48))
CHECKPOINTS = (0, 4, 3, 2, 1)
"""Recompute every n-th layer; 0: none."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A model's widths, layers and vocabulary. `tied`: the head shares the embedding's weights."""

    hidden: int
    gate: int
    queries: int
    keys: int
    layers: int
    words: int
    tied: bool

    @property
    def body(self) -> int:
        """Weights of the decoder layers."""
        return self.layers * (self.hidden * (2 * self.queries + 2 * self.keys) + 3 * self.hidden * self.gate)

    def adapters(self, rank: int) -> int:
        """Weights of adapters on all linear layers."""
        both = self.hidden + self.queries
        return self.layers * rank * (2 * both + 2 * (self.hidden + self.keys) + 3 * (self.hidden + self.gate))


@dataclass(frozen=True, slots=True)
class Levers:
    """The settings that a plan chooses. `pack`: tokens of one pack. `every`: recompute every n-th layer, 0: none."""

    pack: int
    every: int
    unpack: bool = False
    host: bool = False
    liger: bool = True


@dataclass(frozen=True, slots=True)
class StepCost:
    """`memory`: peak bytes of tensors. `seconds`: forward and backward of one pack."""

    memory: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU: free bytes, and operations a second of a large matrix product."""

    free: float
    rate: float


@dataclass(frozen=True, slots=True)
class Workload:
    """The data. `longest`: tokens of the longest sample. `computed(pack)`: tokens computed in an epoch."""

    samples: int
    epochs: int
    longest: int
    computed: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen settings and their predicted cost. `seconds`: of an epoch."""

    levers: Levers
    estimate: StepCost
    seconds: float
    samples_per_second: float


def dimensions(config: Any) -> Dimensions:
    """The dimensions in a transformers config.

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
    """The cost of one pack, forward and backward, with activations of `width` bytes each."""
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
    fixed: dict[str, Any] | None = None,
    liger: bool = True,
    width: int = BF16_BYTES,
) -> Choice | None:
    """The fastest settings that fit; None if none fit. `fixed`: fields of `Levers` that the user has set."""
    room = card.free - SLACK
    best: Choice | None = None
    for levers in _candidates(model, work, method, fixed or {}, liger):
        # A sample longer than a pack gets a pack of its own.
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
    """The samples as a workload, from packing (at most `PACKED` of) them."""
    packed, share = samples[:PACKED], recipe.sharing != "off"

    @cache
    def computed(pack: int) -> int:
        tokens = sum(made.tokens for made in epoch_packs(packed, pack, recipe.seed, 0, share=share))
        return tokens * len(samples) // len(packed)

    longest = max(sample.inputs for sample in samples)
    return Workload(len(samples), recipe.epochs, longest, computed)


def _candidates(
    model: Dimensions, work: Workload, method: Method, fixed: dict[str, Any], liger: bool
) -> Sequence[Levers]:
    lengths = [fixed["pack"]] if "pack" in fixed else _lengths(work)
    host = [fixed["host"]] if "host" in fixed else [False, True] if method != "full" and not model.tied else [False]
    unpack = [fixed["unpack"]] if "unpack" in fixed else [False, True] if method == "qlora" else [False]
    every = [fixed["every"]] if "every" in fixed else CHECKPOINTS
    ways = product(lengths, every, unpack, host)
    return [Levers(pack, number, whole, away, liger) for pack, number, whole, away in ways]


def _lengths(work: Workload) -> list[int]:
    """Pack lengths that leave enough steps, or else the shortest."""
    enough = [pack for pack in LENGTHS if work.epochs * work.computed(pack) >= TARGET_STEPS * pack]
    return enough or [LENGTHS[0]]


def _saved(model: Dimensions, levers: Levers, width: int) -> int:
    """Bytes that a layer keeps for its backward pass, for each token.

    Residuals and norms, twice each; queries and attention's output; keys and values; gate, up and their product.
    transformers' own norms and gates keep more.
    """
    kept = width * (4 * model.hidden + 2 * model.queries + 2 * model.keys + 3 * model.gate)
    return kept if levers.liger else kept + width * model.gate + 12 * model.hidden


def _static(model: Dimensions, levers: Levers, method: Method, rank: int, optimizer: str, *, width: int) -> float:
    """Bytes that are held throughout: weights, and what is trained with its optimizer state."""
    table = model.words * model.hidden
    if method == "full":
        return ADAM["adamw"] * (model.body + table * (1 if model.tied else 2))
    weight = NF4_BYTES if method == "qlora" and not levers.unpack else width
    tables = 1 if model.tied or levers.host else 2
    return weight * model.body + width * tables * table + ADAM[optimizer] * model.adapters(rank)
