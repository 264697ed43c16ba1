"""Samples/s and loss curves of one, two and four GPUs in one call: `python -m tests.bench.bench_gpus 1 2 4`.

A 7B model's shape with random weights (qlora) on the shape agent930, or on rows with --data. All counts take the same
packs in the same steps, with the settings that were planned for one GPU. `1 1 2` also shows by how much two runs on
one GPU differ.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from agentft.bench.train import bench_train, plan_bench
from agentft.display.terminal import say_text
from agentft.training.events import StepDone
from agentft.training.ranks import join_ranks
from agentft.training.recipe import Recipe


def main() -> None:
    options = read_options()
    if options.result:
        measure(options)
        return
    found: list[tuple[int, dict[str, Any]]] = []
    with tempfile.TemporaryDirectory() as folder:
        for place, count in enumerate(options.gpus):
            result = Path(folder) / f"{place}.json"
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
            arguments = [*sys.argv[1:], "--result", str(result)]
            subprocess.run([*command, "-m", "tests.bench.bench_gpus", *arguments], check=True)
            found.append((count, json.loads(result.read_text())))
            show(found)
    say_text(json.dumps(found))


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "gpus", nargs="+", type=int, help="numbers of GPUs (repeats are allowed), the first one being the reference"
    )
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--model", default="random-7b")
    parser.add_argument("--method", default="qlora")
    parser.add_argument("--memory", type=float, help="GiB of each card to use at most")
    parser.add_argument("--batch", type=int, default=4, help="packs a step over all GPUs")
    parser.add_argument("--pack-tokens", type=int, default=0)
    parser.add_argument("--data", help="a data file, instead of agent930")
    parser.add_argument("--result", help=argparse.SUPPRESS)
    return parser.parse_args()


def measure(options: argparse.Namespace) -> None:
    """One of the processes of a measurement."""
    ranks, kept = join_ranks(), Path(options.result).with_name("recipe.json")
    shape = "data" if options.data else "agent930"
    recipe = Recipe(model=options.model, method=options.method, batch=options.batch, pack_tokens=options.pack_tokens)
    if options.data:
        recipe = replace(recipe, data=(options.data,), format="hermes")
    resolved = plan_bench(recipe, shape, options.memory)
    if ranks.rank == 0 and not kept.exists():
        kept.write_text(json.dumps(asdict(resolved.recipe)))
    ranks.wait()
    settings = json.loads(kept.read_text())
    resolved = replace(resolved, recipe=Recipe(**settings | {"data": tuple(settings["data"])}))
    steps: list[StepDone] = []
    measured = bench_train(resolved, shape, options.steps, steps.append)
    if measured is not None:
        Path(options.result).write_text(json.dumps(asdict(measured) | {"steps": [asdict(step) for step in steps]}))
    ranks.leave()


def show(found: list[tuple[int, dict[str, Any]]]) -> None:
    """The figures and curves so far, side by side."""
    first = found[0][1]
    for count, one in found:
        idle = [use["idle"] for step in one["steps"][3:-1] for use in step["ranks"]]
        say_text(
            f"{count} GPUs  {one['samples_per_second']:8.1f} samples/s  x{faster(one, first):.2f}  "
            f"{one['tokens_per_second']:9,.0f} tokens/s  {one['memory'] / 2**30:5.1f} GiB  "
            f"idle {sum(idle) / max(len(idle), 1):.1%}"
        )
    say_text("step  " + "  ".join(f"{count:>9}" for count, _ in found) + "  largest difference")
    for number, rows in enumerate(zip(*(one["steps"] for _, one in found), strict=True), 1):
        losses = [row["loss"] for row in rows]
        curve = "  ".join(f"{loss:9.5f}" for loss in losses)
        say_text(f"{number:4}  {curve}  {max(losses) - min(losses):.1e}")


def faster(one: dict[str, Any], first: dict[str, Any]) -> float:
    return float(one["samples_per_second"] / first["samples_per_second"])


if __name__ == "__main__":
    main()
