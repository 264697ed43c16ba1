"""How fast TRL and Unsloth train on the shapes of `train.py`, each in its own Python; one JSON line per measurement.

It imports nothing of agentft, and runs in the library's own interpreter, started by `agentft bench train --peer
unsloth=/venvs/unsloth/bin/python`. The model has the shape of Qwen2.5-7B and random weights, and is written once to
`--folder`; 4 bits, LoRA r=16 on all linear layers, the library's own checkpointing, paged 8-bit AdamW, one sample per
row with only the call supervised.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

os.environ |= {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "TOKENIZERS_PARALLELISM": "false"}

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SEVEN_B = {
    "vocab_size": 152_064,
    "hidden_size": 3_584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "max_position_embeddings": 32_768,
}


def _write_model(folder: Path) -> None:
    """The random model, and a tokenizer that knows a few words."""
    import torch
    from tokenizers import Tokenizer, models
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    if (folder / "config.json").exists():
        return
    torch.manual_seed(0)
    with torch.device("cuda"):
        model = AutoModelForCausalLM.from_config(Qwen2Config(**SEVEN_B), dtype=torch.bfloat16, trust_remote_code=False)
    model.save_pretrained(str(folder))
    words = {word: number for number, word in enumerate(["<unk>", "<s>", "</s>", "<pad>", "a", "b"])}
    core = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    tokenizer.save_pretrained(str(folder))
    del model
    torch.cuda.empty_cache()


def _open_unsloth(folder: Path, tokens: int) -> tuple[Any, Any]:
    """Unsloth's patched model with adapters, and its version."""
    import torch
    import unsloth

    model, tokenizer = unsloth.FastLanguageModel.from_pretrained(
        str(folder),
        max_seq_length=tokens,
        load_in_4bit=True,
        dtype=torch.bfloat16,
        local_files_only=True,
        trust_remote_code=False,
    )
    model = unsloth.FastLanguageModel.get_peft_model(
        model,
        r=16,
        lora_alpha=16,
        lora_dropout=0,
        bias="none",
        target_modules=TARGETS,
        use_gradient_checkpointing="unsloth",
        random_state=0,
        max_seq_length=tokens,
    )
    return model, tokenizer


def _open_trl(folder: Path, tokens: int) -> tuple[Any, Any]:
    """A 4-bit model with peft's adapters, as in TRL's documentation."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from agentft.models.hf import quantisation

    bits = quantisation(4, torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(
        str(folder), quantization_config=bits, dtype=torch.bfloat16, device_map={"": 0}, trust_remote_code=False
    )
    model.enable_input_require_grads()
    return get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules=TARGETS, task_type="CAUSAL_LM")), (
        AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)
    )


def _rows(shape: dict[str, int], count: int) -> list[dict[str, list[int]]]:
    """Random tokens of the shape; only the supervised ones have labels."""
    dice, start = random.Random(0), shape["shared"] + shape["own"]
    tokens = start + shape["supervised"] + shape["tail"]
    rows = []
    stem = [dice.randrange(10, 150_000) for _ in range(shape["shared"])]
    for _ in range(count):
        ids = stem + [dice.randrange(10, 150_000) for _ in range(tokens - len(stem))]
        labels = [-100] * start + ids[start : start + shape["supervised"]] + [-100] * shape["tail"]
        rows.append({"input_ids": ids, "attention_mask": [1] * tokens, "labels": labels})
    return rows


def _clock() -> Any:
    """A callback that measures the seconds of each step."""
    import torch
    from transformers import TrainerCallback

    class Clock(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.seconds: list[float] = []
            self.began = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.began = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            torch.cuda.synchronize()
            self.seconds.append(time.perf_counter() - self.began)

    return Clock()


def _settings(tokens: int, batch: int, steps: int) -> Any:
    """TRL's settings for rows of equal length, without packing."""
    import trl

    return trl.SFTConfig(
        output_dir="/tmp/peer",  # noqa: S108
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        max_steps=steps + 2,
        optim="paged_adamw_8bit",
        bf16=True,
        learning_rate=1e-4,
        lr_scheduler_type="constant",
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
        gradient_checkpointing=True,
        gradient_checkpointing_kwargs={"use_reentrant": False},
        max_length=tokens,
        dataset_kwargs={"skip_prepare_dataset": True},
        remove_unused_columns=False,
        dataloader_num_workers=0,
    )


def _measure(peer: str, model: Any, tokenizer: Any, shape: dict[str, int], batch: int, steps: int) -> dict[str, Any]:
    """The median step time and the peak memory at one batch size."""
    import torch
    import trl
    from datasets import Dataset
    from transformers import default_data_collator

    rows = _rows(shape, batch * (steps + 2))
    tokens = len(rows[0]["input_ids"])
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    clock = _clock()
    settings = _settings(tokens, batch, steps)
    trainer = trl.SFTTrainer(
        model=model,
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        data_collator=default_data_collator,
        callbacks=[clock],
    )
    trainer.train()
    middle = statistics.median(clock.seconds[2:])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    return {
        "name": f"{peer}, batch {batch}",
        "samples_per_second": batch / middle,
        "tokens_per_second": batch * tokens / middle,
        "memory": torch.cuda.max_memory_allocated(),
        "samples": batch,
        "loss": losses[-1],
        "versions": {"trl": trl.__version__, "torch": torch.__version__},
    }


def _main() -> None:
    """Measure one library at each batch size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=["unsloth", "trl"])
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm/random-7b"))  # noqa: S108
    parser.add_argument("--shape", required=True, help="JSON: shared, own, supervised, tail")
    parser.add_argument("--batch", type=int, action="append", required=True)
    parser.add_argument("--steps", type=int, default=4)
    given = parser.parse_args()
    shape = json.loads(given.shape)
    if given.peer == "unsloth":
        import unsloth  # noqa: F401 - before transformers, or it cannot patch it
    import torch

    _write_model(given.folder)
    opened = {"unsloth": _open_unsloth, "trl": _open_trl}[given.peer]
    model, tokenizer = opened(given.folder, sum(shape.values()))
    for batch in given.batch:
        try:
            found = _measure(given.peer, model, tokenizer, shape, batch, given.steps)
        except torch.OutOfMemoryError:
            found = {"name": f"{given.peer}, batch {batch}", "failed": "out of memory"}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
