"""A wheel of a few kilobytes with a real GGUF file, so that tests can run a complete pull without a network."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import gguf
import numpy as np

from agentft.models.embedded import EmbeddedModel

CONTEXT, WIDTH, HEADS, VOCABULARY = 128, 64, 2, 260


def write_gguf(path: Path) -> None:
    """A Llama of one layer with random weights and a byte-level vocabulary with one merge."""
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_block_count(1)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(VOCABULARY)
    _add_tokenizer(writer)
    _add_weights(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(code) for code in kept] + [chr(256 + index) for index in range(256 - len(kept))]
    tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *letters, "th"]
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3, *[1] * 257])
    writer.add_token_merges(["t h"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template("{% for message in messages %}{{ message['content'] }}{% endfor %}")


def _add_weights(writer: gguf.GGUFWriter) -> None:
    random, kind = np.random.default_rng(0), gguf.GGMLQuantizationType.Q8_0
    shapes = {
        "token_embd.weight": (VOCABULARY, WIDTH),
        "blk.0.attn_q.weight": (WIDTH, WIDTH),
        "blk.0.attn_k.weight": (WIDTH, WIDTH),
        "blk.0.attn_v.weight": (WIDTH, WIDTH),
        "blk.0.attn_output.weight": (WIDTH, WIDTH),
        "blk.0.ffn_gate.weight": (2 * WIDTH, WIDTH),
        "blk.0.ffn_up.weight": (2 * WIDTH, WIDTH),
        "blk.0.ffn_down.weight": (WIDTH, 2 * WIDTH),
    }
    for name, shape in shapes.items():
        values = gguf.quants.quantize(random.standard_normal(shape, dtype=np.float32), kind)
        writer.add_tensor(name, values, raw_dtype=kind)
    for name in ("blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"):
        writer.add_tensor(name, np.ones(WIDTH, dtype=np.float32))


def write_wheel(folder: Path) -> EmbeddedModel:
    """Write `tiny_model-1.0-py3-none-any.whl` into `folder`, and give the entry of the table that fetches it."""
    gguf_file = folder / "tiny.gguf"
    write_gguf(gguf_file)
    wheel, info = folder / "tiny_model-1.0-py3-none-any.whl", "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(gguf_file, "tiny_model/tiny.gguf")
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/LICENSE", "a licence")
        archive.writestr(f"{info}/RECORD", "")
    gguf_file.unlink()
    return EmbeddedModel(
        hub="agentft/tiny",
        package="tiny-model",
        version="1.0",
        sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        size=wheel.stat().st_size,
        member="tiny_model/tiny.gguf",
        licence_member=f"{info}/LICENSE",
        licence="none",
        context=CONTEXT,
        about="a random model for tests",
    )
