"""Loads tokenizers and models, and converts failures of the model libraries to clear errors."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from agentft.errors import InputError, MissingError
from agentft.models.embedded import resolve
from agentft.models.growth import check_steps

__all__ = ["add_adapter", "check_vocabulary", "config_of", "fit_embeddings", "load_base", "load_tokenizer", "located"]

_SMALL = 1 << 26  # bytes of a model whose weights are counted before it is loaded


def load_tokenizer(model: str) -> Any:
    """Load the fast tokenizer of a folder, a hub id or an embedded model (pulled on first use).

    Raises:
        MissingError: it is not on this machine and cannot be downloaded.
        InputError: there is only a slow tokenizer, which has no character offsets; or see `check_steps`.
    """
    # Keep the libraries' progress bars and warnings off the user's terminal.
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    for library in ("bitsandbytes", "accelerate"):
        logging.getLogger(library).setLevel(logging.ERROR)
    where = resolve(model)
    with suppress(OSError, ValueError):  # the loader says why
        check_steps(Path(cached_file(where, "tokenizer.json")).parent)  # downloads a hub id's
    tokenizer = located(model, AutoTokenizer.from_pretrained, where, trust_remote_code=False)
    if not tokenizer.is_fast:
        raise InputError(f"{model} has no tokenizer.json (a fast tokenizer); convert its tokenizer first")
    return tokenizer


def load_base(model: str, where: str, config: Any = None, **options: Any) -> Any:
    """Load the weights of a model that writes text, all of which must be in its files.

    Raises:
        MissingError, InputError: see `config_of`; also if weights are missing, or far too few for the config.
    """
    from transformers import AutoModelForCausalLM

    # `quantization_config=None` would make transformers forget how the files are quantised.
    options = {name: value for name, value in options.items() if value is not None} | {"output_loading_info": True}
    config = config or config_of(model, where)
    _check_size(model, where, config)
    load = AutoModelForCausalLM.from_pretrained
    network, report = located(model, load, where, config=config, trust_remote_code=False, **options)
    if missing := sorted(report["missing_keys"]):
        raise InputError(
            f"the files of {model!r} lack {len(missing)} of the weights of {type(network).__name__} ({missing[0]}), "
            "which would be random; download it again, or use a model that writes text (no reward or embedding model)"
        )
    return network


def _check_size(model: str, where: str, config: Any) -> None:
    """Refuse a config with far more weights than the files hold: they would be made, in memory, before the refusal."""
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.integrations import is_deepspeed_zero3_enabled

    size = sum(path.stat().st_size for path in Path(where).glob("*") if path.suffix in {".safetensors", ".bin"})
    if 0 < size < _SMALL and not is_deepspeed_zero3_enabled():  # which shards weights as they are made
        with torch.device("meta"):
            network = located(model, AutoModelForCausalLM.from_config, config, trust_remote_code=False)
        if (count := network.num_parameters()) > max(8 * size, _SMALL):
            raise InputError(
                f"the config.json of {model!r} describes {count:,} weights, but its files hold {size:,} bytes; "
                "download it again"
            )


def add_adapter(network: Any, folder: str) -> Any:
    """The model with the adapter of a folder in peft's layout.

    Raises:
        MissingError, InputError: see `located`; also if weights of the adapter are missing.
    """
    from peft import PeftModel

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft reads a deprecated property of transformers
        warnings.filterwarnings("error", "Found missing adapter keys")
        return located(folder, PeftModel.from_pretrained, network, folder, trust_remote_code=False)


def config_of(model: str, where: str) -> Any:
    """The config of a model that writes text.

    Raises:
        MissingError, InputError: see `located`; also for an encoder, such as BERT, and for one with a decoder (T5).
    """
    from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig

    config = located(model, AutoConfig.from_pretrained, where, trust_remote_code=False)
    encodes = getattr(config, "is_decoder", None) is False and "CausalLM" not in str(config.architectures)
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING or encodes or getattr(config, "is_encoder_decoder", False):
        raise InputError(
            f"{model!r} ({config.model_type}) is no causal language model, so it cannot write; use one, such as Qwen3"
        )
    return config


def check_vocabulary(rows: Iterable[Sequence[int]], size: int, model: str, tokenizer: Any = None) -> None:
    """Refuse tokens beyond the `size` embeddings of the model. `tokenizer`: the model's own, if it is loaded.

    Raises:
        InputError: the rows have such tokens; the message names the first few.
    """
    beyond = sorted({token for row in rows if len(row) and max(row) >= size for token in row if token >= size})
    if beyond:
        tokenizer = tokenizer or load_tokenizer(model)
        texts = ", ".join(repr(tokenizer.convert_ids_to_tokens(token)) for token in beyond[:4])
        raise InputError(
            f"the tokenizer of {model} has {len(tokenizer):,} tokens, but the model has embeddings for {size:,}; the "
            f"rows use {len(beyond)} of the tokens without one ({texts}); resize the model's embeddings, or use the "
            "tokenizer that belongs to the model"
        )


def fit_embeddings(model: Any, tokenizer: Any) -> None:
    """Give `model` an embedding (and a row of the head) for each token of `tokenizer`, if it has too few."""
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)


def located(model: str, load: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call a `from_pretrained`; if it fails, tell the user what to do.

    Raises:
        MissingError: the model is not on this machine and cannot be downloaded.
        InputError: its files are damaged or unknown, a pickle of more than tensors, need code from the model's folder,
            or more memory than there is.
    """
    try:
        return load(*arguments, **options)
    except (OSError, ValueError, ImportError) as error:
        if "trust_remote_code" in str(error):
            raise InputError(f"{model!r} needs its own Python code, which agentft never runs; use another") from error
        if "is quantized with" in str(error):
            raise InputError(
                f"the weights of {model!r} are quantised already; use --method lora, or --bits 16"
            ) from error
        raise MissingError(
            f"the model {model!r} cannot be loaded ({_first_line(error)}); give a folder, a hub id or smollm2-135m"
        ) from error
    except Exception as error:
        kind = type(error).__name__  # pickle, whose error is one of these, is not imported anywhere
        if kind == "UnpicklingError":
            raise InputError(
                f"the weights of {model!r} are a pickle that holds more than tensors, which agentft never loads; "
                "convert them to safetensors"
            ) from error
        # The tokenizers library raises plain exceptions; for a value of the wrong type, libraries raise anything.
        why = f"{kind}: {_first_line(error)}".removeprefix("Exception: ")
        if isinstance(error, MemoryError) or " memory" in why:
            raise InputError(f"too little memory for {model!r} ({why:.300}); use fewer bits, or another") from error
        raise InputError(
            f"{model!r} cannot be loaded ({why:.300}): its files are damaged, or the installed transformers does not "
            "know their form; download it again, or use another"
        ) from error


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
