"""Planned against measured memory and speed on this GPU, for models and shapes that the planner was not fitted to.

    python -m tests.bench.bench_plans FOLDER

The models have random weights; FOLDER gets them (10 GiB), so that a second run need not make them again.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config, Qwen3Config

from agentft.bench.options import read_options
from agentft.bench.train import bench_train, plan_bench
from agentft.display.terminal import say_text
from agentft.training.planner import GIB
from tests.tiny import tiny_tokenizer

COMMON = {"max_position_embeddings": 8_192, "tie_word_embeddings": True}
SMALL = {"hidden_size": 960, "intermediate_size": 2_560, "num_hidden_layers": 32, "num_attention_heads": 15}
LARGE = {"hidden_size": 3_072, "intermediate_size": 8_192, "num_hidden_layers": 28, "num_attention_heads": 24}
MIDDLE = {"hidden_size": 1_536, "intermediate_size": 8_960, "num_hidden_layers": 28, "num_attention_heads": 12}
NORMED = {"hidden_size": 1_024, "intermediate_size": 3_072, "num_hidden_layers": 28, "num_attention_heads": 16}
MODELS: dict[str, PreTrainedConfig] = {
    "360m": LlamaConfig(**COMMON, **SMALL, num_key_value_heads=5, vocab_size=49_152),
    "0.6b": Qwen3Config(**COMMON, **NORMED, num_key_value_heads=8, head_dim=128, vocab_size=151_936),
    "1.5b": Qwen2Config(**COMMON, **MIDDLE, num_key_value_heads=2, vocab_size=151_936),
    "3b": LlamaConfig(**COMMON, **LARGE, num_key_value_heads=8, head_dim=128, vocab_size=128_256),
}
"""The shapes of SmolLM2-360M, Qwen3-0.6B, Qwen2.5-1.5B and Llama-3.2-3B."""

RUNS = """
360m lora agent930 0
360m full agent930 0
0.6b lora agent930 24
0.6b qlora agent930-unique 8
0.6b full long2k 24
1.5b lora agent930 24
1.5b qlora agent930 8
1.5b full agent930 80
1.5b lora long4k 24
3b lora agent930 24
3b qlora long2k 12
3b full agent930-unique 80
3b lora agent930 0
random-7b lora agent930 80
random-7b lora long2k 40
random-7b qlora agent930-unique 24
random-7b qlora long4k 16
random-7b qlora long2k 8
360m lora agent930 0 pack_tokens=1024
360m lora agent930-unique 0 pack_tokens=2048
360m full agent930 0 pack_tokens=1024
360m qlora agent930-unique 0 pack_tokens=1024 unpack=off
0.6b lora agent930-unique 0 pack_tokens=1024
0.6b full agent930-unique 0 pack_tokens=1024
1.5b lora agent930 0 pack_tokens=1024
1.5b qlora agent930-unique 0 pack_tokens=1024 unpack=off
3b lora agent930-unique 0 pack_tokens=1024
3b qlora agent930-unique 0 pack_tokens=1024 unpack=on
random-7b lora agent930-unique 0 pack_tokens=1024
random-7b qlora agent930 0 pack_tokens=1024 unpack=off
"""
"""Model, method, shape, GiB to use at most (0: the whole card), and settings. The packs of the last twelve are as short
as those of a few hundred rows, so that launching kernels takes longer than running them."""


def make_model(folder: Path, name: str) -> str:
    """The folder of a model of `MODELS`, or the name itself."""
    if name not in MODELS:
        return name
    where = folder / name
    if not where.exists():
        torch.manual_seed(0)
        with torch.device("cuda"):
            AutoModelForCausalLM.from_config(MODELS[name], dtype=torch.bfloat16).save_pretrained(where)
        tiny_tokenizer().save_pretrained(where)
    return str(where)


def main() -> None:
    """Measure all runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    for name, method, shape, memory, *settings in map(str.split, RUNS.strip().splitlines()):
        arguments = ["--model", make_model(folder, name), "--method", method, "--shape", shape, "--steps", "7"]
        arguments += settings
        given, recipe = read_options(arguments)
        planned = plan_bench(recipe, shape, float(memory) or None)
        found = bench_train(planned, shape, given.steps)
        if planned.choice is None or found is None:
            raise SystemExit("this needs a GPU, and one process")
        gib, speed = planned.choice.estimate.memory / GIB, planned.choice.samples_per_second
        memories = f"{gib:.2f} GiB planned, {found.memory / GIB:.2f} measured ({gib * GIB / found.memory - 1:+.0%})"
        speeds = f"{speed:.4g} samples/s planned, {found.samples_per_second:.4g} measured"
        time = f"planned time {found.samples_per_second / speed - 1:+.0%}"
        say_text(f"{' '.join((name, method, shape, *settings))} within {memory} GiB: {memories}; {speeds}, {time}")


if __name__ == "__main__":
    main()
