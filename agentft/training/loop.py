"""The training loop: takes packs in order, and computes one weighted loss over each optimizer step.

Several processes sum their gradients once a step (`ranks.py`), or DeepSpeed shards the model over them (`zero.py`).
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
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim.lr_scheduler import LambdaLR
from transformers import set_seed

from agentft.engine.cascade import send
from agentft.engine.collation import Batch, collate
from agentft.engine.dealing import deal, pack_cost
from agentft.engine.lora import FusedLora, bf16_copies
from agentft.engine.loss import weighted_loss
from agentft.engine.packing import Pack, Sample
from agentft.engine.speed import HostEmbedding
from agentft.errors import AgentftError, InputError
from agentft.files import find_damage
from agentft.training.checkpoints import prune_checkpoints
from agentft.training.events import Measurement, OnEvent, RankUse, Saved, StepDone
from agentft.training.machine import Moment, peak_memory
from agentft.training.memory import SHAPE_MULTIPLE, PackLimit
from agentft.training.monitor import Measure, Monitor
from agentft.training.optimizer import make_optimizer, make_schedule
from agentft.training.ranks import join_ranks
from agentft.training.recipe import Recipe
from agentft.training.state import load_state, load_weights, save_state
from agentft.training.zero import ShardedModel

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
    figures: Tensor
    rate: float
    began: Moment
    ended: Moment


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
        measures: what to measure between the steps.
        rate: the factor of `recipe.lr` at each step (from 0), in place of the recipe's schedule.
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
        measures: Sequence[Measure] = (),
        rate: Callable[[int], float] | None = None,
    ) -> None:
        self._ranks = join_ranks()
        self._world = self._ranks.size
        self.model, self.recipe = model, recipe
        self._samples, self._packs = samples, packs
        self._on_event: OnEvent = on_event if self._ranks.rank == 0 else lambda _: None
        self._should_stop, self._checkpoints = should_stop, checkpoints
        self._measures, self.monitor = measures, Monitor(recipe)
        set_seed(recipe.seed)

        self.steps = -(-len(packs) // recipe.batch)
        self._samples_seen = list(accumulate(len(pack.members) for pack in packs))

        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimizer = make_optimizer(model, recipe)
        self._schedule = LambdaLR(self.optimizer, rate) if rate else make_schedule(self.optimizer, recipe, self.steps)
        self.wrapped, self.device = model, self._trained[0].device
        self._zero = ShardedModel(model, self.optimizer, recipe, self._ranks) if recipe.deepspeed else None
        if self._zero:
            self.wrapped, self.device = self._zero.engine, self._zero.engine.device
        self._find_parts()
        self._width = int(getattr(model.config.get_text_config(), "hidden_size", 1024))
        alone = self._zero is None
        self._limit = PackLimit(samples, share=recipe.sharing != "off", alone=alone, on_event=self._on_event)
        self._pending: _PendingStep | None = None

    def _find_parts(self) -> None:
        """Find the modules that each step needs, once."""
        modules = list(self.model.modules())
        half = self.recipe.dtype == "bf16"
        self._host = next((module for module in modules if isinstance(module, HostEmbedding)), None)
        products = (getattr(module, "forward", None) for module in modules)
        self._products = [one for one in products if isinstance(one, FusedLora)] if half and not self._zero else []
        # Full training keeps the weights in fp32 and computes in bf16; under DeepSpeed, the weights are bf16.
        self._autocast = half and self.recipe.method == "full" and not self._zero

    def run(self, checkpoint: Path | None = None) -> int:
        """Train from `checkpoint` (or from the start) until the end, `should_stop` or the monitor's stop.

        Returns the number of finished steps.

        Raises:
            AgentftError: the loss is not finite.
            InputError: a single sample does not fit into memory, or the checkpoint belongs to another model.
            OSError: the disk is full.
        """
        step = 0
        if checkpoint is not None:
            step = self._load(checkpoint)
        if not self._zero:
            self._ranks.align(self._trained)
        self.wrapped.train()
        work = self._collate(step) if step < self.steps and not self.monitor.stop else None
        while work is not None:
            began = Moment(self.device)
            loss = self._accumulate(work)
            upcoming = self._collate(step + 1) if step + 1 < self.steps else None  # while a GPU computes
            norm, rate = self._update()
            # Copied asynchronously: to read them here would wait for the GPU.
            figures = torch.stack([loss, norm.to(loss)]).to("cpu", non_blocking=True)
            ended = Moment(self.device)
            step += 1
            last = upcoming is None or (self._should_stop() if self._world == 1 else work.stop)
            self._report(_PendingStep(step, work, figures, rate, began, ended))
            best, stop = self._measure(step)
            last = last or stop
            if last or best or step % self.recipe.save_steps == 0:
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
            while self._zero and len(batches) < max(map(len, dealt)):
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
                if self._zero:
                    self._zero.backward(loss, last=number == len(work.batches))
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

    def _update(self) -> tuple[Tensor, float]:
        """Clip, step and clear the gradients; return the norm before clipping and this step's learning rate."""
        rate = float(self._schedule.get_last_lr()[0])
        if self._zero:
            norm = torch.as_tensor(self._zero.step())
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
        seconds = pending.ended.since(pending.began)
        own, norm = pending.figures.tolist()
        found = self._ranks.gather([own, peak_memory(), self._ranks.take_idle()])
        loss = float(found[:, 0].sum())
        if not math.isfinite(loss):
            raise AgentftError(f"the loss is {loss} at step {pending.step}; lower lr, or use dtype=fp32")
        self._on_event(
            StepDone(
                step=pending.step,
                epoch=self._samples_seen[min(pending.step * self.recipe.batch, len(self._samples_seen)) - 1]
                / len(self._samples),
                loss=loss,
                lr=pending.rate,
                grad_norm=norm,
                samples=work.samples,
                tokens=work.tokens,
                unshared=work.unshared,
                supervised=work.supervised,
                weight=work.weight,
                seconds=seconds,
                memory=int(found[:, 1].max()),
                ranks=tuple(
                    RankUse(int(memory), round(min(idle / seconds, 1.0), 3)) for _, memory, idle in found.tolist()
                ),
            )
        )

    def _measure(self, step: int) -> tuple[bool, bool]:
        """Measure what is due: is this the best step so far, whose weights are kept; and is it time to stop early?"""
        best = False
        for measure in [one for one in self._measures if one.due(step, self.steps)]:
            self._flush()
            began = time.monotonic()
            figures = dict(measure(self, step))
            is_best = True in [self.monitor(name, value, step) for name, value in figures.items()]
            if figures:
                self._on_event(Measurement(step, figures, time.monotonic() - began, is_best))
            best = best or is_best
        return best and self.monitor.keep, self.monitor.stop

    def mean_loss(self, samples: Sequence[Sample], packs: Sequence[Pack]) -> float:
        """The cross-entropy of other samples with the weights of the moment: sum(w * loss) / sum(w)."""
        dealt = deal([pack_cost(pack, self._width) for pack in packs], self._world)
        mine, sums = dealt[self._ranks.rank], [0.0, 0.0]
        self.wrapped.eval()
        with torch.no_grad(), bf16_copies(self._products):
            for turn in range(max(map(len, dealt))):  # as many passes in every process, which DeepSpeed needs
                pack = packs[mine[turn] if turn < len(mine) else 0]
                batch = collate([pack], samples, SHAPE_MULTIPLE)
                with torch.autocast(self.device.type, torch.bfloat16, enabled=self._autocast):
                    loss = float(weighted_loss(self.wrapped, self._to_device(batch), 1.0))
                if turn < len(mine):
                    sums = [sums[0] + loss, sums[1] + float(batch["weights"].sum(dtype=torch.float64))]
        self.wrapped.train()
        total, weight = self._ranks.gather(sums).sum(dim=0).tolist()
        return float(total / weight)

    def choose_weights(self, step: int) -> str:
        """After the last `step`, go back to the best step's weights if the recipe asks for it; return what was done.

        Raises:
            InputError: the best step's checkpoint is damaged.
        """
        monitor, best, early = self.monitor, self.monitor.best_step, ""
        if monitor.stop:
            figure = f"{monitor.name} was {monitor.best_value:.4f} after step {best}"
            early = f"stopped early after step {step}: {figure}, and no better since"
        if not monitor.keep or not best:
            return early
        if best != step and self._checkpoints is not None and self._ranks.rank == 0:
            checkpoint = self._checkpoints / f"checkpoint-{best}"
            if damage := find_damage(checkpoint):
                raise InputError(f"{damage}, which has the weights of the best step; start a new run")
            load_weights(self.model, checkpoint)
        chosen = f"the result has the weights of step {best}, the best by {monitor.name} ({monitor.best_value:.4f})"
        return f"{early}; {chosen}" if early else chosen

    def _save(self, step: int) -> None:
        self._flush()
        if self._checkpoints is None:
            return
        target = self._checkpoints / f"checkpoint-{step}"
        if self._zero:
            self._zero.save(target, self._schedule, self.monitor, step)
        elif self._ranks.rank == 0:
            state = self.optimizer.state_dict()
            save_state(target, self.model, state, schedule=self._schedule, monitor=self.monitor, step=step)
        if self._ranks.rank == 0:
            keep = self.monitor.best_step * self.monitor.keep
            prune_checkpoints(self._checkpoints, self.recipe.keep_checkpoints, keep)
        self._ranks.wait()
        self._on_event(Saved(target, step))

    def _load(self, checkpoint: Path) -> int:
        if self._zero:
            return self._zero.load(checkpoint, self._schedule, self.monitor)
        return load_state(checkpoint, self.model, self.optimizer, self._schedule, self.monitor)

    def weights(self) -> dict[str, Tensor] | None:
        """The trained weights by name in the first process, if DeepSpeed shards them; all processes must call this."""
        return self._zero.weights() if self._zero else None
