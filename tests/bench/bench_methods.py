"""What each training method takes and gives: train the quickstart's data, export merged weights, and score both.

`python -m tests.bench.bench_methods ROWS.jsonl FOLDER [--parallel 4] [--only NAME ...] [--set KEY=VALUE ...]`, on a
GPU: some ten minutes on one H200. ROWS is what `agentft data build quickstart` writes; each method's run, evaluations
and log are kept in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

RECIPE = "datasets/quickstart-training.toml"
QLORA = ["method=qlora", "unpack=off"]
FULL = ["method=full", "lr=0", "lora_plus=1", "lora_layers=0"]
ALL_LAYERS = ["lora_layers=0"]
METHODS = {
    "lora, as the quickstart": [],
    "lora": ALL_LAYERS,
    "lora without lora+": [*ALL_LAYERS, "lora_plus=1"],
    "lora, fp32": [*ALL_LAYERS, "dtype=fp32"],
    "lora, every row alone": [*ALL_LAYERS, "sharing=off"],
    "rslora": [*ALL_LAYERS, "rslora=on"],
    "dora": [*ALL_LAYERS, "dora=on"],
    "pissa": [*ALL_LAYERS, "lora_init=pissa"],
    "neftune": [*ALL_LAYERS, "neftune_alpha=5"],
    "embeddings too": [*ALL_LAYERS, "modules_to_save=embed_tokens"],
    "added tokens": [*ALL_LAYERS, "add_tokens=<call>"],
    "dft": [*ALL_LAYERS, "loss=dft"],
    "qlora, 4 bits": [*ALL_LAYERS, *QLORA],
    "qlora, unpacked": [*ALL_LAYERS, "method=qlora", "unpack=on"],
    "qlora, 8 bits": [*ALL_LAYERS, *QLORA, "bits=8"],
    "qlora, dora": [*ALL_LAYERS, *QLORA, "dora=on"],
    "qlora, loftq": [*ALL_LAYERS, *QLORA, "lora_init=loftq"],
    "full": FULL,
    "full, adafactor": [*FULL, "optimizer=adafactor"],
    "full, muon": [*FULL, "optimizer=muon"],
    "full, 8-bit adamw": [*FULL, "optimizer=paged_adamw_8bit"],
    "full, checkpointing": [*FULL, "checkpointing=on"],
    "lora, 8-bit adamw": [*ALL_LAYERS, "lora_plus=1", "optimizer=adamw_8bit"],
    "lora, lion": [*ALL_LAYERS, "lora_plus=1", "lr=1e-4", "optimizer=lion_8bit"],
}


def agentft(log: Path, *arguments: str) -> None:
    """Run one command; its output goes to the log."""
    command = [sys.executable, "-m", "agentft", *arguments]
    with log.open("a", encoding="utf-8") as out:
        out.write(f"$ {' '.join(command)}\n")
        out.flush()
        done = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"`agentft {arguments[0]}` exited with {done.returncode}: {log}")


def exact(folder: Path) -> str:
    """Exact calls, in percent."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    (score,) = summary["metrics"]["exact_call"].values()
    return f"{100 * score['value']:.1f} %"


def one(name: str, options: argparse.Namespace) -> str:
    """Train, export and score one method; a table's row."""
    folder = options.folder / re.sub(r"\W+", "-", name)
    folder.mkdir(parents=True)
    log, run = folder / "log.txt", folder / "run"
    started = time.perf_counter()
    try:
        agentft(
            log,
            "train",
            RECIPE,
            "--data",
            str(options.rows),
            *METHODS[name],
            f"max_steps={options.steps}",
            "--output",
            str(run),
        )
        seconds = time.perf_counter() - started
        steps = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        losses = [step["loss"] for step in steps if "loss" in step]
        peak = max(step.get("memory") or 0 for step in steps) / 2**30
        scores = [exact_of(log, folder / "adapter", options, "--adapter", str(run))]
        agentft(log, "export", str(run), "--to", "merged", "--output", str(folder / "merged"))
        scores.append(
            exact_of(log, folder / "of-merged", options, "--model", str(folder / "merged"), "--format", "msagent")
        )
    except (RuntimeError, OSError, KeyError, ValueError) as error:
        return f"| {name} | failed | {type(error).__name__}: {error} |"
    figures = [f"{seconds:.0f}", f"{peak:.2f}", f"{losses[0]:.2f}", f"{losses[-1]:.3f}", *scores]
    return f"| {name} | {' | '.join(figures)} |"


def exact_of(log: Path, folder: Path, options: argparse.Namespace, *arm: str) -> str:
    """Evaluate on `basics`."""
    sampling = ["--max-new-tokens", "88", "--batch-size", "72", "--limit", str(options.limit)]
    agentft(log, "eval", "basics", *arm, "--quiet", *sampling, "--output", str(folder))
    return exact(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--parallel", type=int, default=4)
    parser.add_argument("--limit", type=int, default=72)
    parser.add_argument("--set", nargs="*", default=[], help="more settings, such as lr=1e-4")
    parser.add_argument("--only", nargs="*", choices=METHODS, default=list(METHODS))
    options = parser.parse_args()
    head = ("method", "seconds", "peak GiB", "first loss", "last loss", "exact, adapter", "exact, merged")
    print(f"| {' | '.join(head)} |\n|{'---|' * len(head)}", flush=True)  # noqa: T201
    with ThreadPoolExecutor(options.parallel) as pool:
        for row in pool.map(lambda name: one(name, options), options.only):
            print(row, flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
