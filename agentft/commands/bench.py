"""`agentft bench`: measures training speed on this machine."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated

import typer

__all__ = ["bench_command"]


def bench_command(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[OPTIONS] [KEY=VALUE]...")] = None,
) -> None:
    """Train for a few steps on samples of a known shape; print speed, memory, and the fraction of this machine's peak.

    --shape agent930|agent930-unique|agent730|long2k|long4k|data (with data=FILE); --model NAME, or random-7b (needs
    a GPU); --method lora|qlora|full; --memory GIB; --steps N; --plain: also measure plain transformers and peft;
    --peer unsloth=PYTHON or trl=PYTHON, --peer-batch N: also measure these libraries, each in its own Python.
    KEY=VALUE: as for `train`.

    Example:
      agentft bench train --plain
      agentft bench train --model random-7b --method qlora --shape agent930 --memory 8
    """
    from agentft.bench.options import read_options
    from agentft.display.pulling import ensure_pulled

    _, recipe = read_options(arguments or [])  # refuses what is wrong before PyTorch is loaded
    ensure_pulled(recipe.model)
    # -P: a folder `datasets/` in the current folder must not shadow the library.
    command = [sys.executable, "-P", "-W", "ignore", "-m", "agentft.commands.bench_process", *(arguments or [])]
    done = subprocess.run(command, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise typer.Exit(done.returncode)
