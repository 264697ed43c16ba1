"""Full tuning under ZeRO-3 on several GPUs, beside TRL: `python -m tests.bench.bench_zero --gpus 4`.

A 7B model's shape with random weights on the shape agent930: speed and memory, then a checkpoint, a resume from it in
new processes, and the gathered weights; then TRL's SFTTrainer with the same DeepSpeed configuration. Each result is a
line as soon as it is there. DeepSpeed is installed without compiling anything (DS_BUILD_OPS=0, the default of its
source distribution); torch's fused AdamW takes the steps in both trainers.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from agentft.bench import peers
from agentft.bench.options import SHAPES
from agentft.bench.train import _samples
from agentft.display.terminal import say_text
from agentft.engine.packing import epoch_packs
from agentft.engine.tree_attention import TREE_ATTENTION
from agentft.files import find_damage
from agentft.models.embedded import resolve
from agentft.training.events import StepDone
from agentft.training.loading import load_model, prepare_model
from agentft.training.loop import TrainingLoop
from agentft.training.machine import measure_machine, peak_memory
from agentft.training.ranks import join_ranks
from agentft.training.recipe import Recipe
from agentft.training.resolve import RANDOM_7B, Resolved, resolve_recipe
from agentft.training.sharding import complete_settings
from agentft.training.state import save_weights
from agentft.training.workload import even_workload

SHAPE = "agent930"
WARM_UP = 2
RESUMED = 2
"""Steps after the resume."""


def main() -> None:
    options = read_options()
    if options.part:
        {"train": train, "resume": train, "trl": measure_trl}[options.part](options)
        return
    folder = Path(options.folder)
    shutil.rmtree(folder, ignore_errors=True)
    for part in ("train", "resume", "trl")[: 3 if options.peer_batch else 2]:
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={options.gpus}"]
        command += ["-m", "tests.bench.bench_zero", *sys.argv[1:], "--part", part]
        done = subprocess.run(command, check=False)
        if done.returncode:
            say_text(f"{part}: failed with exit code {done.returncode}")
    shutil.rmtree(folder, ignore_errors=True)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, default=4)
    parser.add_argument("--model", default=RANDOM_7B, help="or a model folder")
    parser.add_argument("--deepspeed", default="zero3")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch", type=int, help="packs a step over all GPUs; default: one for each")
    parser.add_argument("--pack-tokens", type=int, default=16_384)
    parser.add_argument("--every", type=int, default=1, help="recompute every n-th layer")
    parser.add_argument("--peer-batch", type=int, default=8, help="TRL's rows for each GPU and step; 0: without TRL")
    folder = Path(tempfile.gettempdir()) / "bench-zero"
    parser.add_argument("--folder", default=str(folder), help="for the checkpoint, 14 bytes a weight")
    parser.add_argument("--part", choices=["train", "resume", "trl"], help=argparse.SUPPRESS)
    return parser.parse_args()


def train(options: argparse.Namespace) -> None:
    """Train and save a checkpoint, or resume from it and save the weights, as one of the processes."""
    ranks, folder, resumed = join_ranks(), Path(options.folder), options.part == "resume"
    say = say_text if ranks.rank == 0 else lambda _: None
    began = time.perf_counter()
    resolved = plan(options)
    recipe = resolved.recipe
    samples = list(_samples(SHAPES[SHAPE], resolved, options.steps))
    packs = epoch_packs(samples, recipe.pack_tokens, recipe.seed, 0)
    fullest = max(len(pack.members) for pack in packs)
    chosen = [pack for pack in packs if len(pack.members) == fullest] * (options.steps + WARM_UP + RESUMED)
    steps = options.steps + WARM_UP + RESUMED * resumed
    events: list[StepDone] = []
    loop = TrainingLoop(
        build(resolved),
        recipe,
        samples,
        chosen[: steps * recipe.batch],
        on_event=lambda event: events.append(event) if isinstance(event, StepDone) else None,
        checkpoints=None if resumed else folder,
    )
    say(f"{options.part}: model and DeepSpeed ready after {time.perf_counter() - began:.1f} s")
    checkpoint = folder / f"checkpoint-{options.steps + WARM_UP}"
    began = time.perf_counter()
    if resumed and ranks.rank == 0:
        damage = find_damage(checkpoint) or "intact"
        say(f"resume: digests compared in {time.perf_counter() - began:.1f} s, {damage}")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    loop.run(checkpoint if resumed else None)
    whole = time.perf_counter() - began
    if ranks.rank == 0:
        report(options.part, events, whole)
        say(f"{options.part}: losses {' '.join(f'{event.loss:.4f}' for event in events)}")
    if not resumed and ranks.rank == 0:
        size = sum(file.stat().st_size for file in checkpoint.rglob("*") if file.is_file())
        seconds = whole - sum(event.seconds for event in events)
        say(f"checkpoint: {size / 2**30:.1f} GiB, written, hashed and synced in about {seconds:.1f} s")
    if resumed:
        began = time.perf_counter()
        weights = loop.weights()
        if ranks.rank == 0:
            save_weights(loop.model, folder / "model", weights)
            size = sum(file.stat().st_size for file in (folder / "model").iterdir())
            say(f"final weights: {size / 2**30:.1f} GiB gathered and written in {time.perf_counter() - began:.1f} s")
    ranks.leave()


def plan(options: argparse.Namespace) -> Resolved:
    """The recipe with settings that do not depend on the planner, so that every process has the same."""
    recipe = Recipe(
        model=options.model,
        method="full",
        deepspeed=options.deepspeed,
        batch=options.batch or options.gpus,
        pack_tokens=options.pack_tokens,
        checkpointing="on",
        checkpoint_every=options.every,
        sharing="on",
        lr=1e-5,
        schedule="constant",
        warmup=0.0,
    )
    return resolve_recipe(recipe, even_workload(10_000, 1, 930), measure_machine())


def build(resolved: Resolved) -> Any:
    """The model as each process has it before DeepSpeed shards it."""
    recipe, config = resolved.recipe, resolved.architecture.config
    if recipe.model != RANDOM_7B:
        return load_model(recipe, resolve(recipe.model), config)
    return prepare_model(recipe, random_model(config, recipe.seed, TREE_ATTENTION), RANDOM_7B)


def random_model(config: Any, seed: int, attention: str) -> Any:
    """Random bf16 weights on this process's GPU."""
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    with torch.device("cuda"):
        return AutoModelForCausalLM.from_config(
            config, dtype=torch.bfloat16, attn_implementation=attention, trust_remote_code=False
        )


def report(name: str, events: list[StepDone], whole: float) -> None:
    timed = events[WARM_UP:] or events
    seconds = statistics.median(event.seconds for event in timed)
    idle = statistics.mean(use.idle for event in timed for use in event.ranks)
    show(name, seconds, timed[-1].samples, max(event.memory for event in events))
    say_text(f"{name}: {timed[-1].tokens:,} computed tokens a step, idle {idle:.1%}, {whole:.1f} s in all")


def show(name: str, seconds: float, samples: int, memory: float) -> None:
    tokens = samples * SHAPES[SHAPE].tokens
    say_text(
        f"{name}: {1 / seconds:.3f} steps/s  {samples / seconds:.1f} samples/s  {tokens / seconds:,.0f} tokens/s of "
        f"samples  {memory / 2**30:.1f} GiB a card"
    )


def measure_trl(options: argparse.Namespace) -> None:
    """TRL's SFTTrainer with the same DeepSpeed configuration, as one of the processes."""
    import trl
    from datasets import Dataset
    from transformers import default_data_collator

    torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    resolved = plan(options)
    kind = SHAPES[SHAPE]
    shape = {"shared": kind.shared, "own": kind.own, "supervised": kind.supervised, "tail": kind.tail}
    rows = peers._rows(shape, options.peer_batch * options.gpus * (options.steps + WARM_UP))
    zero = complete_settings(replace(resolved.recipe, deepspeed=options.deepspeed), options.gpus)
    settings = trl.SFTConfig(
        output_dir=options.folder,
        per_device_train_batch_size=options.peer_batch,
        gradient_accumulation_steps=1,
        max_steps=options.steps + WARM_UP,
        optim="adamw_torch_fused",
        bf16=True,
        learning_rate=1e-5,
        lr_scheduler_type="constant",
        max_grad_norm=1.0,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        gradient_checkpointing=True,
        max_length=len(rows[0]["input_ids"]),
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        deepspeed={**zero, "gradient_accumulation_steps": "auto", "train_micro_batch_size_per_gpu": "auto"},
    )
    clock = peers._clock()
    trainer = trl.SFTTrainer(
        model=random_model(resolved.architecture.config, 0, "sdpa"),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer(),
        data_collator=default_data_collator,
        callbacks=[clock],
    )
    trainer.train()
    if int(os.environ["RANK"]) == 0:
        show(
            f"TRL {trl.__version__}, batch {options.peer_batch}",
            statistics.median(clock.seconds[WARM_UP:]),
            options.peer_batch * options.gpus,
            peak_memory(),
        )
        losses = [f"{entry['loss']:.4f}" for entry in trainer.state.log_history if "loss" in entry]
        say_text(f"TRL: losses {' '.join(losses)}")
    torch.distributed.destroy_process_group()


def tokenizer() -> Any:
    """TRL wants a tokenizer, although the rows are tokens already."""
    from tests.tiny import tiny_tokenizer

    return tiny_tokenizer()


if __name__ == "__main__":
    main()
