"""What a run will take, and the settings that make the most of a card: by formulas that measurements bear out.

Memory is counted in the tensors that are kept: weights, adapters with their optimizer, what each layer keeps for the
backward pass, what one layer needs on top while it runs backward, and the head's chunk. Time is the operations of the
products at a share of the card's rate, or what the processor takes to ask for them, whichever is longer; measured in
tests/training/test_planner.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Literal

from agentft.errors import InputError
from agentft.training.recipe import Method

__all__ = [
    "CARDS",
    "Card",
    "Choice",
    "Dimensions",
    "Estimate",
    "Levers",
    "Workload",
    "choose",
    "dimensions",
    "estimate",
]

GIB = 1 << 30
HALF = 2
"""Bytes of a number in bf16; fp32 takes twice as many."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Of a weight, with its share of the block scales, which are quantised themselves."""
ADAM = {"adamw": 16, "adamw_8bit": 10}
"""Bytes of a trained number: itself and its gradient in fp32, and two moments."""
PRODUCTS, UNPACKING = 0.54, 1_000
"""The share of a card's rate that a step's products reach; operations that would take as long as unpacking a weight."""
ASKING, ASKING_PACKED = 0.00275, 0.0014
"""Seconds of the processor for one pass through one layer, of any width; what 4-bit weights add. Long packs hide it."""
HOST_BYTES, HEAD_CHUNK = 20e9, (1 << 28) * 2
"""A second, of looked-up embeddings on their way to the card; logits of one chunk, in fp32 and twice in bf16."""
SLACK = 0.4 * GIB  # what the allocator and the libraries hold beyond our tensors
CARDS = {
    "RTX 4060": (8, 30e12),
    "RTX 4070": (12, 58e12),
    "RTX 4080": (16, 97e12),
    "RTX 4090": (24, 165e12),
    "L40S": (48, 362e12),
    "H100": (80, 775e12),
}
"""GiB, and operations a second: the vendor's dense bf16 figure, but for the H100, which was measured."""
TARGET_STEPS = 100  # fewer teach little, so packs are not made longer than leaves so many
LENGTHS = tuple(512 * count for count in (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48))
CHECKPOINTS = (0, 4, 3, 2, 1)  # each so-many-th layer is recomputed; 0: none


@dataclass(frozen=True, slots=True)
class Dimensions:
    """Of a model: hidden, gate and head widths, numbers of layers and of words. `tied`: the head is the embedding."""

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
    """What a plan sets. `every`: each so-many-th layer is recomputed, 0: none. `pack`: tokens of one pack."""

    pack: int
    every: int
    unpack: bool = False
    host: bool = False
    liger: bool = True


@dataclass(frozen=True, slots=True)
class Estimate:
    """`memory`: peak bytes of tensors. `seconds`: of one pack, forward and backward."""

    memory: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Card:
    """Bytes that are free, and operations a second of a large bf16 product."""

    free: float
    rate: float


@dataclass(frozen=True, slots=True)
class Workload:
    """What is trained on. `computed`: tokens that an epoch computes in packs of so many. `longest`: of one sample."""

    samples: int
    epochs: int
    longest: int
    computed: Callable[[int], int]


@dataclass(frozen=True, slots=True)
class Choice:
    """The settings, what they are predicted to take, and why. `seconds`: of an epoch."""

    levers: Levers
    estimate: Estimate
    seconds: float
    samples_per_second: float


def dimensions(config: Any) -> Dimensions:
    """From a transformers config; InputError for a mixture of experts, whose memory is not foreseen."""
    text = config.get_text_config()
    if any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts")):
        raise InputError(f"the model ({text.model_type}) is a mixture of experts, which the planner does not know")
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


def estimate(
    model: Dimensions,
    levers: Levers,
    method: Method = "qlora",
    *,
    rank: int = 16,
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
    rate: float = 1.0,
    width: int = HALF,
) -> Estimate:
    """What one step of one pack takes, with numbers of `width` bytes."""
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
    products = 2 * model.body * tokens * (passes + (1 if method == "full" else 0)) / PRODUCTS
    products += UNPACKING * model.body * passes if packed else 0
    travel = tokens * width * model.hidden / HOST_BYTES if levers.host else 0
    computing, asking = products / rate + travel, (ASKING + ASKING_PACKED * packed) * model.layers * passes
    return Estimate(memory, (computing**4 + asking**4) ** 0.25)  # nearly the longer one, where they are far apart


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
    width: int = HALF,
) -> Choice | None:
    """The fastest settings that fit; None if nothing does. `fixed`: fields of `Levers` that the user has set."""
    room = card.free - SLACK
    best: Choice | None = None
    for levers in _candidates(model, work, method, fixed or {}, liger):
        # A sample longer than a pack gets a pack of its own.
        largest = replace(levers, pack=max(levers.pack, work.longest))
        if estimate(model, largest, method, rank=rank, optimizer=optimizer, width=width).memory > room:
            continue
        found = estimate(model, levers, method, rank=rank, optimizer=optimizer, rate=card.rate, width=width)
        computed = work.computed(levers.pack)
        seconds = found.seconds * computed / levers.pack
        if best is None or seconds < best.seconds:
            best = Choice(levers, found, seconds, work.samples / seconds)
    return best


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
    """Those that leave enough steps, or else the shortest."""
    enough = [pack for pack in LENGTHS if work.epochs * work.computed(pack) >= TARGET_STEPS * pack]
    return enough or [LENGTHS[0]]


def _saved(model: Dimensions, levers: Levers, width: int) -> int:
    """Bytes of a token that a layer keeps for its backward pass.

    Residuals and norms, twice each; queries and attention's output; keys and values; gate, up and their product.
    transformers' own norms and gates keep more.
    """
    kept = width * (4 * model.hidden + 2 * model.queries + 2 * model.keys + 3 * model.gate)
    return kept if levers.liger else kept + width * model.gate + 12 * model.hidden


def _static(model: Dimensions, levers: Levers, method: Method, rank: int, optimizer: str, *, width: int) -> float:
    """Bytes that are there all the time."""
    table = model.words * model.hidden
    if method == "full":
        return ADAM["adamw"] * (model.body + table * (1 if model.tied else 2))
    weight = NF4_BYTES if method == "qlora" and not levers.unpack else width
    tables = 1 if model.tied or levers.host else 2
    return weight * model.body + width * tables * table + ADAM[optimizer] * model.adapters(rank)
