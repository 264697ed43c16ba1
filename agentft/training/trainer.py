"""transformers' plain `Trainer`, with packs as its batches and the loss weighted over the whole optimizer step."""

from __future__ import annotations

import contextlib
import math
import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

import torch
from peft.optimizers import create_loraplus_optimizer
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import DataLoader, SequentialSampler
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainingArguments

from agentft.engine.cascade import send
from agentft.engine.collation import Batch, collate
from agentft.engine.lora import LeanProduct, halved
from agentft.engine.loss import weighted_loss
from agentft.engine.packing import Pack, Sample, plant
from agentft.engine.speed import HostEmbedding
from agentft.errors import AgentftError, InputError
from agentft.training.arguments import rate_factor
from agentft.training.checkpoints import complete_folder, prune_checkpoints
from agentft.training.events import Note, OnEvent, Saved, StepDone
from agentft.training.recipe import Recipe

__all__ = ["PackTrainer", "Step", "deterministic", "peak_memory", "save_weights"]

SHAPES = 128
"""Rows have a multiple of so many tokens and of so many targets."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one optimizer step computes."""

    samples: int
    tokens: int
    supervised: int
    weight: float


@dataclass(frozen=True, slots=True)
class _Untold:
    """A step that is launched: its loss and its gradient's norm may still be on their way. `clock`: when it began."""

    step: int
    loss: Tensor
    norm: Any
    rate: float
    done: Step
    clock: float


class PackTrainer(Trainer):  # type: ignore[misc]
    """Trains on packs in the order given.

    Args:
        model: a causal model, with adapters or without, on its device.
        arguments: see `training_arguments`.
        samples: what the packs' members index into.
        packs: those of the whole run, in order.
        on_event: told of each step and each checkpoint.
        should_stop: asked after each step; True saves a checkpoint and ends.
        recipe: the schedule, and how many checkpoints are kept.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        arguments: TrainingArguments,
        samples: Sequence[Sample],
        packs: Sequence[Pack],
        *,
        on_event: OnEvent,
        should_stop: Callable[[], bool] = lambda: False,
        recipe: Recipe,
    ) -> None:
        super().__init__(
            model=model,
            args=arguments,
            train_dataset=list(packs),
            data_collator=lambda packs: collate(packs, samples, SHAPES),
            callbacks=[_StopCallback(should_stop)],
        )
        self.remove_callback(PrinterCallback)
        self._on_event = on_event
        self._recipe = recipe
        # All weights are kept in fp32 and computed with in bf16.
        self._trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        products = (getattr(part, "forward", None) for part in model.modules())
        halves = recipe.dtype == "bf16" and arguments.world_size == 1
        self._products = [one for one in products if isinstance(one, LeanProduct)] if halves else []
        model.zero_grad = self._forget  # a walk through some thousand modules less in each step
        self._autocast = recipe.method == "full" and recipe.dtype == "bf16"
        self._seen = list(accumulate(len(pack.members) for pack in packs))
        self._rows = len(samples)
        self._samples = samples
        self._step = Step(0, 0, 0, 0.0)
        self._batches: list[Batch] = []
        self._ahead: tuple[list[Batch], Tensor] | None = None
        self._done = 0
        self._most, self._tried = 0, (0, 0)
        self._clock = self._told_at = time.monotonic()
        self._untold: _Untold | None = None
        self._launched = 0
        self.control: Any
        self._host = next((part for part in model.modules() if isinstance(part, HostEmbedding)), None)
        self._partial: Path | None = None

    def _forget(self, set_to_none: bool = True) -> None:  # noqa: ARG002 - as a module's own
        for parameter in self._trained:
            parameter.grad = None

    def _clip_grad_norm(self, model: Any) -> Any:
        if self.args.world_size > 1 or self.is_deepspeed_enabled:
            return super()._clip_grad_norm(model)
        return torch.nn.utils.clip_grad_norm_(self._trained, self.args.max_grad_norm)

    def get_train_dataloader(self) -> Any:
        """The packs in order. They stay on the host, where their figures are read without waiting for a GPU."""
        packs = self.train_dataset
        loader = DataLoader(packs, batch_size=1, sampler=SequentialSampler(packs), collate_fn=self.data_collator)
        return self.accelerator.prepare_data_loader(loader, device_placement=False)

    def _prepare_inputs(self, inputs: Batch) -> Batch:
        """The batch on the device, as soon as that comes to it."""
        if self._host is not None:
            self._host.tokens = inputs["input_ids"]
        device = self.args.device
        sent = {key: send(value, device) if isinstance(value, Tensor) else value for key, value in inputs.items()}
        return cast(Batch, sent)

    def create_optimizer(self, model: Any = None) -> Any:
        """transformers' AdamW, or with `lora_plus` peft's groups of it."""
        if self._recipe.method == "full" or self._recipe.lora_plus == 1:
            return super().create_optimizer(model)
        kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.model)
        self.optimizer: Any = create_loraplus_optimizer(
            self.model,
            kind,
            loraplus_lr_ratio=self._recipe.lora_plus,
            loraplus_weight_decay=self.args.weight_decay,
            **settings,
        )
        return self.optimizer

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """See `rate_factor`."""
        chosen, warmup = self._recipe.schedule, self._recipe.warmup
        self.lr_scheduler = LambdaLR(
            optimizer or self.optimizer, lambda step: rate_factor(chosen, warmup, num_training_steps, step)
        )
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def get_batch_samples(
        self, epoch_iterator: Iterator[Batch], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], Tensor]:
        """The packs of one optimizer step, and the sum of all their weights, over all ranks."""
        self._clock = time.monotonic()
        batches, total = self._ahead or super().get_batch_samples(epoch_iterator, num_batches, device)
        self._batches, self._done, self._ahead = batches, 0, None
        self._fetch = partial(super().get_batch_samples, epoch_iterator, self.args.gradient_accumulation_steps, device)
        self._step = Step(
            samples=sum(len(batch["owners"].unique()) for batch in batches),
            tokens=sum(batch["tokens"] for batch in batches),
            supervised=sum(int((batch["weights"] > 0).sum()) for batch in batches),
            weight=float(total),
        )
        return batches, total

    def _get_num_items_in_batch(self, batch_samples: list[Batch], device: torch.device) -> Tensor:
        total = sum(
            (batch["weights"].sum(dtype=torch.float64) for batch in batch_samples), torch.zeros((), device="cpu")
        )
        return self.accelerator.gather(total.to(device)).sum() if self.args.world_size > 1 else total

    def training_step(self, model: Any, inputs: Batch, num_items_in_batch: Tensor | None = None) -> Tensor:
        """Forward and backward. While a GPU is at it, the next step's packs are made."""
        loss = self._fitting_step(model, inputs, num_items_in_batch)
        if self._done == len(self._batches):
            self._ahead = self._fetch()
        return loss

    def _fitting_step(self, model: Any, inputs: Batch, total: Tensor | None) -> Tensor:
        """What the memory cannot hold is done in smaller packs, from then on at once."""
        batch, self._done = self._batches[self._done], self._done + 1
        again = [inputs if not self._most or batch["tokens"] <= self._most else batch]
        while True:
            try:
                return [self._in_parts(model, one, total) for one in again][-1]
            except torch.OutOfMemoryError:
                tokens, rows = self._tried
            if rows == 1 or self.args.world_size > 1:  # other ranks would wait for one that has more to do
                raise InputError(
                    f"the memory cannot hold {tokens:,} tokens, against the plan; lower max_length or pack_tokens, or "
                    "train with method = qlora and checkpointing = on"
                )
            # Some gradients may be there already, so the whole optimizer step begins again.
            self._most, again = tokens // 2, self._batches[: self._done]
            self._tell_of_memory(tokens)
            model.zero_grad()

    def _in_parts(self, model: Any, batch: Batch, total: Tensor | None) -> Tensor:
        members = list(dict.fromkeys(batch["owners"].tolist()))
        if not self._most or batch["tokens"] <= self._most:
            return self._forward_backward(model, batch, total, len(members))
        packs = plant(self._samples, members, self._most, share=self._recipe.sharing != "off")
        made = ((collate([pack], self._samples, SHAPES), len(pack.members)) for pack in packs)
        return torch.stack([self._forward_backward(model, part, total, rows) for part, rows in made]).sum()

    def _forward_backward(self, model: Any, batch: Batch, total: Tensor | None, rows: int) -> Tensor:
        """transformers' own step, without setting each of some thousand modules to training every time."""
        with halved(self._products):
            return self._plain_step(model, batch, total, rows)

    def _plain_step(self, model: Any, batch: Batch, total: Tensor | None, rows: int) -> Tensor:
        self._tried = batch["tokens"], rows
        if not model.training:
            model.train()
        with self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(batch), num_items_in_batch=total)
        self.accelerator.backward(loss, **({"scale_wrt_gas": False} if self.is_deepspeed_enabled else {}))
        return loss.detach()

    def _tell_of_memory(self, tokens: int) -> None:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        text = (
            f"a pack of {tokens:,} tokens did not fit into memory, against the plan; going on with packs of "
            f"{self._most:,}. pack_tokens = {self._most} would avoid it"
        )
        self._on_event(Note(text, warning=True))

    def compute_loss(
        self, model: Any, inputs: Batch, return_outputs: bool = False, num_items_in_batch: Tensor | None = None
    ) -> Tensor:
        """This pack's part of the step's loss; times the ranks, because their gradients are averaged."""
        if return_outputs or num_items_in_batch is None:
            raise NotImplementedError("packs are for training only")
        loss = weighted_loss(model, inputs, num_items_in_batch.to(torch.float32))
        return loss * self.args.world_size if self.args.world_size > 1 else loss

    def autocast_smart_context_manager(self, cache_enabled: bool | None = True) -> Any:  # noqa: ARG002
        """bf16 computation for weights that are kept in fp32."""
        return torch.autocast(self.args.device.type, torch.bfloat16, enabled=self._autocast)

    def floating_point_ops(self, inputs: Batch) -> int:  # noqa: ARG002
        """Not counted."""
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Steps are told of by `_maybe_log_save_evaluate`."""

    def _maybe_log_save_evaluate(
        self, tr_loss: Tensor, grad_norm: Any, model: Any, trial: Any, *_: Any, learning_rate: float = 0.0
    ) -> None:
        """On a GPU, tell of the step before: to wait for this one's loss would leave the GPU idle."""
        if self.state.global_step > self._launched:
            self._launched = self.state.global_step
            loss = tr_loss.detach().clone()
            tr_loss -= tr_loss
            self._tell_rest()
            self._untold = _Untold(self.state.global_step, loss, grad_norm, learning_rate, self._step, self._clock)
        if self.control.should_save or not torch.cuda.is_available():
            self._tell_rest()
        if self.control.should_save:
            self._save_checkpoint(model, trial)
            self.control = self.callback_handler.on_save(self.args, self.state, self.control)

    def _finalize_training(self, *arguments: Any) -> Any:
        self._tell_rest()
        return super()._finalize_training(*arguments)

    def _tell_rest(self) -> None:
        told, self._untold = self._untold, None
        if told is None:
            return
        loss = (self.accelerator.gather(told.loss) if self.args.world_size > 1 else told.loss).mean().item()
        if not math.isfinite(loss):
            raise AgentftError(
                f"the loss is {loss} at step {told.step}, so training cannot go on; try a lower lr, or dtype=fp32"
            )
        packs = told.step * self.args.gradient_accumulation_steps * self.args.world_size
        began, self._told_at = max(told.clock, self._told_at), time.monotonic()
        self._on_event(
            StepDone(
                step=told.step,
                epoch=self._seen[min(packs, len(self._seen)) - 1] / self._rows,
                loss=loss,
                lr=told.rate,
                grad_norm=float(told.norm or 0.0),
                samples=told.done.samples,
                tokens=told.done.tokens,
                supervised=told.done.supervised,
                weight=told.done.weight,
                seconds=self._told_at - began,
                memory=peak_memory(),
            )
        )

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        folder = Path(self.args.output_dir)
        target = folder / f"checkpoint-{self.state.global_step}"
        with complete_folder(target) as partial:
            self._partial = partial
            super()._save_checkpoint(model, trial)
            for entry in (partial / target.name).iterdir():
                entry.rename(partial / entry.name)
            (partial / target.name).rmdir()
            self._partial = None
        prune_checkpoints(folder, self._recipe.keep_checkpoints)
        self._on_event(Saved(target, self.state.global_step))

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ARG002
        return str(self._partial or self.args.output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:  # noqa: ARG002
        save_weights(self.model, Path(output_dir or self.args.output_dir))


def save_weights(model: Any, folder: Path) -> None:
    """The adapter, or with no adapter the model, without asking a hub about its vocabulary."""
    adapter = {"save_embedding_layers": False} if hasattr(model, "peft_config") else {}
    model.save_pretrained(str(folder), **adapter)


@contextlib.contextmanager
def deterministic() -> Iterator[None]:
    """On the CPU, sum in the same order in every run (rows repeat in the head's gradient)."""
    before = torch.are_deterministic_algorithms_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory
    if not torch.cuda.is_available():
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.utils.deterministic.fill_uninitialized_memory = filled


class _StopCallback(TrainerCallback):  # type: ignore[misc]
    """Ends the run after the step in which someone asked for it, with a checkpoint."""

    def __init__(self, should_stop: Callable[[], bool]) -> None:
        self.should_stop = should_stop

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:  # noqa: ARG002
        if self.should_stop():
            control.should_save = True
            control.should_training_stop = True


def peak_memory() -> int:
    """Bytes: of the GPU if there is one, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
