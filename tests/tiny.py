"""A tiny tokenizer, trained here, and a tiny random model for tests: the same in every run, without network."""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

__all__ = ["CHATML_TEMPLATE", "SHAPE", "save_tiny", "tiny_model", "tiny_tokenizer"]

CHATML_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SHAPE: dict[str, Any] = {
    "vocab_size": 400,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "initializer_range": 0.1,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 2,
}
"""The config of the tiny model, also for models of other families."""
_CORPUS = (
    "system user assistant tool You are a helpful assistant. What is the weather in Beijing or in Paris? It is fine.",
    '{"name": "current_weather", "arguments": {"city": "Lisbon", "unit": "celsius"}} {"api_name": "x", "url": "http://x"}',
    "<|startofthink|>```JSON\n{}\n```<|endofthink|> <|startofexec|>```JSON\n{}\n```<|endofexec|>\n</tool_call>",
    "我想知道北京的天气怎么样。今天晴，气温二十度。 the of and to in is that for on with as at by from this",
)


@cache
def _tokenizer_core() -> str:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    core.train_from_iterator(_CORPUS * 4, trainer)
    text: str = core.to_str()
    return text


def tiny_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 400 tokens with the ChatML template (a new object at each call)."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_tokenizer_core()),
        bos_token="<|im_start|>",
        eos_token="<|im_end|>",
        pad_token="<|im_end|>",
        unk_token="<|endoftext|>",
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    return tokenizer


@cache
def _drawn_model() -> Any:
    state = torch.random.get_rng_state()
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPE,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        use_cache=False,
        attn_implementation="sdpa",
    )
    model = LlamaForCausalLM(config)
    torch.random.set_rng_state(state)
    return model


def tiny_model() -> Any:
    """A Llama of two layers with random weights in fp32 (a new copy at each call)."""
    return copy.deepcopy(_drawn_model())


def save_tiny(folder: Path) -> Path:
    """Write the tiny model and its tokenizer to `folder` as a model folder that `--model` takes."""
    tiny_model().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder
