"""Predicts the memory and time of training, and chooses the fastest settings that fit into a card.

Memory is the sum of the tensors that are kept: weights, trainable parameters with their optimizer state, the
activations that each layer keeps for the backward pass, what one layer needs on top while it runs backward, and logits.
Time is the larger of two: the work of the GPU (matmuls at a fraction of its rate, elementwise operations at its memory
bandwidth, attention, the LM head), and the CPU's launch overhead. The factors were fitted to runs on an H100, of models
from 135M to 7B (tests/training/test_planner.py holds the measurements), those of launches to runs on an H200 as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any, Literal

from agentft.errors import InputError
from agentft.training.recipe import Method
from agentft.training.sharding import Sharding
from agentft.training.workload import Workload

__all__ = [
    "CARDS",
    "USUAL_LAUNCH",
    "Card",
    "Choice",
    "Dimensions",
    "Levers",
    "PackLoad",
    "StepCost",
    "choose",
    "cpu_seconds",
    "describe_choice",
    "describe_duration",
    "dimensions",
    "step_cost",
]

GIB = 1 << 30
BF16_BYTES = 2
"""Bytes of a bf16 number; fp32 takes twice as many."""
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
"""Bytes of a 4-bit weight, including its share of the block scales, which are quantised themselves."""
ADAM = {"adamw": 16, "adamw_8bit": 10}
"""Bytes of an adapter's parameter: itself and its gradient in fp32, and the two moments of AdamW."""
FULL_WEIGHT, FULL_HIDDEN, FULL_CHECKPOINT, FULL_LOGIT = 14.25, 20.7, 2.44, 12.3
"""Bytes in full training: of a parameter at the peak; of a hidden value, in each layer and in a recomputed one; of a
logit. Under autocast the residuals, norms and logits are in fp32."""
QK_NORM = 1.5
"""What queries and keys keep more if they are normalised, relative to themselves."""
QK_NORMS = frozenset({"qwen3", "gemma3", "gemma3_text", "olmo2"})
"""Model types whose queries and keys are normalised."""
MATMULS, ATTENTION, ELEMENTWISE = 1.24, 4.28, 3.12
"""Measured time, relative to operations at the rate of a large matmul, or to bytes at the memory's bandwidth."""
LAUNCH, LAUNCH_ADAPTERS, LAUNCH_4BIT, LAUNCH_QK, LAUNCH_SHARING = 12.4, 2.4, 4.8, 1.5, 1.95
"""CPU launch overhead per layer and pass, relative to `Card.launch`, and what is added to it. Long packs hide it."""
LAUNCH_BOUND = 0.8
"""Share of a step in launches above which it is launch-bound. Time was within 15 % in all measured runs below it."""
USUAL_LAUNCH = 199e-6
"""A card's `launch` on the host of the H100 to which the planner was fitted."""
UNPACKED_BYTES, LOGIT_BYTES, UPDATED_BYTES = 3.3, 145, 34
"""Bytes that are read and written to dequantise a 4-bit weight, for the loss and gradient of a logit, and to cast, clip
and update a trained weight."""
HOST_BYTES, HEAD_LOGIT, HEAD_CHUNK = 20e9, 8, 1 << 29
"""Transfer rate of embeddings from the host, in bytes a second; bytes of a logit (fp32, and twice bf16), and at most
of one chunk of logits."""
WORKSPACE = 0.1 * GIB
"""Bytes that matrix products need beside their operands."""
SLACK, FRAGMENTS = 0.4 * GIB, 1.1
"""Held by the allocator and the libraries beyond our tensors: bytes, and in full training, relative to the tensors."""
CARDS = {
    "RTX 4060": (8, 30e12, 240e9),
    "RTX 4070": (12, 58e12, 440e9),
    "RTX 4080": (16, 97e12, 630e9),
    "RTX 4090": (24, 165e12, 890e9),
    "L40S": (48, 362e12, 760e9),
    "H100": (80, 775e12, 2_960e9),
}
"""GiB, bf16 operations a second, and bytes a second. The H100's rates were measured. The others are the vendor's,
without sparsity; their bandwidth is multiplied by 0.88, which a copy reaches on the H100."""
CPU_SHARE = 0.4
"""The fraction of its rate of a large matmul that a CPU reached in training, within a quarter."""
TARGET_STEPS = 100
"""Packs are short enough for a run to have at least this many steps."""
LENGTHS = tuple(512 * count for count in (1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 20, 24, 28, 32, 40, 48))
CHECKPOINTS = (0, 4, 3, 2, 1)
"""Recompute every n-th layer; 0: none."""


@dataclass(frozen=True, slots=True)
class Dimensions:
    """A model's widths, layers and vocabulary. `tied`: the LM head shares the embedding's weights.
    `qk_norm`: queries and keys are normalised.
    """

    hidden: int
    gate: int
    queries: int
    keys: int
    layers: int
    words: int
    tied: bool
    qk_norm: bool = False

    @property
    def tables(self) -> int:
        """The number of weights in the embeddings and the LM head."""
        return (1 if self.tied else 2) * self.words * self.hidden

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
class StepCost:
    """`memory`: peak bytes of tensors. `seconds`: time of one pack's forward and backward passes, during which the CPU
    launches kernels for `launches` seconds.
    """

    memory: float
    seconds: float
    launches: float = 0.0

    @property
    def launch_bound(self) -> bool:
        """Whether the CPU's launches take about as long as the GPU's work, so that `seconds` may be 30 % off."""
        return self.launches > LAUNCH_BOUND * self.seconds


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU. `free`: free bytes. `rate`: operations a second of a large matmul. `bandwidth`: bytes a second copied.
    `launch`: seconds its host takes to launch a tiny layer's forward and backward passes.
    """

    free: float
    rate: float
    bandwidth: float
    launch: float = USUAL_LAUNCH


@dataclass(frozen=True, slots=True)
class PackLoad:
    """What fills a pack. `supervised`: its supervised tokens. `context`: how many tokens a token attends to. `shared`:
    whether its samples share tokens.
    """

    supervised: float
    context: float
    shared: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen settings and their predicted cost. `seconds`: time of an epoch. `total_seconds`: time of the run."""

    levers: Levers
    estimate: StepCost
    seconds: float
    total_seconds: float
    samples_per_second: float


def dimensions(config: Any) -> Dimensions:
    """Read the dimensions from a transformers config.

    Raises:
        InputError: the model is a mixture of experts or has no attention, which the formulas do not cover.
    """
    text = config.get_text_config()
    heads = getattr(text, "num_attention_heads", None)
    mixed = any(getattr(text, name, None) for name in ("num_experts", "num_local_experts", "n_routed_experts"))
    if mixed or not heads:
        kind = "is a mixture of experts" if mixed else "has no attention heads"
        raise InputError(f"the model ({text.model_type}) {kind}, which the planner does not cover")
    width = getattr(text, "head_dim", None) or text.hidden_size // heads
    return Dimensions(
        hidden=text.hidden_size,
        gate=getattr(text, "intermediate_size", None) or 4 * text.hidden_size,
        queries=heads * width,
        keys=(getattr(text, "num_key_value_heads", None) or heads) * width,
        layers=text.num_hidden_layers,
        words=text.vocab_size,
        tied=bool(text.tie_word_embeddings),
        qk_norm=text.model_type in QK_NORMS,
    )


def step_cost(
    model: Dimensions,
    levers: Levers,
    method: Method = "qlora",
    *,
    load: PackLoad,
    rank: int = 16,
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
    card: Card | None = None,
    width: int = BF16_BYTES,
    sharding: Sharding | None = None,
) -> StepCost:
    """The cost of one pack's forward and backward passes; an activation takes `width` bytes.

    Without a card, the time is 0. `sharding`: the model is sharded over several cards, of which this is one.
    """
    full, logits = method == "full", FULL_LOGIT * load.supervised * model.words
    if sharding:
        adapters, tables = model.adapters(rank), model.tables
        packed = NF4_BYTES if method == "qlora" and not levers.unpack else width
        trained, frozen = (model.body + tables, 0.0) if full else (adapters, packed * model.body + width * tables)
        memory = sharding.held(trained, frozen) + _activations(model, levers, width, logits)
    else:
        chunk = min(HEAD_CHUNK, HEAD_LOGIT * load.supervised * model.words)
        memory = WORKSPACE + _static(model, levers, method, rank, optimizer, width=width)
        memory += _full_activations(model, levers, load, width) if full else _activations(model, levers, width, chunk)
    computing, launches = _seconds(model, levers, method, load, card, width) if card else (0.0, 0.0)
    return StepCost(memory, (computing**4 + launches**4) ** 0.25, launches)  # a smooth maximum


def choose(
    model: Dimensions,
    card: Card,
    work: Workload,
    method: Method = "qlora",
    *,
    rank: int = 16,
    optimizer: Literal["adamw", "adamw_8bit"] = "adamw",
    fixed: Mapping[str, Any] | None = None,
    liger: bool = True,
    width: int = BF16_BYTES,
    sharding: Sharding | None = None,
) -> Choice | None:
    """The fastest settings that fit into `card`, or None if none fit. `fixed`: levers that the user has set."""
    room = (card.free - SLACK) / (FRAGMENTS if method == "full" else 1)
    cost = partial(step_cost, model, method=method, rank=rank, optimizer=optimizer, width=width, sharding=sharding)
    best: Choice | None = None
    for levers in _candidates(model, work, method, fixed or {}, liger):
        most, computed = work.fullest(levers.pack), work.computed(levers.pack)
        usual = min(most, levers.pack)
        usually = PackLoad(work.supervised * usual / computed, work.context, work.shared)
        fully = replace(usually, supervised=work.supervised * most / computed)
        memory = cost(levers=replace(levers, pack=most), load=fully).memory
        found = cost(levers=replace(levers, pack=usual), load=usually, card=card)
        seconds = found.seconds * computed / usual
        if memory <= room and (best is None or seconds < best.seconds):
            estimate = replace(found, memory=memory)
            best = Choice(levers, estimate, seconds, seconds * work.epochs, work.samples / seconds)
    return best


def cpu_seconds(model: Dimensions, work: Workload, method: Method, pack: int, rate: float) -> float:
    """Roughly how long the run takes on a CPU; `rate`: operations a second of a large matmul."""
    operations = 2 * model.body * work.computed(pack) * (3 if method == "full" else 2)
    return work.epochs * operations / (CPU_SHARE * rate)


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
    speed = f"{choice.samples_per_second:.3g} samples/s, {describe_duration(choice.total_seconds)} in all"
    if choice.estimate.launch_bound:
        speed += " (give or take 30 %: bound by kernel launches on the CPU)"
    return f"{memory:.1f} GiB, {speed}, with {', '.join(words)}"


def describe_duration(seconds: float) -> str:
    """A time span in the unit that fits: `40 s`, `12 min`, `3.5 h`."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6_000 else f"{seconds / 3_600:.1f} h"


def _candidates(
    model: Dimensions, work: Workload, method: Method, fixed: Mapping[str, Any], liger: bool
) -> Iterator[Levers]:
    def free(name: str, options: Sequence[Any]) -> Sequence[Any]:
        return [fixed[name]] if name in fixed else options

    packs = [fixed["pack"]] if "pack" in fixed else _lengths(work)
    every = free("every", CHECKPOINTS)
    unpack = free("unpack", (False, True) if method == "qlora" else (False,))
    host = free("host", (False, True) if method != "full" and not model.tied else (False,))
    for tokens, recomputed, unpacked, hosted in product(packs, every, unpack, host):
        yield Levers(tokens, recomputed, unpacked, hosted, liger)


def _lengths(work: Workload) -> list[int]:
    """Pack lengths that give enough steps, or else the shortest length."""
    enough = [pack for pack in LENGTHS if work.epochs * work.computed(pack) >= TARGET_STEPS * pack]
    return enough or [LENGTHS[0]]


def _recomputed(model: Dimensions, levers: Levers) -> int:
    """How many layers are recomputed."""
    return -(-model.layers // levers.every) if levers.every else 0


def _activations(model: Dimensions, levers: Levers, width: int, logits: float) -> float:
    """Bytes of activations at the peak, with frozen weights or all in `width` bytes; `logits`: bytes of the head's."""
    tokens, recomputed = levers.pack, _recomputed(model, levers)
    saved = tokens * _saved(model, levers, width)
    gates: float = tokens * width * model.gate
    recomputable = gates if levers.liger else 0  # see `recompute_gates`
    kept = (model.layers - recomputed) * (saved - recomputable) + recomputed * tokens * width * model.hidden
    running = 2 * gates + 3 * tokens * width * model.hidden + width * model.hidden * model.gate
    running += saved - recomputable if recomputed else recomputable
    return kept + max(running, logits)


def _full_activations(model: Dimensions, levers: Levers, load: PackLoad, width: int) -> float:
    """Bytes of activations at the peak, with trainable weights: logits of all supervised tokens exist at once."""
    recomputed = _recomputed(model, levers)
    inner = 0.92 * width * (2 * model.queries + 2 * model.keys + 3 * model.gate) + FULL_HIDDEN * model.hidden
    layers = max(model.layers - recomputed, 1) * inner + recomputed * FULL_CHECKPOINT * model.hidden
    return levers.pack * layers + FULL_LOGIT * load.supervised * model.words


def _saved(model: Dimensions, levers: Levers, width: int) -> float:
    """Bytes per token that a layer keeps for its backward pass.

    These are two residuals and two norms; queries and the attention's output; keys and values; gate, up and their
    product. transformers' own norms and gates keep more than Liger's.
    """
    kept: float = width * (4 * model.hidden + 2 * model.queries + 2 * model.keys + 3 * model.gate)
    kept += QK_NORM * width * (model.queries + model.keys) if model.qk_norm else 0
    return kept if levers.liger else kept + width * model.gate + 12 * model.hidden


def _seconds(  # noqa: PLR0917
    model: Dimensions, levers: Levers, method: Method, load: PackLoad, card: Card, width: int
) -> tuple[float, float]:
    """How long the GPU computes, and how long the CPU launches kernels; both happen at the same time."""
    full, packed, tokens = method == "full", method == "qlora" and not levers.unpack, levers.pack
    again = _recomputed(model, levers) / model.layers
    passes = 2 + again
    head = 2 * load.supervised * model.words * model.hidden * (2 + full)
    matmuls = 2 * model.body * tokens * (passes + full) + head
    attention = 4 * tokens * load.context * model.queries * model.layers * (3.5 + again)  # backward takes 2.5 forwards
    wide = 4 * model.hidden + 2 * model.queries + 2 * model.keys + 3 * model.gate
    elementwise = ELEMENTWISE * tokens * model.layers * width * wide * passes
    elementwise += LOGIT_BYTES * load.supervised * model.words
    elementwise += UNPACKED_BYTES * model.body * passes if packed else 0
    elementwise += UPDATED_BYTES * (model.body + model.tables) if full else 0
    transfer = tokens * width * model.hidden / HOST_BYTES if levers.host else 0
    computing = (MATMULS * matmuls + ATTENTION * attention) / card.rate + elementwise / card.bandwidth + transfer
    launch = LAUNCH + LAUNCH_ADAPTERS * (not full) + LAUNCH_4BIT * packed
    launch += LAUNCH_QK * model.qk_norm + LAUNCH_SHARING * load.shared
    return float(computing), card.launch * launch * model.layers * passes


def _static(model: Dimensions, levers: Levers, method: Method, rank: int, optimizer: str, *, width: int) -> float:
    """Bytes that are held throughout training: weights, and trainable parameters with gradient and optimizer state."""
    if method == "full":
        return FULL_WEIGHT * (model.body + model.tables)
    weight = NF4_BYTES if method == "qlora" and not levers.unpack else width
    tables = model.words * model.hidden if levers.host else model.tables
    return weight * model.body + width * tables + ADAM[optimizer] * model.adapters(rank)
