"""A model that DeepSpeed shards over the processes (ZeRO): passes, updates, checkpoints and gathered weights.

A checkpoint of adapters has the form of any other run's, since they are small: any number of processes can go on from
it. That of full training holds each process's shards, for the same number of processes.
"""

from __future__ import annotations

import copy
import importlib
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from agentft.errors import InputError
from agentft.files import write_digests
from agentft.training.checkpoints import complete_folder, disk_errors, partial_name
from agentft.training.monitor import Monitor
from agentft.training.ranks import Ranks
from agentft.training.recipe import Recipe
from agentft.training.sharding import complete_settings
from agentft.training.state import fitting, load_adapter, load_progress, save_progress, save_state

__all__ = ["ShardedModel", "check_shards", "sharded_loading"]

_MOMENTS = ("exp_avg", "exp_avg_sq")
_TAG = "shards"
_FORCED = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def _open_deepspeed() -> Any:
    """DeepSpeed, with a process group; without a GPU, it would compile an operator for shared memory for a minute."""
    # It uses calls that torch has renamed, and warns of its own CPU.
    warnings.filterwarnings("ignore", "`torch.distributed", FutureWarning)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import deepspeed

        backend = importlib.import_module("deepspeed.comm.torch")
    if not torch.cuda.is_available():
        vars(backend)["build_shm_op"] = lambda: None
    if not dist.is_initialized():  # the only process of its run
        kind = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(kind, store=dist.HashStore(), rank=0, world_size=1)
        os.environ.setdefault("LOCAL_RANK", "0")
    deepspeed.init_distributed(dist_init_required=False, verbose=False)
    return deepspeed


@contextmanager
def sharded_loading(recipe: Recipe, ranks: Ranks) -> Iterator[None]:
    """Within this context, transformers shards the weights as it loads them, so that no process holds them all."""
    from transformers.integrations import HfDeepSpeedConfig

    _open_deepspeed()
    settings = HfDeepSpeedConfig(complete_settings(recipe, ranks.size))  # in force as long as it is referenced
    yield
    del settings


@contextmanager
def _plain_data() -> Iterator[None]:
    """Within this context, PyTorch executes no code of a file, although DeepSpeed would allow it for its shards.

    https://docs.pytorch.org/docs/stable/notes/serialization.html#environment-variables
    """
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    before = os.environ.get(_FORCED)
    os.environ[_FORCED] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        del os.environ[_FORCED]
        if before is not None:
            os.environ[_FORCED] = before


class ShardedModel:
    """Wraps `model` and `optimizer` in DeepSpeed's engine."""

    def __init__(self, model: Any, optimizer: Optimizer, recipe: Recipe, ranks: Ranks) -> None:
        self._model, self._ranks, self._full = model, ranks, recipe.method == "full"
        self._groups = copy.deepcopy(optimizer.state_dict()["param_groups"])
        self._ordered = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self._deepspeed = _open_deepspeed()
        settings = complete_settings(recipe, ranks.size)
        try:
            self.engine, self.optimizer, *_ = self._deepspeed.initialize(
                model=model, optimizer=optimizer, config=settings, dist_init_required=False
            )
        except (ValueError, AssertionError, self._deepspeed.runtime.config.DeepSpeedConfigError) as error:
            why = " ".join(str(error).split())
            raise InputError(f"DeepSpeed refuses its configuration ({why}); change what --deepspeed names") from error
        self._basic: Optimizer = optimizer
        self._stage = int(settings["zero_optimization"]["stage"])

    def backward(self, loss: Tensor, *, last: bool) -> None:
        """A pack's backward pass; `last`: of its step. DeepSpeed averages the gradients of the processes, we sum."""
        self.engine.set_gradient_accumulation_boundary(is_boundary=last)
        self.engine.backward(loss * self._ranks.size, scale_wrt_gas=False)

    def step(self) -> Any:
        """Clip, step and clear the gradients; return the norm before clipping."""
        self.engine.step()
        return self.engine.get_global_grad_norm()

    def weights(self) -> dict[str, Tensor] | None:
        """The trained weights in the first process, None in the others; all of them must call this."""
        found: dict[str, Tensor] = {}
        for name, parameter in self._model.named_parameters():
            if not parameter.requires_grad:
                continue
            if self._full:
                with self._deepspeed.zero.GatheredParameters([parameter], enabled=self._stage == 3):
                    value = parameter.detach().cpu().clone() if self._ranks.rank == 0 else parameter.detach()
            else:
                value = self._deepspeed.utils.safe_get_full_fp32_param(parameter).cpu()
            found[name] = value
        return found if self._ranks.rank == 0 else None

    def save(self, target: Path, schedule: LRScheduler, monitor: Monitor, step: int) -> None:
        """Write the checkpoint `target`; all processes must call this.

        Raises:
            OSError: the disk is full.
        """
        if not self._full:
            weights, state = self.weights(), self._gather_state(step)
            if self._ranks.rank == 0:
                save_state(target, self._model, state, schedule=schedule, monitor=monitor, step=step, weights=weights)
            return
        if self._ranks.rank:
            self._ranks.wait()
            with disk_errors(partial := partial_name(target), target):
                self.engine.save_checkpoint(str(partial), tag=_TAG, save_latest=False)
            self._ranks.wait()
            return
        with complete_folder(target) as partial:
            self._ranks.wait()
            self.engine.save_checkpoint(str(partial), tag=_TAG, save_latest=False)
            self._ranks.wait()
            save_progress(partial, schedule, monitor, step)
            write_digests(partial)

    def load(self, checkpoint: Path, schedule: LRScheduler, monitor: Monitor) -> int:
        """Restore a checkpoint; return the number of finished steps.

        Raises:
            InputError: the checkpoint does not fit this model or this number of processes.
        """
        if self._full:
            check_shards(checkpoint, self._ranks.size)
            with fitting(checkpoint), _plain_data():
                self.engine.load_checkpoint(str(checkpoint), tag=_TAG)
        else:
            self._restore(*load_adapter(checkpoint))
        return load_progress(checkpoint, schedule, monitor)

    def _gather_state(self, step: int) -> dict[str, Any]:
        """The optimizer's state as it would be without DeepSpeed."""
        read = self._deepspeed.utils.safe_get_full_optimizer_state
        state = {
            number: {"step": torch.tensor(float(step)), **{key: read(parameter, key).cpu() for key in _MOMENTS}}
            for number, parameter in enumerate(self._ordered)
        }
        groups = [
            {**kept, **{key: now[key] for key in ("lr", "initial_lr")}}
            for kept, now in zip(self._groups, self._basic.param_groups, strict=True)
        ]
        return {"state": state, "param_groups": groups}

    def _restore(self, weights: dict[str, Tensor], optimizer: dict[str, Any]) -> None:
        """Set the adapters' weights and the optimizer's state, of which DeepSpeed makes the flat tensors at a step."""
        utils = self._deepspeed.utils
        own = _own_weights(self._model, weights)
        for group, kept in zip(self._basic.param_groups, optimizer["param_groups"], strict=True):
            group["lr"] = kept["lr"]  # the schedule sets only those of later steps
        flat = self.optimizer.fp32_partitioned_groups_flat if self._stage == 3 else None
        for tensor in flat or self.optimizer.single_partition_of_fp32_groups:
            step = next(iter(optimizer["state"].values()))["step"]
            self._basic.state[tensor] = {key: torch.zeros_like(tensor) for key in _MOMENTS} | {"step": step.clone()}
        if flat is None:
            self.optimizer._lazy_init_hp_params_optimizer_state()
        for number, parameter in enumerate(self._ordered):
            value = own[parameter].to(self.engine.device)
            with torch.no_grad(), self._deepspeed.zero.GatheredParameters([parameter], 0, enabled=flat is not None):
                parameter.copy_(value)
            utils.safe_set_full_fp32_param(parameter, value.float())
            for key in _MOMENTS:
                moment = optimizer["state"][number][key].to(self.engine.device)
                utils.safe_set_full_optimizer_state(parameter, moment, key)


def _own_weights(model: Any, weights: dict[str, Tensor]) -> dict[Any, Tensor]:
    """The weights of an adapter's file by the model's parameters, whose names peft changes in files."""
    from peft import get_peft_model_state_dict

    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    numbered = {name: torch.tensor(number) for number, (name, _) in enumerate(trained)}
    places = get_peft_model_state_dict(model, state_dict=numbered, save_embedding_layers=False)
    return {trained[int(place)][1]: weights[name] for name, place in places.items()}


def check_shards(checkpoint: Path, processes: int) -> None:
    """Check that as many processes wrote a checkpoint of shards as are to go on; others fit any number.

    Raises:
        InputError: they are more or fewer.
    """
    shards = len(list((checkpoint / _TAG).glob("*optim_states.pt")))
    if shards not in (0, processes):
        raise InputError(f"{checkpoint} holds shards of {shards} processes, not {processes}; add --gpus {shards}")
