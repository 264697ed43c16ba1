"""The training loop: takes packs in order, and computes one weighted loss over each optimizer step.

Several processes sum their gradients once a step (`ranks.py`); for DeepSpeed, accelerate wraps the model.
On a GPU, a step does not wait for its loss: it is reported after the next step was launched, and the next step's packs
are collated while the GPU computes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, DeepSpeedPlugin, DistributedType
from accelerate.utils import set_seed
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from agentft.engine.cascade import send
from agentft.engine.collation import Batch, collate
from agentft.engine.dealing import deal, pack_cost
from agentft.engine.lora import FusedLora, bf16_copies
from agentft.engine.loss import weighted_loss
from agentft.engine.packing import Pack, Sample
from agentft.engine.speed import HostEmbedding
from agentft.errors import AgentftError
from agentft.training.checkpoints import prune_checkpoints
from agentft.training.events import OnEvent, RankUse, Saved, StepDone
from agentft.training.machine import peak_memory
from agentft.training.memory import SHAPE_MULTIPLE, PackLimit
from agentft.training.optimizer import make_optimizer, make_schedule
from agentft.training.ranks import join_ranks
from agentft.training.recipe import Recipe
from agentft.training.state import load_state, save_state

__all__ = ["TrainingLoop"]


@dataclass(frozen=True, slots=True)
class _Work:
    """This process's packs of one optimizer step, on the host. The totals are over all processes."""

    batches: list[Batch]
    samples: int
    tokens: int
    unshared: int
    supervised: int
    weight: float
    stop: bool


@dataclass(frozen=True, slots=True)
class _PendingStep:
    """A launched step whose loss and gradient norm may not be computed yet."""

    step: int
    work: _Work
    loss: Tensor
    norm: Any
    rate: float
    began: float


class TrainingLoop:
    """Trains a model on packs.

    Args:
        model: a causal model, with or without adapters, on its device.
        recipe: resolved.
        samples: the samples that the packs' members index into.
        packs: all packs of the run, in order. Each optimizer step takes `recipe.batch` packs, dealt to the processes.
        on_event: receives each step and each checkpoint, in the main process.
        should_stop: called after each step; True saves a checkpoint and ends the run.
        checkpoints: the folder for checkpoints; None: save none.
        deepspeed: DeepSpeed's configuration; None: each process has the whole model, and the gradients are summed.
    """

    def __init__(
        self,
        model: Any,
        recipe: Recipe,
        samples: Sequence[Sample],
        packs: Sequence[Pack],
        *,
        on_event: OnEvent,
        should_stop: Callable[[], bool] = lambda: False,
        checkpoints: Path | None = None,
        deepspeed: dict[str, Any] | None = None,
    ) -> None:
        if deepspeed is not None and checkpoints is not None:
            raise NotImplementedError("checkpoints of DeepSpeed's sharded state")
        self._ranks = join_ranks()
        self._world = self._ranks.size
        filled = None if deepspeed is None else _completed(deepspeed, recipe, self._world)
        plugin = None if filled is None else DeepSpeedPlugin(hf_ds_config=filled)
        cpu = not torch.cuda.is_available()
        self.accelerator = Accelerator(cpu=cpu, mixed_precision="no", deepspeed_plugin=plugin)
        self.model, self.recipe = model, recipe
        self._samples, self._packs = samples, packs
        self._on_event: OnEvent = on_event if self._ranks.rank == 0 else lambda _: None
        self._should_stop, self._checkpoints = should_stop, checkpoints
        set_seed(recipe.seed)

        self.steps = -(-len(packs) // recipe.batch)
        self._samples_seen = list(accumulate(len(pack.members) for pack in packs))

        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(model, recipe)
        self._schedule = make_schedule(self.optimizer, recipe, self.steps)
        self._wrap()
        self._find_parts()
        self._width = int(getattr(model.config.get_text_config(), "hidden_size", 1024))
        alone = self._world == 1 or not self._deepspeed
        self._limit = PackLimit(samples, share=recipe.sharing != "off", alone=alone, on_event=self._on_event)
        self._pending: _PendingStep | None = None
        self._reported_at = 0.0

    def _wrap(self) -> None:
        """Let accelerate wrap the model for DeepSpeed; otherwise only move it to this process's device."""
        self._deepspeed = self.accelerator.distributed_type == DistributedType.DEEPSPEED
        self.wrapped, self.device = self.model, self._trained[0].device
        if self._deepspeed:
            self.wrapped, _ = self.accelerator.prepare(self.model, self.optimizer)
            self.device = self.accelerator.device

    def _find_parts(self) -> None:
        """Find the modules that each step needs, once."""
        modules = list(self.model.modules())
        half = self.recipe.dtype == "bf16"
        self._host = next((module for module in modules if isinstance(module, HostEmbedding)), None)
        products = (getattr(module, "forward", None) for module in modules)
        self._products = [one for one in products if isinstance(one, FusedLora)] if half and not self._deepspeed else []
        # Full training keeps the weights in fp32 and computes in bf16.
        self._autocast = half and self.recipe.method == "full"

    def run(self, checkpoint: Path | None = None) -> int:
        """Train from `checkpoint` (or from the start) to the end or until `should_stop`; return the finished steps.

        Raises:
            AgentftError: the loss is not finite.
            InputError: a single sample does not fit into memory, or the checkpoint belongs to another model.
            OSError: the disk is full.
        """
        step = 0
        if checkpoint is not None:
            step = load_state(checkpoint, self.model, self.optimizer, self._schedule)
        if not self._deepspeed:
            self._ranks.align(self._trained)
        self.wrapped.train()
        work = self._collate(step) if step < self.steps else None
        while work is not None:
            began = time.monotonic()
            loss = self._accumulate(work)
            upcoming = self._collate(step + 1) if step + 1 < self.steps else None  # while a GPU computes
            norm, rate = self._update()
            step += 1
            last = upcoming is None or (self._should_stop() if self._world == 1 else work.stop)
            self._report(_PendingStep(step, work, loss, norm, rate, began))
            if last or step % self.recipe.save_steps == 0:
                self._save(step)
            work = None if last else upcoming
        self._flush()
        return step

    def _collate(self, step: int) -> _Work:
        """This process's packs of step number `step` (from 0)."""
        packs = self._packs[step * self.recipe.batch : (step + 1) * self.recipe.batch]
        dealt = deal([pack_cost(pack, self._width) for pack in packs], self._world)
        mine = [packs[number] for number in dealt[self._ranks.rank]]
        batches = [collate([pack], self._samples, SHAPE_MULTIPLE) for pack in mine]
        counts = [
            float(sum(len(pack.members) for pack in mine)),
            float(sum(batch["tokens"] for batch in batches)),
            float(sum(pack.unshared for pack in mine)),
            float(sum(int((batch["weights"] > 0).sum()) for batch in batches)),
            sum(float(batch["weights"].sum(dtype=torch.float64)) for batch in batches),
        ]
        stop = False
        if self._world > 1:
            # All processes must stop together, so a stop takes effect after the step that is being collated.
            *counts, stops = self._ranks.gather([*counts, float(self._should_stop())]).sum(dim=0).tolist()
            stop = stops > 0
            # DeepSpeed needs the same number of backward passes in every process, if need be with weights of 0.
            while self._deepspeed and len(batches) < max(map(len, dealt)):
                batches.append(collate(packs[:1], self._samples, SHAPE_MULTIPLE))
                batches[-1]["weights"].zero_()
        samples, tokens, unshared, supervised, weight = counts
        return _Work(batches, int(samples), int(tokens), int(unshared), int(supervised), weight, stop)

    def _accumulate(self, work: _Work) -> Tensor:
        """Forward and backward passes of a step; return its loss. Out of memory: start again with smaller packs."""
        while True:
            with bf16_copies(self._products):
                try:
                    return self._forward_backward(work)
                except torch.OutOfMemoryError:
                    failed = self._current_batch
            # Not in the handler, because its traceback keeps the tensors of the failed pack alive.
            self._clear_gradients()
            self._limit.lower(failed)

    def _forward_backward(self, work: _Work) -> Tensor:
        losses: list[Tensor] = []
        for number, whole in enumerate(work.batches, 1):
            for batch in self._limit.split(whole):
                self._current_batch = batch
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                    loss = weighted_loss(self.wrapped, self._to_device(batch), work.weight, self.recipe.loss)
                if self._deepspeed:  # it averages gradients over the processes
                    self.wrapped.set_gradient_accumulation_boundary(is_boundary=number == len(work.batches))
                    self.wrapped.backward(loss * self._world, scale_wrt_gas=False)
                else:
                    loss.backward()
                losses.append(loss.detach())
        return torch.stack(losses).sum() if losses else torch.zeros((), device=self.device)

    def _to_device(self, batch: Batch) -> Batch:
        """Copy the batch to the device, asynchronously."""
        if self._host is not None:
            self._host.tokens = batch["input_ids"]
        copy = {key: send(value, self.device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        return cast(Batch, copy)

    def _update(self) -> tuple[Any, float]:
        """Clip, step and clear the gradients; return the norm before clipping and this step's learning rate."""
        rate = float(self._schedule.get_last_lr()[0])
        if self._deepspeed:
            self.wrapped.step()
            norm = self.wrapped.get_global_grad_norm()
        else:
            self._ranks.sum_gradients(self._trained)
            norm = clip_grad_norm_(self._trained, self.recipe.clip or math.inf)
            self.optimizer.step()
            self._clear_gradients()
        self._schedule.step()
        return norm, rate

    def _clear_gradients(self) -> None:
        for parameter in self._trained:
            parameter.grad = None

    def _report(self, step: _PendingStep) -> None:
        """Report a step; on a GPU only the previous one, since waiting for this one's loss would leave the GPU idle."""
        self._flush()
        self._pending = step
        if self.device.type != "cuda":
            self._flush()

    def _flush(self) -> None:
        """Report the pending step, if there is one."""
        pending, self._pending = self._pending, None
        if pending is None:
            return
        work = pending.work
        found = self._ranks.gather([float(pending.loss), peak_memory(), self._ranks.take_idle()])
        loss = float(found[:, 0].sum())
        if not math.isfinite(loss):
            raise AgentftError(
                f"the loss is {loss} at step {pending.step}, so training stops; try a lower lr, or dtype = fp32"
            )
        began, self._reported_at = max(pending.began, self._reported_at), time.monotonic()
        seconds = self._reported_at - began
        self._on_event(
            StepDone(
                step=pending.step,
                epoch=self._samples_seen[min(pending.step * self.recipe.batch, len(self._samples_seen)) - 1]
                / len(self._samples),
                loss=loss,
                lr=pending.rate,
                grad_norm=float(pending.norm or 0.0),
                samples=work.samples,
                tokens=work.tokens,
                unshared=work.unshared,
                supervised=work.supervised,
                weight=work.weight,
                seconds=seconds,
                memory=int(found[:, 1].max()),
                ranks=tuple(RankUse(int(memory), round(idle / seconds, 3)) for _, memory, idle in found.tolist()),
            )
        )

    def _save(self, step: int) -> None:
        self._flush()
        if self._checkpoints is None:
            return
        target = self._checkpoints / f"checkpoint-{step}"
        if self._ranks.rank == 0:
            save_state(target, self.model, self.optimizer, schedule=self._schedule, step=step)
            prune_checkpoints(self._checkpoints, self.recipe.keep_checkpoints)
        self._ranks.wait()
        self._on_event(Saved(target, step))


def _completed(deepspeed: dict[str, Any], recipe: Recipe, processes: int) -> dict[str, Any]:
    """DeepSpeed's configuration, completed from the recipe."""
    batch = {"train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": max(recipe.batch // processes, 1)}
    return deepspeed | batch | {"gradient_clipping": recipe.clip}
